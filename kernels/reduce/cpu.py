"""reduce on the native library."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from voxelrt.errors import UsageError
from voxelrt.kernels.common import native
from voxelrt.kernels.common.kernel import Array
from voxelrt.kernels.reduce.codes import REDUCTIONS


def run(
    op: str,
    x: Array,
    axes: Sequence[int] | None = None,
    *,
    keepdims: bool = True,
    last: bool = False,
    exclusive: bool = False,
    reverse: bool = False,
) -> Array:
    over = {axis % x.ndim for axis in (range(x.ndim) if axes is None else axes)}
    if op == "CumSum":
        out = native.aligned_empty(x.shape, x.dtype)
        native.run_kernel("reduce.cumsum", [x], [out], axis=min(over), exclusive=exclusive, reverse=reverse)
        return out
    kept = [1 if i in over else d for i, d in enumerate(x.shape)]
    if op in ("ArgMax", "ArgMin"):
        out = native.aligned_empty(kept, np.int64)
        native.run_kernel("reduce.arg", [x], [out], axis=min(over), smallest=op == "ArgMin", last=last)
    elif op in REDUCTIONS:
        out = native.aligned_empty(kept, x.dtype)
        native.run_kernel("reduce", [x], [out], op=REDUCTIONS.index(op))
    else:
        raise UsageError(f"there is no reduction {op!r}; there are ArgMax, ArgMin, CumSum, {', '.join(REDUCTIONS)}")
    return out if keepdims else out.reshape([d for i, d in enumerate(x.shape) if i not in over])
