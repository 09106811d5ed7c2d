"""topk, obviously: a stable sort by rank."""

from __future__ import annotations

import ml_dtypes
import numpy as np

from voxelrt.kernels.common.kernel import Array


def topk(x: Array, k: int, *, axis: int = -1, largest: bool = True) -> tuple[Array, Array]:
    keys = x.astype(np.float64) if x.dtype == ml_dtypes.bfloat16 else x
    _, rank = np.unique(keys, return_inverse=True)  # sorted, NaNs last
    rank = np.asarray(rank).reshape(x.shape)
    order = np.argsort(-rank if largest else rank, axis=axis, kind="stable")
    places = np.take(order, np.arange(k), axis=axis)
    return np.take_along_axis(x, places, axis), places
