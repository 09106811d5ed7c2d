"""The kinds of activation that a step may have as its epilogue: the numbers of ``activation.h``."""

from __future__ import annotations

import numpy as np

from voxelrt.kernels.common.kernel import Array

KINDS = {"none": 0, "relu": 1, "leaky_relu": 2, "sigmoid": 3, "tanh": 4, "elu": 5, "clip": 6}


def activate(x: Array, kind: str, alpha: float = 0.0, beta: float = 0.0) -> Array:
    """The oracle of all of them, in float64."""
    x = np.asarray(x, np.float64)
    if kind == "relu":
        return np.maximum(x, 0.0)
    if kind == "leaky_relu":
        return np.where(x < 0, alpha * x, x)
    if kind == "sigmoid":
        return 1.0 / (1.0 + np.exp(-x))
    if kind == "tanh":
        return np.tanh(x)
    if kind == "elu":
        return np.where(x < 0, alpha * np.expm1(x), x)
    if kind == "clip":
        return np.clip(x, alpha, beta)
    return x
