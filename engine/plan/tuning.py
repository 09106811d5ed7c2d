"""Algorithms by the clock: the best few of the model are run on this machine, and what was found is kept.

What is kept is in the cache folder, by instruction set, processor, threads and version; it is a hint, never needed.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import astuple, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np

from voxelrt import environment
from voxelrt.errors import OutputError
from voxelrt.kernels.common import capi, native
from voxelrt.kernels.common.native import BLOCK, BLOCKED16, Operand, Pool
from voxelrt.kernels.conv3d.algorithm import SHARED, Algorithm, Problem, neighbours

MODES = ("off", "fast", "full")
WORTH = 5e6  # cycles of a step below which no time is spent on choosing
RIVAL = {"fast": 1.4, "full": 3.0}  # times the model's best: algorithms beyond are not run
RIVALS = {"fast": 5, "full": 16}  # nor more than so many
NOMINAL = 3e9  # cycles a second, to say seconds in the model's unit
ROUNDS = {"fast": 4, "full": 8}
ENOUGH = 0.1  # seconds that a rival has run, after which no further round is needed
COLD = 1.15  # times the clock for blocks that all threads share: in a plan other steps have emptied the last cache
HOPELESS = 1.3  # times the best so far: a rival that slow after its first timed run is not run again
COLD = 2.0  # the same of the first run, which is not timed: caches and pages are new to it
LARGE_BYTES, FEW_PLANES = 64 << 20, 32  # larger volumes are timed in part, which is no thinner than this


class Tuner:
    """Times algorithms for convolutions; an object of this class is a ``choice.Timer``.

    Parameters
    ----------
    mode : ``fast`` or ``full``.
    threads : the compute threads of the plan.
    progress : called with a line of text before each measurement.
    """

    def __init__(self, mode: str, threads: int | None = None, progress: Callable[[str], None] | None = None) -> None:
        self._mode = mode
        self._threads = threads or environment.threads()
        self._pool = Pool(self._threads)
        self._progress = progress
        self._path = environment.cache_folder() / "tuning" / f"{_machine(self._threads, mode)}.json"
        self._known = _read(self._path)

    def __call__(self, problem: Problem, found: Sequence[Algorithm]) -> list[Algorithm]:
        """The algorithms with their measured cycles, the fastest first; those that were not run follow."""
        best = found[0].cycles
        if best < WORTH or len(found) == 1:
            return list(found)
        rivals = [a for a in found if a.cycles < RIVAL[self._mode] * best]
        rivals += [n for a in rivals[:2] for n in neighbours(a, problem)] if self._mode == "full" else []
        rivals = _varied(rivals)[: RIVALS[self._mode]]
        key = json.dumps([list(astuple(problem)), [[a.kernel, a.params] for a in rivals]])
        digest = hashlib.sha256(key.encode()).hexdigest()[:24]
        cycles = self._known.get(digest)
        if cycles is None or len(cycles) != len(rivals):
            if self._progress is not None:
                size = "×".join(map(str, problem.size))
                self._progress(
                    f"timing {len(rivals)} ways for {problem.channels} → {problem.outputs} channels at {size}"
                )
            cycles = self._measure(problem, rivals)
            self._known[digest] = cycles
            self._save()
        shared = [COLD if a.params["algorithm"] == SHARED else 1.0 for a in rivals]
        measured = [replace(a, cycles=c * s) for a, c, s in zip(rivals, cycles, shared, strict=True)]
        return sorted(measured, key=lambda a: a.cycles) + [a for a in found if a not in rivals]

    def _measure(self, problem: Problem, rivals: Sequence[Algorithm]) -> list[float]:
        """The least time of a few rounds of turns: a busy moment hits one round, not one rival."""
        part = _part(problem)
        run = _runner(part, rivals, self._pool)
        times = [float("inf")] * len(rivals)
        racing = list(range(len(rivals)))
        for turn in range(1 + ROUNDS[self._mode]):
            if turn == 1:
                cold, times = times, [float("inf")] * len(rivals)
                racing = [i for i in racing if cold[i] < COLD * min(cold)]
            for i in racing:
                start = time.perf_counter()
                run(i)
                times[i] = min(times[i], time.perf_counter() - start)
            if turn:
                racing = [i for i in racing if times[i] < HOPELESS * min(times)]
                if turn * min(times) > ENOUGH:
                    break
        times = [cold[i] if t == float("inf") else t for i, t in enumerate(times)]
        return [t * NOMINAL * self._threads * problem.size[0] / part.size[0] for t in times]

    def _save(self) -> None:
        with suppress(OutputError, OSError):  # a machine without a cache folder tunes anew
            self._path.parent.mkdir(parents=True, exist_ok=True)
            from voxelrt.io.atomic import atomic_path  # what reads studies takes 35 MB

            with atomic_path(self._path) as partial:
                partial.write_text(json.dumps(self._known))


def _part(problem: Problem) -> Problem:
    """A convolution of fewer planes that takes its share of the time: the blocks of a large volume are independent."""
    z, *plane = problem.size
    across = [n * s for n, s in zip(plane, problem.stride[1:], strict=True)]
    read = problem.channels * problem.stride[0] * int(np.prod(across))
    each = 4 * (read + problem.outputs * int(np.prod(plane)))
    while z >= 2 * FEW_PLANES and z * each > LARGE_BYTES:
        z //= 2
    return replace(problem, size=(z, *problem.size[1:]))


def _varied(ordered: Sequence[Algorithm]) -> list[Algorithm]:
    """The best of each kind first: kinds are what the model errs about, not sizes of blocks."""
    firsts: dict[tuple[object, ...], Algorithm] = {}
    for a in ordered:
        firsts.setdefault((a.kernel, a.params["algorithm"], a.params.get("tile")), a)
    return [*firsts.values(), *(a for a in ordered if a not in firsts.values())]


def _runner(problem: Problem, rivals: Sequence[Algorithm], pool: Pool) -> Callable[[int], None]:
    """A function that runs one of the rivals, on ones: the time of a convolution does not depend on its numbers."""
    taps, stride = problem.kernel, problem.stride
    space = [(n - 1) * s + 1 for n, s in zip(problem.size, stride, strict=True)]
    around = [(k - 1) * d // 2 for k, d in zip(taps, problem.dilation, strict=True)]
    behind = [(k - 1) * d - a for k, d, a in zip(taps, problem.dilation, around, strict=True)]

    def volume(channels: int, size: Sequence[int]) -> Operand:
        blocks = -(-channels // BLOCK)
        stored = capi.numpy_dtype(capi.DTYPES["bfloat16" if problem.stored == "bf16" else "float32"])
        array = native.aligned_empty((1, blocks, *size, BLOCK), stored)
        array[...] = 1.0
        return Operand(array, BLOCKED16, channels)

    source, target = volume(problem.channels, space), volume(problem.outputs, problem.size)
    most = max(a.weight_bytes for a in rivals) // 4 + 2 * BLOCK * problem.channels * int(np.prod(taps))
    weights = native.aligned_empty((most,), np.float32)
    weights[...] = 1e-3
    sums = native.aligned_empty((1, problem.outputs, 2), np.float64)
    common = {
        "kernel": taps,
        "stride": stride,
        "dilation": problem.dilation,
        "pad_begin": around,
        "pad_end": behind,
        "groups": problem.groups,
        "channels0": problem.channels,
        "activation": 0,
        "alpha": 0.0,
        "beta": 0.0,
        "output_channel_offset": 0,
        "precision": 0,
    }

    def run(i: int) -> None:
        way = rivals[i]
        native.run_kernel(way.kernel, [source, None, weights], [target, sums], pool, **{**common, **way.params})

    return run


def _machine(threads: int, mode: str) -> str:
    """What times depend on beside the convolution, as a file name."""
    model = ""
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = "".join(line for line in lines if line.startswith(("model", "CPU part", "stepping")))[:400]
    parts = [capi.target(), model, threads, mode, version("voxelrt"), ROUNDS[mode], LARGE_BYTES]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:24]


def _read(path: Path) -> dict[str, list[float]]:
    """What is known already; a damaged file is nothing known."""
    with suppress(OSError, ValueError):
        found = json.loads(path.read_text())
        if isinstance(found, dict) and all(
            isinstance(row, list) and all(isinstance(v, float) and v > 0 for v in row) for row in found.values()
        ):
            return found
    return {}
