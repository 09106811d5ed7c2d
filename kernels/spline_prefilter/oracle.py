"""spline_prefilter in float64: the coefficients solve the equations that the spline's values give at the voxels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from voxelrt.kernels.common.kernel import Array


def spline_prefilter(volume: Array, *, out: Array | None = None) -> Array:
    """See ``voxelrt.kernels.spline_prefilter``."""
    made: Array = volume.astype(np.float64)
    for axis in range(2, volume.ndim):
        size = volume.shape[axis]
        if size > 1 and made.size:
            moved = np.moveaxis(made, axis, 0)
            solved = np.linalg.solve(_values(size), moved.reshape(size, -1))
            made = np.moveaxis(solved.reshape(moved.shape), 0, axis)
    result = made.astype(np.float32)
    if out is None:
        return result
    out[...] = result
    return out


def _values(size: int) -> NDArray[np.float64]:
    """Row i: how much each coefficient counts at voxel i; coefficients go on as a mirror image."""
    matrix = np.zeros((size, size))
    for i in range(size):
        for place, weight in ((-1, 1 / 6), (0, 2 / 3), (1, 1 / 6)):
            at = abs(i + place)
            matrix[i, at if at < size else 2 * size - 2 - at] += weight
    return matrix
