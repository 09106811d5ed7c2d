"""softmax, obviously: in float64."""

from __future__ import annotations

import numpy as np

from voxelrt.kernels.common.kernel import Array


def softmax(x: Array, *, axis: int = -1, op: str = "Softmax") -> Array:
    x = x.astype(np.float64)
    if op == "Hardmax":
        one = np.zeros(x.shape)
        np.put_along_axis(one, x.argmax(axis, keepdims=True), 1.0, axis)
        return one
    with np.errstate(all="ignore"):
        less = x - x.max(axis, keepdims=True)
        total = np.exp(less).sum(axis, keepdims=True)
        result: Array = less - np.log(total) if op == "LogSoftmax" else np.exp(less) / total
    return result
