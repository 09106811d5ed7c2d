"""The GPU that a run is made on, as it describes itself."""

from __future__ import annotations

import importlib.metadata
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

PACKAGES = (
    *(
        "voxelrt",
        "numpy",
        "cupy-cuda13x",
        "cupy-cuda12x",
        "tensorrt-cu13",
        "tensorrt",
        "tensorrt-rtx-cu13",
        "torch",
        "triton",
    ),
    *("onnxruntime-gpu", "onnxruntime", "monai", "cucim-cu13", "cucim-cu12"),
)
_QUERY = "name,driver_version,memory.total,clocks.sm,clocks.max.sm,clocks.mem,power.limit,temperature.gpu"


@dataclass(frozen=True)
class Described:
    """Words for the report.

    Parameters
    ----------
    gpus : a line of nvidia-smi each, by the names of ``_QUERY``; empty where it is not there.
    versions : of what is installed.
    """

    gpus: list[dict[str, str]]
    versions: dict[str, str]


def describe() -> Described:
    """Ask nvidia-smi for clocks and names, and the installed packages for their versions."""
    return Described(_gpus(), _versions(PACKAGES))


def _versions(names: Sequence[str]) -> dict[str, str]:
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _gpus() -> list[dict[str, str]]:
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", f"--query-gpu={_QUERY}", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    if done.returncode:
        return []
    return parse_query(done.stdout)


def parse_query(text: str) -> list[dict[str, str]]:
    """nvidia-smi's answer, a line a GPU."""
    names = _QUERY.split(",")
    rows = [[word.strip() for word in line.split(",")] for line in text.splitlines() if line.strip()]
    return [dict(zip(names, row, strict=True)) for row in rows if len(row) == len(names)]
