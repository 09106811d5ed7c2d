"""topk on the native library."""

from __future__ import annotations

import numpy as np

from voxelrt.kernels.common import native
from voxelrt.kernels.common.kernel import Array


def run(x: Array, k: int, *, axis: int = -1, largest: bool = True) -> tuple[Array, Array]:
    axis %= x.ndim
    shape = [k if i == axis else n for i, n in enumerate(x.shape)]
    values, places = native.aligned_empty(shape, x.dtype), native.aligned_empty(shape, np.int64)
    native.run_kernel("topk", [x], [values, places], axis=axis, smallest=not largest)
    return values, places
