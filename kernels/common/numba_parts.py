"""Numba functions on all threads: one part of a range each. They give up the interpreter's lock themselves.

Compiling for one thread and cutting here takes a fraction of what numba's own ``parallel=True`` takes to compile, and
a part's order of sums does not depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from voxelrt import environment


def in_parts(function: Callable[..., Any], count: int, *arguments: Any) -> None:
    """Call ``function(begin, end, *arguments)`` so that all of ``range(count)`` is done; parts are claimed in turn."""
    threads = environment.threads()
    size = max(1, -(-count // (4 * threads)))
    starts = range(0, count, size)
    if threads == 1 or len(starts) <= 1:
        function(0, count, *arguments)
        return
    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(function, start, min(start + size, count), *arguments) for start in starts]:
            done.result()
