"""elementwise, obviously: the textbook formula of each function, floating point in float64, integers in NumPy."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np

from voxelrt.kernels.common.kernel import Array

_erf = np.vectorize(math.erf, otypes=[np.float64])


def _sigmoid(x: Array) -> Array:
    y: Array = np.where(x >= 0, 1 / (1 + np.exp(-np.abs(x))), np.exp(-np.abs(x)) / (1 + np.exp(-np.abs(x))))
    return y


def _gelu_tanh(x: Array) -> Array:
    y: Array = 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return y


_UNARY: dict[str, Callable[[Array, float, float], Array]] = {
    "Identity": lambda x, a, b: x,
    "Abs": lambda x, a, b: np.abs(x),
    "Neg": lambda x, a, b: -x,
    "Sign": lambda x, a, b: np.sign(x),
    "Sqrt": lambda x, a, b: np.sqrt(x),
    "Exp": lambda x, a, b: np.exp(x),
    "Log": lambda x, a, b: np.log(x),
    "Reciprocal": lambda x, a, b: 1 / x,
    "Floor": lambda x, a, b: np.floor(x),
    "Ceil": lambda x, a, b: np.ceil(x),
    "Round": lambda x, a, b: np.rint(x),
    "Sin": lambda x, a, b: np.sin(x),
    "Cos": lambda x, a, b: np.cos(x),
    "Tan": lambda x, a, b: np.tan(x),
    "Asin": lambda x, a, b: np.arcsin(x),
    "Acos": lambda x, a, b: np.arccos(x),
    "Atan": lambda x, a, b: np.arctan(x),
    "Sinh": lambda x, a, b: np.sinh(x),
    "Cosh": lambda x, a, b: np.cosh(x),
    "Tanh": lambda x, a, b: np.tanh(x),
    "Asinh": lambda x, a, b: np.arcsinh(x),
    "Acosh": lambda x, a, b: np.arccosh(x),
    "Atanh": lambda x, a, b: np.arctanh(x),
    "Erf": lambda x, a, b: _erf(x),
    "Sigmoid": lambda x, a, b: _sigmoid(x),
    "Relu": lambda x, a, b: np.maximum(x, 0),
    "LeakyRelu": lambda x, a, b: np.where(x < 0, a * x, x),
    "Elu": lambda x, a, b: np.where(x < 0, a * (np.exp(x) - 1), x),
    "Selu": lambda x, a, b: b * np.where(x < 0, a * (np.exp(x) - 1), x),
    "Celu": lambda x, a, b: np.maximum(x, 0) + np.minimum(0, a * (np.exp(x / a) - 1)),
    "HardSigmoid": lambda x, a, b: np.maximum(0, np.minimum(1, a * x + b)),
    "HardSwish": lambda x, a, b: x * np.maximum(0, np.minimum(1, x / 6 + 0.5)),
    "Softplus": lambda x, a, b: np.logaddexp(x, 0),
    "Softsign": lambda x, a, b: x / (1 + np.abs(x)),
    "ThresholdedRelu": lambda x, a, b: np.where(x > a, x, 0),
    "Mish": lambda x, a, b: x * np.tanh(np.logaddexp(x, 0)),
    "Gelu": lambda x, a, b: 0.5 * x * (1 + _erf(x / math.sqrt(2))),
    "GeluTanh": lambda x, a, b: _gelu_tanh(x),
    "Swish": lambda x, a, b: x * _sigmoid(a * x),
    "Shrink": lambda x, a, b: np.where(x < -a, x + b, np.where(x > a, x - b, 0)),
    "Clip": lambda x, a, b: np.minimum(np.maximum(x, a), b),
    "Not": lambda x, a, b: np.logical_not(x),
    "IsNaN": lambda x, a, b: np.isnan(x),
    "IsInf": lambda x, a, b: np.isinf(x) & np.where(x < 0, a != 0, b != 0),
    "BitwiseNot": lambda x, a, b: np.invert(x),
    "Affine": lambda x, a, b: x * a + b,
}


def _divide(x: Array, y: Array) -> Array:
    if np.issubdtype(x.dtype, np.floating):
        return x / y
    truncated = [
        0 if d == 0 else abs(int(n)) // abs(int(d)) * (1 if (n < 0) == (d < 0) else -1)
        for n, d in zip(x.ravel(), y.ravel(), strict=True)
    ]
    bits = 8 * x.dtype.itemsize
    return (
        np.array([v & (2**bits - 1) for v in truncated], np.uint64)
        .astype(f"u{bits // 8}")
        .view(x.dtype)
        .reshape(x.shape)
    )


_BINARY: dict[str, Callable[[Array, Array], Array]] = {
    "Add": lambda x, y: x + y,
    "Sub": lambda x, y: x - y,
    "Mul": lambda x, y: x * y,
    "Div": _divide,
    "Pow": lambda x, y: np.power(x, y),
    "Mod": lambda x, y: np.mod(x, y),
    "Fmod": lambda x, y: np.fmod(x, y),
    "Min": lambda x, y: np.minimum(x, y),
    "Max": lambda x, y: np.maximum(x, y),
    "And": lambda x, y: np.logical_and(x, y),
    "Or": lambda x, y: np.logical_or(x, y),
    "Xor": lambda x, y: np.logical_xor(x, y),
    "Equal": lambda x, y: x == y,
    "Greater": lambda x, y: x > y,
    "GreaterOrEqual": lambda x, y: x >= y,
    "Less": lambda x, y: x < y,
    "LessOrEqual": lambda x, y: x <= y,
    "ShiftLeft": lambda x, y: np.left_shift(x, y),
    "ShiftRight": lambda x, y: np.right_shift(x, y),
    "BitwiseAnd": lambda x, y: np.bitwise_and(x, y),
    "BitwiseOr": lambda x, y: np.bitwise_or(x, y),
    "BitwiseXor": lambda x, y: np.bitwise_xor(x, y),
    "PRelu": lambda x, y: np.where(x < 0, x * y, x),
}


def _is_float(dtype: Any) -> bool:
    return np.dtype(dtype) in (np.float16, np.float32, np.float64, np.dtype(ml_dtypes.bfloat16))


def _wide(array: Array) -> Array:
    return array.astype(np.float64) if _is_float(array.dtype) else array


def elementwise(
    op: str,
    *arrays: Array,
    alpha: float = 0.0,
    beta: float = 0.0,
    post: str = "Identity",
    to: Any = None,
) -> Array:
    with np.errstate(all="ignore"):
        if op == "Cast":
            return arrays[0].astype(to)
        if op == "Where":
            return np.where(arrays[0], *np.broadcast_arrays(*arrays)[1:])
        wide = [_wide(a) for a in np.broadcast_arrays(*arrays)]
        if not _is_float(arrays[0].dtype):
            alpha, beta = int(alpha), int(beta)
        if op in _UNARY:
            return _UNARY[op](wide[0], alpha, beta)
        result = _UNARY[post](_BINARY[op](*wide), alpha, beta)
        if op == "Pow" and not _is_float(arrays[0].dtype):
            result = result.astype(arrays[0].dtype)
        return result
