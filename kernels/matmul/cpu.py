"""matmul on the native library."""

from __future__ import annotations

from typing import Any

import numpy as np

from voxelrt.errors import ShapeError
from voxelrt.kernels.common import native
from voxelrt.kernels.common.activation import activation_number
from voxelrt.kernels.common.kernel import Array


def _matrices(a: Array, b: Array) -> tuple[Array, Array, tuple[int, ...]]:
    """Both with the batch axes of the result, by strides of zero, and the shape of the result."""
    left = a[None, :] if a.ndim == 1 else a
    right = b[:, None] if b.ndim == 1 else b
    if not a.ndim or not b.ndim or left.shape[-1] != right.shape[-2]:
        raise ShapeError(f"shapes {a.shape} and {b.shape} do not multiply")
    try:
        batch = np.broadcast_shapes(left.shape[:-2], right.shape[:-2])
    except ValueError as error:
        raise ShapeError(f"the batches of {a.shape} and {b.shape} do not go together") from error
    left = np.broadcast_to(left, (*batch, *left.shape[-2:]))
    right = np.broadcast_to(right, (*batch, *right.shape[-2:]))
    return left, right, (*batch, left.shape[-2], right.shape[-1])


def _integer(a: Array, b: Array, zero_a: Array | None, zero_b: Array | None) -> Array:
    left, right, shape = _matrices(a, b)
    zeros = [
        None if zero is None else np.broadcast_to(np.asarray(zero), (*shape[:-2], size))
        for zero, size in ((zero_a, shape[-2]), (zero_b, shape[-1]))
    ]
    out = native.aligned_empty(shape, np.int32)
    native.run_kernel("matmul.integer", [left, right, *zeros], [out], reserved=0)
    return out


def run(
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
    first, second = (v.swapaxes(-1, -2) if t else v for v, t in ((a, transpose_a), (b, transpose_b)))
    left, right, shape = _matrices(first, second)
    kept = [*shape[:-2], *shape[-2:-1] * (a.ndim > 1), *shape[-1:] * (b.ndim > 1)]
    if a.dtype.itemsize == 1:
        return _integer(first, second, zero_a, zero_b).reshape(kept)
    params: dict[str, Any] = {
        "packed": packed,
        "transposed": transpose_b,
        "alpha": alpha,
        "beta": beta,
        "activation": activation_number(activation[0]),
        "activation_alpha": activation[1],
        "activation_beta": activation[2],
    }
    weight = native.pack_weight("matmul", b, **params) if packed else right
    out = native.aligned_empty(shape, a.dtype)
    bias = None if c is None else np.broadcast_to(c, shape)
    native.run_kernel("matmul", [left, weight, bias], [out], **params)
    return out.reshape(kept)
