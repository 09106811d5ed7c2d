"""The calibrator: which range of each value is worth codes of 8 bits, from a user's own inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from voxelrt.errors import UsageError

if TYPE_CHECKING:
    from voxelrt.plan.plan import Plan

Array = NDArray[Any]
METHODS = ("minmax", "percentile", "mse")
MOST_CODE = 127
PERCENTILE = 99.99
BINS = 2048
CLIPPED = np.linspace(0.2, 1.0, 33)  # shares of the largest value that "mse" tries


def calibrate(
    plan: Plan, samples: Sequence[Mapping[str, Array]], names: Sequence[str], method: str = "percentile"
) -> dict[str, float]:
    """The step of the codes of each value: |x| up to 127 steps is kept, the rest is cut off.

    Parameters
    ----------
    plan : of the network in float32.
    samples : inputs as the network takes them, real ones.
    names : the values, by their names in the graph.
    method : ``minmax`` keeps the largest value; ``percentile`` all but one in ten thousand; ``mse`` cuts where the
        squared error of rounding and cutting is least.

    Raises
    ------
    UsageError : an unknown method, no samples, or values that are not finite.
    """
    if method not in METHODS:
        raise UsageError(f"calibration method {method!r} is unknown; choose from {', '.join(METHODS)}")
    if not samples:
        raise UsageError("int8 needs inputs to calibrate on: give one or more as calibration=")
    found: dict[str, list[float]] = {name: [] for name in names}
    for sample in samples:
        values = plan.run(sample, taps=names)
        for name in names:
            sizes = np.abs(values[name].astype(np.float32, copy=False)).ravel()
            largest = float(sizes.max(initial=0.0))
            if not np.isfinite(largest):
                raise UsageError(f"the value {name!r} is not finite on an input to calibrate on")
            found[name].append(_range(sizes, largest, method))
    least = float(np.finfo(np.float32).tiny) * 256
    return {name: max(*ranges, least) / MOST_CODE for name, ranges in found.items()}


def _range(sizes: Array, largest: float, method: str) -> float:
    if largest == 0.0 or method == "minmax":
        return largest
    if method == "percentile":
        return float(np.percentile(sizes, PERCENTILE)) or largest
    counts, edges = np.histogram(sizes, BINS, (0.0, largest))
    middles = (edges[:-1] + edges[1:]) / 2

    def error(share: float) -> float:
        kept = share * largest
        cut = np.maximum(middles - kept, 0.0)
        rounding = np.where(middles <= kept, (kept / MOST_CODE) ** 2 / 12, 0.0)
        rounding[0] *= 0.0 if edges[1] < kept / MOST_CODE / 2 else 1.0  # zeros are exact
        return float((counts * (cut**2 + rounding)).sum())

    return float(min(CLIPPED, key=error)) * largest
