"""The machine a run was made on: what it is, what it can do at most, and what else it was doing."""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from voxelrt import environment

ROOT = Path(__file__).resolve().parents[1]
_PACKAGES = ("voxelrt", "numpy", "onnx", "onnx-ir", "onnxruntime", "openvino", "torch", "pytest-benchmark")
_COPY_BYTES = 256 << 20


@dataclass(frozen=True)
class Ceilings:
    """The most this machine did, measured in the run: fp32 multiply-adds and copying (read + written bytes)."""

    fma_gflops_one: float
    fma_gflops: float
    copy_gbps: float
    copy_streaming_gbps: float

    def best(self, other: Ceilings) -> Ceilings:
        """The higher of both, each by itself: a ceiling is what was reached at any time."""
        mine, theirs = asdict(self), asdict(other)
        return Ceilings(**{name: max(mine[name], theirs[name]) for name in mine})


def peak_library() -> ctypes.CDLL:
    """Compile ``peak.cpp`` for this machine and load it.

    Raises
    ------
    RuntimeError
        There is no C++ compiler, or it failed.
    """
    source = Path(__file__).with_name("peak.cpp")
    compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        raise RuntimeError("no C++ compiler: the machine's peak cannot be measured (set CXX)")
    target = ROOT / "build" / "bench" / "peak.so"
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(f".{os.getpid()}")
    command = [compiler, "-std=c++17", "-O3", "-march=native", "-ffp-contract=fast", "-fPIC", "-shared", "-pthread"]
    done = subprocess.run([*command, str(source), "-o", str(partial)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{compiler} failed on peak.cpp: {done.stderr.strip()[-400:]}")
    os.replace(partial, target)
    library = ctypes.CDLL(str(target))
    library.bench_fma_gflops.restype = ctypes.c_double
    library.bench_fma_gflops.argtypes = [ctypes.c_int, ctypes.c_int]
    library.bench_copy_gbps.restype = ctypes.c_double
    library.bench_copy_gbps.argtypes = [ctypes.c_int, ctypes.c_size_t, ctypes.c_int, ctypes.c_int]
    return library


def measure_ceilings(library: ctypes.CDLL, threads: int) -> Ceilings:
    """Measure now; takes about two seconds."""
    return Ceilings(
        library.bench_fma_gflops(1, 20),
        library.bench_fma_gflops(threads, 40),
        library.bench_copy_gbps(threads, _COPY_BYTES, 0, 6),
        library.bench_copy_gbps(threads, _COPY_BYTES, 1, 6),
    )


def describe_machine(threads: int) -> dict[str, Any]:
    """Processor, memory, system; nothing that names the host or its user."""
    info = _processor()
    return {
        "processor": info.get("model name", platform.processor() or platform.machine()),
        "architecture": platform.machine(),
        "processors": os.cpu_count(),
        "threads": threads,
        "threads_allowed": environment.threads(),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        "instruction_sets": sorted(
            flag for flag in info.get("flags", "").split() if flag.startswith(("avx", "fma", "amx", "asimd", "sve"))
        ),
        "kernel": platform.release(),
        "huge_pages": _read("/sys/kernel/mm/transparent_hugepage/enabled"),
        "python": sys.version.split()[0],
    }


def versions() -> dict[str, str]:
    """Installed versions of everything whose version matters to a figure."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def commit() -> dict[str, Any]:
    """The repository's commit, and whether the working tree differs from it."""
    try:
        revision = _git("rev-parse", "HEAD")
        return {"commit": revision, "dirty": bool(_git("status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.CalledProcessError):
        return {"commit": "unknown", "dirty": False}


def load() -> float:
    """How many threads wanted to run, averaged over the last minute."""
    return os.getloadavg()[0]


def waited_s() -> float | None:
    """For how long some thread on this machine has waited for a processor, since it started; None if not known.

    A bench that runs one process of as many threads as there are processors waits for nobody: what grows here
    during a row is another program's doing.
    """
    for line in _read("/proc/pressure/cpu").splitlines():
        if line.startswith("some"):
            return int(line.rpartition("=")[2]) * 1e-6
    return None


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _processor() -> dict[str, str]:
    """The first processor's lines of /proc/cpuinfo."""
    found: dict[str, str] = {}
    for line in _read("/proc/cpuinfo").split("\n\n")[0].splitlines():
        name, _, value = line.partition(":")
        found[name.strip().replace("Features", "flags")] = value.strip()
    return found
