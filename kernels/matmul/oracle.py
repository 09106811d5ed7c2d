"""matmul, obviously: sums of products in float64, integers in int64 and then wrapped."""

from __future__ import annotations

import numpy as np

from voxelrt.kernels.common.activation import activate
from voxelrt.kernels.common.kernel import Array


def matmul(
    a: Array,
    b: Array,
    c: Array | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transpose_a: bool = False,
    transpose_b: bool = False,
    activation: tuple[str, float, float] = ("none", 0.0, 0.0),
    zero_a: Array | None = None,
    zero_b: Array | None = None,
    packed: bool = False,
) -> Array:
    del packed
    integer = a.dtype.kind in "iu"
    left: Array = a.astype(np.int64 if integer else np.float64)
    right: Array = b.astype(np.int64 if integer else np.float64)
    left = left.swapaxes(-1, -2) if transpose_a else left
    right = right.swapaxes(-1, -2) if transpose_b else right
    if zero_a is not None:
        left = left - (zero_a.astype(np.int64)[..., None] if zero_a.ndim else zero_a.astype(np.int64))
    if zero_b is not None:
        right = right - (zero_b.astype(np.int64)[..., None, :] if zero_b.ndim else zero_b.astype(np.int64))
    product: Array
    if left.ndim == 1 or right.ndim == 1:
        product = (left[..., None] * right if right.ndim == 1 else left[:, None] * right).sum(axis=-2)
        product = (left * right).sum(axis=-1) if right.ndim == 1 else product
    else:
        batch = np.broadcast_shapes(left.shape[:-2], right.shape[:-2])
        product = np.empty((*batch, left.shape[-2], right.shape[-1]), left.dtype)
        for m in range(left.shape[-2]):
            product[..., m, :] = (left[..., m, :, None] * right).sum(axis=-2)
    if integer:
        wrapped: Array = product if c is None else product + c.astype(np.int64)
        return wrapped.astype(np.int32 if a.dtype.itemsize == 1 else a.dtype)
    result = alpha * product + (0.0 if c is None else beta * c.astype(np.float64))
    return activate(activation[0], result, *activation[1:])
