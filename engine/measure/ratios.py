"""Medians of per-round ratios with an interval that assumes nothing about how times are distributed.

A machine's speed drifts; two programs timed in the same round share its state, so their ratio is steadier than either
time. The interval of the median comes from order statistics: between the k-th smallest and the k-th largest of n
values lies the true median with probability 1 - 2·P(Binomial(n, 1/2) < k), whatever the distribution.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

CONFIDENCE = 0.95
FEWEST_ROUNDS = 6  # with five, smallest to largest covers 93.75 % only


@dataclass(frozen=True)
class Ratio:
    """How many times longer a peer took than VoxelRT: the median over rounds and its interval."""

    median: float
    low: float
    high: float
    coverage: float
    rounds: int

    @property
    def claim(self) -> float | None:
        """What may be said in public: the interval's lower end, where the interval holds 95 %."""
        return self.low if self.coverage >= CONFIDENCE else None

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return {**asdict(self), "claim": self.claim}


def coverage(rounds: int, rank: int) -> float:
    """The probability that the median lies between the ``rank``-th smallest and ``rank``-th largest of ``rounds``."""
    return 1.0 - 2.0 * sum(math.comb(rounds, i) for i in range(rank)) / 2.0**rounds


def ratio_of(peer_s: Sequence[float], subject_s: Sequence[float]) -> Ratio:
    """The ratio of two series of times, round by round.

    Raises
    ------
    ValueError
        The series are empty or of different lengths.
    """
    values = sorted(p / s for p, s in zip(peer_s, subject_s, strict=True))
    if not values:
        raise ValueError("no rounds were measured")
    count = len(values)
    rank = 1
    while 2 * (rank + 1) <= count and coverage(count, rank + 1) >= CONFIDENCE:
        rank += 1
    return Ratio(statistics.median(values), values[rank - 1], values[-rank], coverage(count, rank), count)
