"""What this machine can do at most, measured with the instruction set and the threads that a plan uses."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from voxelrt.kernels.common import capi, native

_COPIED = 64 << 20  # floats' bytes: past every cache
_ROUNDS = 30_000


@dataclass(frozen=True)
class Ceilings:
    """``gflops``: float32 multiply-adds, each counted as two. ``gbps``: a copy, read and written bytes."""

    isa: str
    threads: int
    gflops: float
    gbps: float

    def roof(self, flops: float, moved: float) -> float:
        """The least seconds that so much work takes: the ceiling that binds (Williams et al., "Roofline", 2009)."""
        return max(flops / (self.gflops * 1e9), moved / (self.gbps * 1e9))

    def __str__(self) -> str:
        return f"fp32 {self.gflops:.0f} GFLOP/s, copy {self.gbps:.1f} GB/s ({self.isa}, {self.threads} threads)"


def measure_ceilings(threads: int, tries: int = 6) -> Ceilings:
    """The best of a few short tries each; takes about a second."""
    pool = native.Pool(threads)
    # One piece of work a thread and more: pieces are a few hundred floats.
    chains = np.full(threads * 64 * 384, 0.5, np.float32)
    products = native.aligned_empty(chains.shape, chains.dtype)
    rounds = max(1, _ROUNDS // 64)

    def multiply() -> None:
        native.run_kernel("ceiling.fma", [chains], [products], pool, rounds=rounds, factor=0.999, addend=0.001)

    source = native.aligned_empty((_COPIED // 4,), np.float32)
    target = native.aligned_empty((_COPIED // 4,), np.float32)
    source[...] = 1.0
    target[...] = 0.0

    def copier(streaming: int) -> Callable[[], None]:
        return lambda: native.run_kernel("ceiling.copy", [source], [target], pool, streaming=streaming)

    copied = min(_best(copier(streaming), tries) for streaming in (0, 1))
    return Ceilings(
        capi.isa(),
        threads,
        2.0 * rounds * chains.size / _best(multiply, tries) / 1e9,
        2.0 * _COPIED / copied / 1e9,
    )


def _best(work: Callable[[], None], tries: int) -> float:
    work()
    times = []
    for _ in range(tries):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)
