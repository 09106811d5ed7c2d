"""Algorithms by the clock: the best few of the model are run on this machine, and what was found is kept.

A machine that others use is noticed (``plan/race.py``). What is measured there is doubtful: it is used for the plan at
hand where it is worth anything, the model decides elsewhere, and neither is kept.
"""

from __future__ import annotations

import hashlib
import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import astuple, replace

import numpy as np

from voxelrt import environment
from voxelrt.kernels.common import capi, native
from voxelrt.kernels.common.native import BLOCK, BLOCKED16, Operand, Pool
from voxelrt.kernels.conv3d.algorithm import SHARED, Algorithm, Problem, neighbours
from voxelrt.plan.race import Outcome, Watch, race
from voxelrt.plan.tuning_cache import Timing, TuningCache

MODES = ("off", "fast", "full")
WORTH = 5e6  # cycles of a step below which no time is spent on choosing
RIVAL = {"fast": 1.4, "full": 3.0}  # times the model's best: algorithms beyond are not run
RIVALS = {"fast": 5, "full": 16}  # nor more than so many
NOMINAL = 3e9  # cycles a second, to say seconds in the model's unit
ROUNDS = {"fast": 4, "full": 8}
ENOUGH = 0.1  # seconds that a rival has run, after which no further round is needed
BUDGET = {"fast": 9.0, "full": 120.0}  # seconds of all races, beyond which none is run on a busy machine
PIECE = 0.3  # of what is left of it, for one race
SHARING = 1.15  # times the clock for blocks that all threads share: in a plan others have emptied the last cache
LARGE_BYTES, FEW_PLANES = 64 << 20, 32  # larger volumes are timed in part, which is no thinner than this


class Tuner:
    """Times algorithms for convolutions; an object of this class is a ``choice.Timer``.

    Parameters
    ----------
    mode : ``fast`` or ``full``.
    threads : the compute threads of the plan.
    progress : called with a line of text before each measurement.
    watch : the clock, and what tells whether others use the machine.
    """

    def __init__(
        self,
        mode: str,
        threads: int | None = None,
        progress: Callable[[str], None] | None = None,
        watch: Watch | None = None,
    ) -> None:
        self._mode = mode
        self._threads = threads or environment.threads()
        self._pool = Pool(self._threads)
        self._progress = progress
        self._watch = watch or Watch()
        self._left = BUDGET[mode]
        self._kept = TuningCache(self._threads, mode, [ROUNDS[mode], LARGE_BYTES])
        self._doubtful: dict[str, Timing | None] = {}  # of this plan; None: nothing that is worth more than the model
        self._timed = 0

    def __call__(self, problem: Problem, found: Sequence[Algorithm]) -> list[Algorithm]:
        """The algorithms with their measured cycles, the fastest first; those that were not run follow."""
        best = found[0].cycles
        if best < WORTH or len(found) == 1:
            return list(found)
        rivals = [a for a in found if a.cycles < RIVAL[self._mode] * best]
        rivals += [n for a in rivals[:2] for n in neighbours(a, problem)] if self._mode == "full" else []
        rivals = _varied(rivals)[: RIVALS[self._mode]]
        if len(rivals) == 1:
            return list(found)
        timing = self._timing(problem, rivals)
        if timing is None:
            return list(found)
        shared = [SHARING if a.params["algorithm"] == SHARED else 1.0 for a in rivals]
        measured = [replace(a, cycles=c * s) for a, c, s in zip(rivals, timing.cycles, shared, strict=True)]
        # Those that were not run are not cheaper for the model's being too hopeful: what is packed smaller is compared.
        hope = statistics.median(m.cycles / a.cycles for m, a in zip(measured, rivals, strict=True))
        rest = [replace(a, cycles=a.cycles * hope) for a in found if a not in rivals]
        return sorted(measured, key=lambda a: a.cycles) + rest

    @property
    def doubts(self) -> str:
        """What to say of choices that a busy machine made; empty where there are none."""
        if not self._doubtful:
            return ""
        return (
            f"{len(self._doubtful)} of {self._timed} convolutions could not be timed well, since others used this "
            "machine: their algorithms may not be the fastest, and are not kept; compile again when it is at rest"
        )

    def _timing(self, problem: Problem, rivals: Sequence[Algorithm]) -> Timing | None:
        key = json.dumps([list(astuple(problem)), [[a.kernel, a.params] for a in rivals]])
        digest = hashlib.sha256(key.encode()).hexdigest()[:24]
        if digest in self._doubtful:
            return self._doubtful[digest]
        known = self._kept.get(digest)
        if known is not None and len(known.cycles) == len(rivals):
            return known
        self._timed += 1
        if self._left <= 0 and self._doubtful:  # on a busy machine there is no end to it
            self._doubtful[digest] = None
            return None
        if self._progress is not None:
            self._progress(f"timing {len(rivals)} ways for {_words(problem)}")
        start = self._watch.clock()
        outcome = self._race(problem, rivals)
        self._left -= self._watch.clock() - start
        timing = Timing(_words(problem), [_way(a) for a in rivals], outcome.times_s)
        if outcome.sure:
            self._kept.keep(digest, timing)
        else:
            self._doubtful[digest] = timing if outcome.worth else None
        return timing if outcome.worth else None

    def _race(self, problem: Problem, rivals: Sequence[Algorithm]) -> Outcome:
        """A race of the rivals, on a part of a large volume; its times are cycles of the whole."""
        part = _part(problem)
        run, rounds = _runner(part, rivals, self._pool), ROUNDS[self._mode]
        left = self._left * PIECE
        outcome = race(run, len(rivals), rounds=rounds, enough_s=ENOUGH, left_s=left, watch=self._watch)
        scale = NOMINAL * self._threads * problem.size[0] / part.size[0]
        return replace(outcome, times_s=[seconds * scale for seconds in outcome.times_s])


def _words(problem: Problem) -> str:
    """A convolution, in words."""
    size, taps = "×".join(map(str, problem.size)), "×".join(map(str, problem.kernel))
    more = "".join(
        text
        for text, wanted in (
            (f", stride {'×'.join(map(str, problem.stride))}", set(problem.stride) != {1}),
            (f", {problem.groups} groups", problem.groups != 1),
            (f", {problem.stored}", problem.stored != "fp32"),
        )
        if wanted
    )
    return f"{problem.channels} → {problem.outputs} channels at {size}, {taps} taps{more}"


def _way(algorithm: Algorithm) -> str:
    block = algorithm.params.get("block")
    return str(algorithm) if block is None else f"{algorithm} in blocks of {','.join(map(str, block))}"


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
