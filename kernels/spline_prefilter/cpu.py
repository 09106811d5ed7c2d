"""spline_prefilter on the native library."""

from __future__ import annotations

import numpy as np

from voxelrt.kernels.common import native
from voxelrt.kernels.common.kernel import Array


def run(volume: Array, *, out: Array | None = None) -> Array:
    made = native.aligned_empty(volume.shape, np.float32) if out is None else out
    native.run_kernel("spline_prefilter", [np.ascontiguousarray(volume)], [made], reserved=0)
    return made
