"""The activations that kernels apply as an epilogue: their names, their numbers in plans, and what they are in float64.

The numbers are those of ``activation.h`` and part of plans.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from voxelrt.errors import UsageError

Double = NDArray[np.float64]

ACTIVATIONS: dict[str, int] = {
    "none": 0,
    "relu": 1,
    "leaky_relu": 2,
    "sigmoid": 3,
    "tanh": 4,
    "elu": 5,
    "clip": 6,
    "silu": 7,
    "gelu": 8,
    "hard_sigmoid": 9,
    "hard_swish": 10,
    "gelu_tanh": 11,
    "mish": 12,
}


def activation_number(name: str) -> int:
    """The number of an activation in plans. Raises UsageError for a name that does not exist."""
    if name not in ACTIVATIONS:
        raise UsageError(f"there is no activation {name!r}; there are {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]


def _sigmoid(x: Double) -> Double:
    with np.errstate(over="ignore"):
        return np.asarray(1.0 / (1.0 + np.exp(-x)))


def _erf(x: Double) -> Double:
    return np.asarray([math.erf(v) for v in x.ravel()], np.float64).reshape(x.shape)


_FUNCTIONS: dict[str, Callable[[Double, float, float], Double]] = {
    "none": lambda x, a, b: x,
    "relu": lambda x, a, b: np.maximum(x, 0.0),
    "leaky_relu": lambda x, a, b: np.where(x < 0, a * x, x),
    "sigmoid": lambda x, a, b: _sigmoid(x),
    "tanh": lambda x, a, b: np.tanh(x),
    "elu": lambda x, a, b: np.where(x < 0, a * np.expm1(np.minimum(x, 0.0)), x),
    "clip": lambda x, a, b: np.minimum(np.maximum(x, a), b),
    "silu": lambda x, a, b: x * _sigmoid(x),
    "gelu": lambda x, a, b: 0.5 * x * (1.0 + _erf(x / math.sqrt(2.0))),
    "hard_sigmoid": lambda x, a, b: np.clip(a * x + b, 0.0, 1.0),
    "hard_swish": lambda x, a, b: x * np.clip(x / 6.0 + 0.5, 0.0, 1.0),
    "gelu_tanh": lambda x, a, b: 0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3))),
    "mish": lambda x, a, b: x * np.tanh(np.logaddexp(0.0, x)),
}


def activate(name: str, x: Double, alpha: float = 0.0, beta: float = 0.0) -> Double:
    """An activation in float64, for oracles.

    Parameters
    ----------
    name : one of ``ACTIVATIONS``.
    x : any shape.
    alpha, beta : ``leaky_relu`` and ``elu``: alpha is the factor below zero; ``clip``: the bounds;
        ``hard_sigmoid``: slope and offset; others ignore them.
    """
    return _FUNCTIONS[name](x, alpha, beta)
