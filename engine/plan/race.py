"""A race between ways to do the same work: rounds in which each takes its turn, until it is clear who is fastest.

A busy machine slows a way with barriers more than one without, so what was measured on one says little. Runs during
which our threads had to wait for a processor do not count and are made again while time is left; so are rounds whose
times spread too far to tell the first from the second. What stays doubtful is said to be.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from voxelrt.plan.waiting import waited_s

CALM = 0.05  # of a run's time that threads may have waited, all together
COUNTED = 3  # runs of every rival that must count
EQUAL = 1.05  # times the first: it does not matter which of the two is taken
HOPELESS = 1.3  # times the best so far: a rival that slow is not run again
COLD = 2.0  # the same of the first run, which is not timed: caches and pages are new to it


@dataclass(frozen=True)
class Watch:
    """What a race looks at: a clock, and how long this process's threads have waited for a processor; seconds."""

    clock: Callable[[], float] = time.perf_counter
    waited: Callable[[], float] = waited_s


@dataclass(frozen=True)
class Outcome:
    """``times_s``: of each rival, the median of what counted. ``sure``: the machine was calm and the order is clear.
    ``worth``: every rival that could be the first has been seen undisturbed at least once.
    """

    times_s: list[float]
    sure: bool
    worth: bool = True


@dataclass
class _Rival:
    counted: list[float] = field(default_factory=list)
    disturbed: list[float] = field(default_factory=list)
    racing: bool = True

    @property
    def median(self) -> float:
        return statistics.median(self.counted) if self.counted else min(self.disturbed)


def race(
    run: Callable[[int], None], count: int, *, rounds: int, enough_s: float, left_s: float, watch: Watch
) -> Outcome:
    """Run ``count`` rivals in turn.

    Parameters
    ----------
    rounds : after which a calm race ends. Up to three times as many are run where it was not, or is not decided.
    enough_s : that a rival has run, after which no further round is needed.
    left_s : for rounds beyond the least that is needed: three of a calm race, one of another.
    """
    rivals = [_Rival() for _ in range(count)]
    first = [_timed(run, i, watch) for i in range(count)]
    quickest = min(seconds for seconds, _ in first)
    for rival, (seconds, calm) in zip(rivals, first, strict=True):
        rival.racing = seconds < COLD * quickest or not calm
    start, turn = watch.clock(), 0
    while turn < 3 * rounds:
        least = 1 if any(r.disturbed for r in rivals) else COUNTED
        if turn >= least and watch.clock() - start >= left_s:
            break
        turn += 1
        for i, rival in enumerate(rivals):
            if rival.racing:
                seconds, calm = _timed(run, i, watch)
                (rival.counted if calm else rival.disturbed).append(seconds)
        best = min((min(r.counted) for r in rivals if r.counted), default=0.0)
        for rival in rivals:
            rival.racing = rival.racing and not (rival.counted and min(rival.counted) >= HOPELESS * best)
        ran = [r for r in rivals if r.racing]
        if _decided(ran) and (turn >= rounds or min(len(r.counted) * r.median for r in ran) > enough_s):
            break
    for rival, (seconds, _) in zip(rivals, first, strict=True):
        if not rival.counted and not rival.disturbed:
            rival.disturbed.append(seconds)
    ran = [r for r in rivals if r.racing]
    return Outcome([r.median for r in rivals], _decided(ran), all(r.counted for r in ran))


def _timed(run: Callable[[int], None], which: int, watch: Watch) -> tuple[float, bool]:
    """Seconds of a run, and whether nobody was in its way."""
    waited, start = watch.waited(), watch.clock()
    run(which)
    seconds = watch.clock() - start
    return seconds, watch.waited() - waited <= CALM * seconds


def _decided(racing: Sequence[_Rival]) -> bool:
    """Whether enough runs counted, and the first is as fast as each other one or clearly faster."""
    if any(len(r.counted) < COUNTED for r in racing):
        return False
    first = min(racing, key=lambda r: r.median)
    above = statistics.quantiles(first.counted, n=4)[2]
    return all(
        r.median <= EQUAL * first.median or statistics.quantiles(r.counted, n=4)[0] > above
        for r in racing
        if r is not first
    )
