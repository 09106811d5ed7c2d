"""integrate on the native library."""

from __future__ import annotations

import numpy as np

from voxelrt.errors import UsageError
from voxelrt.kernels.common import native
from voxelrt.kernels.common.kernel import Array
from voxelrt.kernels.integrate.codes import PADDINGS


def run(velocity: Array, *, steps: int = 7, padding: str = "zeros", out: Array | None = None) -> Array:
    if padding not in PADDINGS:
        raise UsageError(f"padding is {padding!r}; it is one of {', '.join(PADDINGS)}")
    made = native.aligned_empty(velocity.shape, velocity.dtype) if out is None else out
    given = np.ascontiguousarray(velocity)
    native.run_kernel("integrate", [given], [made], steps=steps, padding=PADDINGS.index(padding))
    return made
