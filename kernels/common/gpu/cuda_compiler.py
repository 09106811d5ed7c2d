"""``cuda.cu`` to PTX and cubins, with nvcc."""

from __future__ import annotations

import functools
import hashlib
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
    """The path of nvcc, or None."""
    return shutil.which("nvcc")


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
    path = nvcc()
    if path is None:
        raise DeviceError("compiling CUDA kernels needs nvcc on PATH: install the CUDA toolkit 13")
    parts = [file.read_bytes() for file in sorted((*source.parent.glob("*.cu*"), *_HERE.glob("*.cuh")))]
    key = hashlib.sha256(b"\0".join([_version(path), repr((_OPTIONS, target, source.name)).encode(), *parts]))
    kept = _folder() / key.hexdigest()
    if not kept.exists():
        with tempfile.TemporaryDirectory(dir=_folder()) as name:
            made = Path(name, "made")
            made.mkdir()
            log = _run(path, source, target, made)
            made.joinpath("log").write_text(log, encoding="utf-8")
            try:
                os.rename(made, kept)
            except OSError:  # another process was first, with the same content
                if not kept.exists():
                    raise
    return Compiled(
        target,
        kept.joinpath("kernel.ptx").read_text(encoding="utf-8"),
        kept.joinpath("kernel.cubin").read_bytes(),
        kept.joinpath("log").read_text(encoding="utf-8"),
    )


def _run(path: str, source: Path, target: int, folder: Path) -> str:
    log = ""
    steps = (
        [path, *_OPTIONS, f"-arch=sm_{target}", f"-I{_HERE}", "-ptx", "-o", str(folder / "kernel.ptx"), str(source)],
        [path, "-Xptxas=-v,-O3", f"-arch=sm_{target}", "-cubin", "-o", str(folder / "kernel.cubin"), "kernel.ptx"],
    )
    for step in steps:
        done = subprocess.run(step, capture_output=True, text=True, check=False, cwd=folder)
        log += done.stdout + done.stderr
        if done.returncode:
            raise DeviceError(f"nvcc refused {source.parent.name}/{source.name} for sm_{target}: {log.strip()[:2000]}")
    return log
