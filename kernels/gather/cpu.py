"""gather on the native library."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from voxelrt.errors import UsageError
from voxelrt.kernels.common import capi, native
from voxelrt.kernels.common.kernel import Array
from voxelrt.kernels.gather.codes import REDUCTIONS


def _gathered(op: str, data: Array, indices: Array, axis: int, batch_dims: int) -> Array:
    data, indices = np.asarray(data, order="C"), np.asarray(indices, order="C")
    if op == "Gather":
        axis %= data.ndim
        out = native.aligned_empty((*data.shape[:axis], *indices.shape, *data.shape[axis + 1 :]), data.dtype)
        native.run_kernel("gather", [data, indices], [out], axis=axis)
    elif op == "GatherElements":
        out = native.aligned_empty(indices.shape, data.dtype)
        native.run_kernel("gather.elements", [data, indices], [out], axis=axis % data.ndim)
    else:
        shape = (*indices.shape[:-1], *data.shape[batch_dims + indices.shape[-1] :])
        out = native.aligned_empty(shape, data.dtype)
        native.run_kernel("gather.nd", [data, indices], [out], batch_dims=batch_dims)
    return out


def _sliced(x: Array, slices: Sequence[slice]) -> Array:
    ranges = [range(n)[s] for n, s in zip(x.shape, slices, strict=True)]
    out = native.aligned_empty([len(r) for r in ranges], x.dtype)
    rest = [0] * (capi.MAX_RANK - x.ndim)
    start, step = [r.start for r in ranges] + rest, [r.step for r in ranges] + rest
    native.run_kernel("gather.slice", [x], [out], start=start, step=step)
    return out


def run(
    op: str,
    *arrays: Array,
    axis: int = 0,
    batch_dims: int = 0,
    reduction: str = "none",
    depth: int = 0,
    slices: Sequence[slice] = (),
    upper: bool = True,
    k: int = 0,
) -> Array:
    if op in ("Gather", "GatherElements", "GatherND"):
        return _gathered(op, arrays[0], arrays[1], axis, batch_dims)
    if op == "Slice":
        return _sliced(arrays[0], slices)
    first, *rest = (np.asarray(a, order="C") for a in arrays)
    if op in ("ScatterElements", "ScatterND"):
        out = native.aligned_empty(first.shape, first.dtype)
        kernel = "gather.scatter_elements" if op == "ScatterElements" else "gather.scatter_nd"
        code = REDUCTIONS.index(reduction)
        native.run_kernel(kernel, [first, *rest], [out], axis=axis % first.ndim, reduction=code)
    elif op == "OneHot":
        axis %= first.ndim + 1
        out = native.aligned_empty((*first.shape[:axis], depth, *first.shape[axis:]), rest[0].dtype)
        native.run_kernel("gather.onehot", [first, *rest], [out], axis=axis)
    elif op == "Trilu":
        out = native.aligned_empty(first.shape, first.dtype)
        native.run_kernel("gather.trilu", [first], [out], upper=upper, k=k)
    else:
        raise UsageError(f"gather has no function {op!r}")
    return out
