"""What this process uses."""

from __future__ import annotations

import resource
from pathlib import Path


def peak_memory_bytes() -> int:
    """The most memory that this process has held at once (resident)."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    # Inherited from the parent by a new process on Linux, so only the second choice.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
