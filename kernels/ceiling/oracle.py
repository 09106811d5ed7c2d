"""ceiling, obviously: in float64."""

from __future__ import annotations

import numpy as np

from voxelrt.kernels.common.kernel import Array


def ceiling(x: Array, *, rounds: int = 0, factor: float = 1.0, addend: float = 0.0, streaming: bool = False) -> Array:
    del streaming  # the way to memory changes nothing of what arrives there
    y = x.astype(np.float64)
    for _ in range(rounds):
        y = y * np.float64(np.float32(factor)) + np.float64(np.float32(addend))
    return y
