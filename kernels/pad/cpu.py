"""pad on the native library."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from voxelrt.errors import UsageError
from voxelrt.kernels.common import capi, native
from voxelrt.kernels.common.kernel import Array
from voxelrt.kernels.pad.codes import MODES


def run(x: Array, pads: Sequence[tuple[int, int]], *, mode: str = "constant", value: float = 0) -> Array:
    if mode not in MODES:
        raise UsageError(f"mode is {mode!r}; it is one of {', '.join(MODES)}")
    if len(pads) != x.ndim:
        raise UsageError(f"{len(pads)} pairs of paddings for an array of {x.ndim} axes")
    # What is taken away is taken first, so that reflections do not see it.
    cut = x[tuple(slice(max(0, -a), max(0, n - max(0, -b))) for n, (a, b) in zip(x.shape, pads, strict=True))]
    out = native.aligned_empty([n + max(0, a) + max(0, b) for n, (a, b) in zip(cut.shape, pads, strict=True)], x.dtype)
    begin = [max(0, a) for a, _ in pads] + [0] * (capi.MAX_RANK - x.ndim)
    scalar = np.full(1, value, x.dtype) if value else None
    native.run_kernel("pad", [cut, scalar], [out], mode=MODES.index(mode), begin=begin)
    return out
