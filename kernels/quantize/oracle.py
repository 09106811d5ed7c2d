"""quantize, obviously: number by number, rounding halves to even."""

from __future__ import annotations

import numpy as np

from voxelrt.kernels.common.kernel import Array


def quantize(x: Array, scale: Array, zero: Array | None = None, *, dtype: str = "int8") -> Array:
    whole = x.dtype.kind in "iu"
    out = np.empty(x.shape, np.float64 if whole else dtype)
    scales = np.broadcast_to(scale, x.shape)
    zeros = np.broadcast_to(0 if zero is None else zero, x.shape)
    for index in np.ndindex(*x.shape):
        if whole:
            out[index] = (int(x[index]) - int(zeros[index])) * float(scales[index])
        else:
            info = np.iinfo(dtype)
            quotient = np.float32(x[index]) / np.float32(scales[index])  # in float32, so that halves are the same
            out[index] = min(max(round(float(quotient)) + int(zeros[index]), info.min), info.max)
    return out
