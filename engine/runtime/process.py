"""What this process uses."""

from __future__ import annotations

import resource
from pathlib import Path


def memory_bytes() -> int:
    """The memory that this process holds now (resident); 0 where the system does not say."""
    return _status("VmRSS:") or 0


def peak_memory_bytes() -> int:
    """The most memory that this process has held at once (resident)."""
    # The second is inherited from the parent by a new process on Linux, so only the second choice.
    return _status("VmHWM:") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _status(name: str) -> int | None:
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(name):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return None
