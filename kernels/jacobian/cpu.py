"""jacobian on the native library."""

from __future__ import annotations

import numpy as np

from voxelrt.errors import ShapeError
from voxelrt.kernels.common import native
from voxelrt.kernels.common.kernel import Array


def run(displacement: Array) -> tuple[Array, Array]:
    if displacement.ndim not in (4, 5):
        raise ShapeError(f"a field is (N, 3, Z, Y, X) or (N, 2, Y, X); this one has the shape {displacement.shape}")
    batch, _, *size = displacement.shape
    determinant = native.aligned_empty((batch, 1, *size), np.float32)
    folded = native.aligned_empty((batch,), np.int64)
    native.run_kernel("jacobian", [np.ascontiguousarray(displacement)], [determinant, folded], reserved=0)
    return determinant, folded
