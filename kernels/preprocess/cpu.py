"""preprocess on the native library."""

from __future__ import annotations

from collections.abc import Sequence

import ml_dtypes
import numpy as np

from voxelrt.kernels.common import native
from voxelrt.kernels.common.kernel import Array
from voxelrt.kernels.preprocess.tables import readable, scales


def run(
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
    batch = readable(volume)
    if any(stride < 0 for stride in batch.strides):
        batch = np.ascontiguousarray(batch)
    out = native.aligned_empty(batch.shape, ml_dtypes.bfloat16 if dtype == "bfloat16" else np.dtype(dtype))
    table = scales(batch.shape[1], mean, deviation)
    native.run_kernel("preprocess", [batch, table], [out], slope=slope, intercept=intercept, low=low, high=high)
    return out.reshape(volume.shape)
