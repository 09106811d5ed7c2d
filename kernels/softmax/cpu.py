"""softmax on the native library."""

from __future__ import annotations

from voxelrt.kernels.common import native
from voxelrt.kernels.common.kernel import Array
from voxelrt.kernels.softmax.codes import FUNCTIONS


def run(x: Array, *, axis: int = -1, op: str = "Softmax") -> Array:
    out = native.aligned_empty(x.shape, x.dtype)
    native.run_kernel("softmax", [x], [out], op=FUNCTIONS.index(op), axis=axis % max(1, x.ndim))
    return out
