"""How long the threads of this process stood ready and waited for a processor that others had.

A measurement during which this grows is one of a busy machine. What others take of caches and memory does not show
here, only in how far times spread.
"""

from __future__ import annotations

import os
import resource
from contextlib import suppress
from pathlib import Path

SLICE_S = 3e-3  # what a thread that is put aside waits, about, where the system counts only how often that happens


def waited_s(process: Path = Path("/proc/self"), machine: Path = Path("/proc/stat")) -> float:
    """Seconds that threads of this process have waited so far, together, and that a hypervisor took from the machine.

    Linux counts the waiting of every thread; elsewhere a thread that had to make room has waited for a slice.
    """
    waited, threads = 0.0, 0
    with suppress(OSError):
        for task in (process / "task").iterdir():
            with suppress(OSError, ValueError, IndexError):  # a thread may just have ended
                waited += int((task / "schedstat").read_text().split()[1]) * 1e-9
                threads += 1
    if not threads:
        waited = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw * SLICE_S
    return waited + _stolen_s(machine)


def _stolen_s(machine: Path) -> float:
    """Seconds that other guests of this host took from our processors."""
    with suppress(OSError, ValueError, IndexError):
        return int(machine.read_text().partition("\n")[0].split()[8]) / os.sysconf("SC_CLK_TCK")
    return 0.0
