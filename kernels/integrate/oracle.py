"""integrate in float64: the field composed with itself, over and over."""

from __future__ import annotations

import numpy as np

from voxelrt.kernels.common.kernel import Array
from voxelrt.kernels.warp3d.oracle import warp3d


def integrate(velocity: Array, *, steps: int = 7, padding: str = "zeros", out: Array | None = None) -> Array:
    """See ``voxelrt.kernels.integrate``."""
    field = velocity.astype(np.float64) / 2.0**steps
    for _ in range(steps):
        field = field + warp3d(field, field, padding=padding)
    result = field.astype(velocity.dtype)
    if out is None:
        return result
    out[...] = result
    return out
