"""quantize on the native library."""

from __future__ import annotations

import numpy as np

from voxelrt.kernels.common import native
from voxelrt.kernels.common.kernel import Array


def run(x: Array, scale: Array, zero: Array | None = None, *, dtype: str = "int8") -> Array:
    whole = x.dtype.kind in "iu"
    out = native.aligned_empty(x.shape, scale.dtype if whole else dtype)
    spread = [None if v is None else np.broadcast_to(v, x.shape) for v in (scale, zero)]
    native.run_kernel("quantize.dequantize" if whole else "quantize.linear", [x, *spread], [out], reserved=0)
    return out
