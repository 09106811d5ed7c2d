"""What the backends of preprocess do alike: values that they read, and a channel's mean and share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from voxelrt.kernels.common.kernel import Array

_READ = ("float32", "float16", "bfloat16", "int8", "uint8", "int16", "uint16")


def readable(volume: Array) -> Array:
    """(N, C, Z, Y, X) of a type that is read as it is; others are float32."""
    given = volume if volume.dtype.name in _READ else volume.astype(np.float32)
    return given if given.ndim == 5 else given[None]


def scales(channels: int, mean: Sequence[float], deviation: Sequence[float]) -> NDArray[np.float32]:
    """(C, 2): the mean, and one over the deviation."""
    table = np.empty((channels, 2), np.float32)
    table[:, 0], table[:, 1] = np.asarray(mean), 1 / np.asarray(deviation, np.float64)
    return table
