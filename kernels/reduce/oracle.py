"""reduce, obviously: NumPy's own reductions, floating point in float64."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np

from voxelrt.kernels.common.kernel import Array


def _wide(x: Array) -> Array:
    if np.issubdtype(x.dtype, np.floating) or x.dtype == ml_dtypes.bfloat16:
        return x.astype(np.float64)
    return x if x.dtype == np.uint64 else x.astype(np.int64)


def _where(x: Array, axis: int, keepdims: bool, smallest: bool, last: bool) -> Array:
    find = np.argmin if smallest else np.argmax
    place: Array = find(np.flip(x, axis) if last else x, axis=axis, keepdims=keepdims)
    return x.shape[axis] - 1 - place if last else place


def _running(x: Array, axis: int, exclusive: bool, reverse: bool) -> Array:
    lines = np.flip(x, axis) if reverse else x
    sums: Array = np.cumsum(lines, axis=axis, dtype=x.dtype)
    if exclusive:
        sums = sums - lines
    return np.flip(sums, axis) if reverse else sums


def reduce(
    op: str,
    x: Array,
    axes: Sequence[int] | None = None,
    *,
    keepdims: bool = True,
    last: bool = False,
    exclusive: bool = False,
    reverse: bool = False,
) -> Array:
    dtype = x.dtype
    x = _wide(x)
    over = tuple(range(x.ndim)) if axes is None else tuple(axes)
    options: dict[str, Any] = {"axis": over, "keepdims": keepdims}
    with np.errstate(all="ignore"):
        if op in ("ArgMax", "ArgMin"):
            return _where(x, over[0], keepdims, op == "ArgMin", last)
        if op == "CumSum":
            return _running(x, over[0], exclusive, reverse)
        if op == "LogSumExp":
            shift = np.max(x, axis=over, keepdims=True, initial=-np.inf)
            shift = np.where(np.isfinite(shift), shift, 0)
            total: Array = np.log(np.sum(np.exp(x - shift), axis=over, keepdims=True)) + shift
            return total if keepdims else np.squeeze(total, over)
        sums = {
            "Sum": lambda: np.sum(x, dtype=x.dtype, **options),
            "Mean": lambda: np.mean(x, **options),
            "Max": lambda: np.max(x, **options),
            "Min": lambda: np.min(x, **options),
            "Prod": lambda: np.prod(x, dtype=x.dtype, **options),
            "L1": lambda: np.sum(np.abs(x), dtype=x.dtype, **options),
            "L2": lambda: np.sqrt(np.sum(np.square(x), dtype=x.dtype, **options)),
            "LogSum": lambda: np.log(np.sum(x, dtype=x.dtype, **options)),
            "SumSquare": lambda: np.sum(np.square(x), dtype=x.dtype, **options),
        }
        result: Array = sums[op]()
    if result.dtype.kind == "f" and x.dtype != np.float64:
        result = np.trunc(result)
    return result if x.dtype == np.float64 else result.astype(dtype)
