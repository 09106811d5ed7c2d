"""preprocess in float64."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from voxelrt.kernels.common.kernel import Array


def preprocess(
    volume: Array,
    *,
    slope: float = 1.0,
    intercept: float = 0.0,
    low: float = -np.inf,
    high: float = np.inf,
    mean: Sequence[float] = (0.0,),
    deviation: Sequence[float] = (1.0,),
    dtype: str = "float32",
) -> Array:
    values = np.clip(volume.astype(np.float64) * slope + intercept, low, high)
    means, deviations = (np.reshape(list(v), (-1, 1, 1, 1)) for v in (mean, deviation))
    return np.asarray((values - means) / deviations)
