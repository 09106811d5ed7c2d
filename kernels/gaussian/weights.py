"""The sampled Gaussian."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from voxelrt.errors import UsageError

MOST_RADIUS = 4096


def gaussian_weights(sigma: float, truncate: float) -> NDArray[np.float64]:
    """Weights of the offsets -r to r, r = int(truncate sigma + 1/2), which add up to one. (2 r + 1,).

    Raises
    ------
    UsageError : r would be past 4096 voxels.
    """
    radius = int(truncate * sigma + 0.5)
    if radius > MOST_RADIUS:
        raise UsageError(
            f"a Gaussian of {sigma:g} voxels, cut at {truncate:g} sigma, reaches past {MOST_RADIUS} voxels"
        )
    offsets = np.arange(-radius, radius + 1)
    weights = np.exp(-0.5 * (offsets / sigma) ** 2) if radius else np.ones(1)
    return np.asarray(weights / weights.sum())
