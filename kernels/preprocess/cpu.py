"""preprocess on the native library."""

from __future__ import annotations

from collections.abc import Sequence

import ml_dtypes
import numpy as np

from voxelrt.kernels.common import native
from voxelrt.kernels.common.kernel import Array

_READ = ("float32", "float16", "bfloat16", "int8", "uint8", "int16", "uint16")


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
    given = volume if volume.dtype.name in _READ else volume.astype(np.float32)
    if any(stride < 0 for stride in given.strides):
        given = np.ascontiguousarray(given)
    batch = given if given.ndim == 5 else given[None]
    out = native.aligned_empty(batch.shape, ml_dtypes.bfloat16 if dtype == "bfloat16" else np.dtype(dtype))
    table = np.empty((batch.shape[1], 2), np.float32)
    table[:, 0], table[:, 1] = np.asarray(mean), 1 / np.asarray(deviation, np.float64)
    native.run_kernel("preprocess", [batch, table], [out], slope=slope, intercept=intercept, low=low, high=high)
    return out.reshape(volume.shape)
