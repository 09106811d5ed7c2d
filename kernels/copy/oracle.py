"""copy, obviously: element by element."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from voxelrt.kernels.common.kernel import Array


def copy(array: Array, *, order: Sequence[int]) -> Array:
    out = np.empty([array.shape[axis] for axis in order], array.dtype)
    for index in np.ndindex(*out.shape):
        source = [0] * array.ndim
        for axis, i in zip(order, index, strict=True):
            source[axis] = i
        out[index] = array[tuple(source)]
    return out
