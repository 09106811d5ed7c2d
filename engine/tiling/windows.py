"""Where sliding windows lie, and how much each voxel of one counts (nnU-Net v2's rules)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def starts(size: int, window: int, step: float) -> list[int]:
    """Where the windows along one axis begin.

    Parameters
    ----------
    size, window : in voxels; the window is not larger.
    step : the largest step as a share of the window, 0 to 1. The steps are evened out, the last window ends with the
        axis.
    """
    count = math.ceil((size - window) / (window * step)) + 1
    actual = (size - window) / (count - 1) if count > 1 else 0.0
    return [int(np.round(actual * i)) for i in range(count)]


def importance(window: Sequence[int], sigma: float) -> Floats:
    """A Gaussian around the window's centre, rounded to half precision as nnU-Net's is, and nowhere zero.

    Parameters
    ----------
    window : in voxels.
    sigma : as a share of the window; 0 counts every voxel the same.

    Returns
    -------
    weights : (*window) float32, the largest 10.
    """
    if sigma == 0:
        return np.ones(tuple(window), np.float32)
    total = np.ones((), np.float64)
    for size in window:
        distance = np.arange(size) - size // 2
        radius = int(4 * size * sigma + 0.5)  # where scipy's gaussian_filter ends
        axis = np.where(np.abs(distance) <= radius, np.exp(-0.5 * (distance / (size * sigma)) ** 2), 0.0)
        total = total[..., None] * axis
    half = (total / total.max() * 10).astype(np.float16)
    half[half == 0] = half[half > 0].min()
    weights: Floats = half.astype(np.float32)
    return weights


def mirrorings(axes: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Every set of axes to mirror along, the empty one first."""
    for count in range(len(axes) + 1):
        yield from itertools.combinations(axes, count)
