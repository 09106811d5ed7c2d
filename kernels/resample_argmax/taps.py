"""Where the positions of one axis are read: two voxels and the second one's weight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Taps:
    """Linear interpolation, or the nearest voxel, along an axis.

    Parameters
    ----------
    at : (2, count) int32, the voxel below each position and the one above.
    weights : (count,) float32, of the one above.
    """

    at: NDArray[np.int32]
    weights: NDArray[np.float32]


def taps(positions: NDArray[np.floating[Any]], size: int, *, linear: bool = True) -> Taps:
    """How values at `positions` are read from an axis of `size` voxels; outside it the ends go on for ever.

    Parameters
    ----------
    positions : (count,), in voxels, 0 being the centre of the first.
    size : of the axis, at least 1.
    linear : or else the nearest; half-way between two the later.
    """
    if not linear:
        nearest = np.clip(np.floor(positions + 0.5), 0, size - 1).astype(np.int32)
        return Taps(np.stack([nearest, nearest]), np.zeros(len(positions), np.float32))
    inside = np.clip(positions, 0, size - 1)
    below = np.floor(inside).astype(np.int32)
    at = np.stack([below, np.minimum(below + 1, size - 1)]).astype(np.int32)
    return Taps(at, (inside - below).astype(np.float32))
