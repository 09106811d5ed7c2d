"""``cuda.cu`` to PTX and cubins, with nvcc."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from voxelrt.errors import DeviceError

_HERE = Path(__file__).resolve().parent
_OPTIONS = ("-std=c++17", "-O3", "-Werror=all-warnings", "-lineinfo")


@dataclass(frozen=True)
class Compiled:
    """What a compiler made for one target."""

    target: int
    ptx: str
    cubin: bytes
    log: str


def nvcc() -> str | None:
    """The path of nvcc, on PATH or of NVIDIA's own Python packages, or None."""
    found = shutil.which("nvcc")
    spec = None if found else importlib.util.find_spec("nvidia")
    places = () if spec is None else (Path(folder, "cu13/bin/nvcc") for folder in spec.submodule_search_locations or ())
    return found or next((str(place) for place in places if os.access(place, os.X_OK)), None)


def _folder() -> Path:
    """Compiled code is kept between runs by the hash of all that went into it."""
    folder = Path(tempfile.gettempdir()) / f"voxelrt-gpu-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


@functools.lru_cache(maxsize=1)
def _version(path: str) -> bytes:
    return subprocess.run([path, "--version"], capture_output=True, check=True).stdout


def compile_cuda(source: Path, target: int) -> Compiled:
    """Compile a ``cuda.cu`` for ``sm_<target>``.

    Raises
    ------
    DeviceError : there is no nvcc, or it refused the source or the target; its words are in the message.
    """
    ptx = compile_ptx(source, target)
    options = ["-Xptxas=-v,-O3", f"-arch=sm_{target}", "-cubin", "-o", "kernel.cubin", "kernel.ptx"]
    kept = _kept(source, target, options, {"kernel.ptx": ptx})
    cubin, log = kept.joinpath("kernel.cubin").read_bytes(), kept.joinpath("log").read_text(encoding="utf-8")
    return Compiled(target, ptx, cubin, log)


def compile_ptx(source: Path, target: int) -> str:
    """The first half of ``compile_cuda``: the PTX, which is all that the tests interpret."""
    parts = [file.read_bytes() for file in sorted((*source.parent.glob("*.cu*"), *_HERE.glob("*.cuh")))]
    content = hashlib.sha256(b"\0".join(parts)).hexdigest()
    options = [*_OPTIONS, f"-arch=sm_{target}", f"-I{_HERE}", "-ptx", "-o", "kernel.ptx", str(source)]
    kept = _kept(source, target, options, {"content": content})
    return kept.joinpath("kernel.ptx").read_text(encoding="utf-8")


def _kept(source: Path, target: int, options: list[str], inputs: dict[str, str]) -> Path:
    """The folder of what nvcc makes of some inputs with some options, made now or before."""
    path = nvcc()
    if path is None:
        raise DeviceError(
            "compiling CUDA kernels needs nvcc 13: put it on PATH, or "
            "pip install 'cuda-toolkit[nvcc,cudart,cccl]==13.0.*'"
        )
    key = hashlib.sha256(b"\0".join([_version(path), repr((options, inputs)).encode()]))
    kept = _folder() / key.hexdigest()
    if kept.exists():
        return kept
    with tempfile.TemporaryDirectory(dir=_folder()) as name:
        made = Path(name, "made")
        made.mkdir()
        for file, text in inputs.items():
            made.joinpath(file).write_text(text, encoding="utf-8")
        done = subprocess.run([path, *options], capture_output=True, text=True, check=False, cwd=made)
        log = done.stdout + done.stderr
        if done.returncode:
            what = f"{source.parent.name}/{source.name} for sm_{target}"
            raise DeviceError(f"nvcc refused {what}: {log.strip()[:2000]}")
        made.joinpath("log").write_text(log, encoding="utf-8")
        try:
            os.rename(made, kept)
        except OSError:  # another process was first, with the same content
            if not kept.exists():
                raise
    return kept
