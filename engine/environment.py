"""The environment variables of VoxelRT, read here and nowhere else. An unknown value is an error.

=======================  ==================================================================================
``VOXELRT_CPU_ISA``      ``avx2``, ``avx512`` or ``neon``: use this instruction set (default: the best one)
``VOXELRT_THREADS``      number of compute threads (default: what the cgroup and the affinity mask allow)
``VOXELRT_CACHE``        folder for downloads and compiled plans (default: ``~/.cache/voxelrt``)
``VOXELRT_LIBRARY``      path of the native library (default: the one that was built with the package)
=======================  ==================================================================================
"""

from __future__ import annotations

import math
import os
from pathlib import Path

from voxelrt.errors import UsageError

KNOWN = ("VOXELRT_CPU_ISA", "VOXELRT_THREADS", "VOXELRT_CACHE", "VOXELRT_LIBRARY")


def check_names() -> None:
    """Raise UsageError if the environment holds a ``VOXELRT_*`` name that does not exist (a typing error)."""
    unknown = sorted(n for n in os.environ if n.startswith("VOXELRT_") and n not in KNOWN)
    if unknown:
        raise UsageError(f"unknown environment variable {', '.join(unknown)}; known are {', '.join(KNOWN)}")


def threads() -> int:
    """The number of compute threads: ``VOXELRT_THREADS``, else what affinity and cgroup quota allow."""
    asked = os.environ.get("VOXELRT_THREADS")
    if asked:
        if not asked.isdigit() or not 1 <= int(asked) <= 1024:
            raise UsageError(f"VOXELRT_THREADS is {asked!r}; give a whole number from 1 to 1024")
        return int(asked)
    available = len(os.sched_getaffinity(0))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        if quota != "max":
            available = min(available, max(1, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):
        pass
    return available


def cache_folder() -> Path:
    """The folder for downloads and compiled plans; it need not exist yet."""
    asked = os.environ.get("VOXELRT_CACHE")
    return Path(asked) if asked else Path.home() / ".cache" / "voxelrt"


def library_path() -> Path | None:
    """The native library asked for by ``VOXELRT_LIBRARY``, or None."""
    asked = os.environ.get("VOXELRT_LIBRARY")
    if not asked:
        return None
    if not Path(asked).is_file():
        raise UsageError(f"VOXELRT_LIBRARY is {asked!r}, which is not a file")
    return Path(asked)
