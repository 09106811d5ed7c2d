"""voxelrt doctor: what this machine has, and how to get what is missing."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import typer

from voxelrt import environment
from voxelrt.commands.console import Screen
from voxelrt.commands.options import JsonOption, QuietOption
from voxelrt.errors import VoxelRTError

# Extra -> (module that shows it is there, what it is for).
EXTRAS = {
    "onnxruntime": ("onnxruntime", "runs nodes that have no kernel of ours; the reference of parity"),
    "dicom-codecs": ("pylibjpeg", "reads compressed DICOM"),
    "numba": ("numba", "portable kernels"),
    "torch": ("torch", "loads PyTorch models"),
    "gpu": ("cupy", "NVIDIA GPUs"),
    "gpu-aot": ("tensorrt_rtx", "TensorRT engines for NVIDIA GPUs"),
}
CORE = ("numpy", "ml-dtypes", "onnx", "onnx-ir", "protobuf", "pydicom", "nibabel", "pillow", "rich", "typer")


@dataclass(frozen=True)
class Finding:
    """One line of the examination; ``state`` is ok, missing (optional) or broken."""

    what: str
    state: str
    text: str


def doctor(json: JsonOption = None, quiet: QuietOption = False) -> None:
    """Say what VoxelRT finds on this machine, and how to get what is missing. Exit code 1 if it cannot run here.

    [bold]Examples[/]

      voxelrt doctor

      voxelrt doctor --json -
    """
    screen = Screen(quiet=quiet, json_to=json)
    findings = examine()
    screen.table(("", "", ""), ((f.what, f.state, f.text) for f in findings))
    broken = [f.what for f in findings if f.state == "broken"]
    screen.line(f"cannot run here: {', '.join(broken)}" if broken else "VoxelRT can run here")
    screen.line("Research software, not a medical device.")
    screen.json({"can_run": not broken, "findings": [asdict(f) for f in findings]})
    if broken:
        raise typer.Exit(1)


def examine() -> list[Finding]:
    """Everything that is looked at, in order."""
    python = f"{platform.python_version()}, {platform.system()} {platform.machine()}"
    return [
        Finding("voxelrt", "ok", metadata.version("voxelrt")),
        Finding("Python", "ok", python),
        *_core(),
        _environment(),
        *_native(),
        *(_extra(name, module, purpose) for name, (module, purpose) in EXTRAS.items()),
        _nvcc(),
        _gpu(),
        _cache(),
    ]


def _core() -> list[Finding]:
    missing = []
    for name in CORE:
        try:
            metadata.version(name)
        except metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        return [Finding("dependencies", "broken", f"missing: {sys.executable} -m pip install {' '.join(missing)}")]
    return [Finding("dependencies", "ok", ", ".join(f"{name} {metadata.version(name)}" for name in CORE[:4]))]


def _environment() -> Finding:
    try:
        environment.check_names()
        count = environment.threads()
    except VoxelRTError as error:
        return Finding("environment", "broken", str(error))
    return Finding(
        "threads", "ok", f"{count} compute threads (what affinity and cgroup quota, or VOXELRT_THREADS, allow)"
    )


def _native() -> list[Finding]:
    try:
        from voxelrt.kernels.common import capi, native

        return [
            Finding("native library", "ok", f"instruction set {capi.isa()}, plans for {capi.target()}"),
            Finding("native kernels", "ok", f"{len(native.kernels())}: {', '.join(sorted(native.kernels()))}"),
        ]
    except (VoxelRTError, OSError) as error:
        return [Finding("native library", "broken", str(error))]


def _extra(name: str, module: str, purpose: str) -> Finding:
    if find_spec(module) is None:
        return Finding(f"[{name}]", "missing", f"{purpose}: pip install 'voxelrt[{name}]'")
    packages = metadata.packages_distributions().get(module, [module])
    return Finding(f"[{name}]", "ok", f"{packages[0]} {metadata.version(packages[0])}: {purpose}")


def _nvcc() -> Finding:
    from voxelrt.kernels.common.gpu.cuda_compiler import nvcc

    purpose = "compiles our CUDA kernels into plans for GPUs; running them needs it not"
    found = nvcc()
    if found is None:
        return Finding("nvcc", "missing", f"{purpose}: pip install 'cuda-toolkit[nvcc,cudart,cccl]==13.0.*'")
    return Finding("nvcc", "ok", f"{found}: {purpose}")


def _gpu() -> Finding:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        driver = Path("/proc/driver/nvidia/version").exists()
        text = "an NVIDIA driver is loaded, but nvidia-smi is not here" if driver else "no NVIDIA GPU or driver found"
        return Finding(
            "GPU", "missing", f"{text}; plans for GPUs elsewhere can be compiled: --device cuda --arch sm_86"
        )
    try:
        query = [tool, "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
        done = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return Finding("GPU", "missing", "nvidia-smi does not answer: nothing runs on a GPU")
    found = "; ".join(line.strip() for line in done.stdout.splitlines())
    return Finding("GPU", "ok", f"{found}; used by --device cuda, with the extra gpu")


def _cache() -> Finding:
    folder = environment.cache_folder()
    used = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) if folder.is_dir() else 0
    there = next(p for p in (folder, *folder.parents) if p.exists())
    free = shutil.disk_usage(there).free
    return Finding(
        "cache folder", "ok", f"{folder}: {used / 2**20:.1f} MiB used, {free / 2**30:.1f} GiB free on its disk"
    )
