"""elementwise: functions of one, two or three arrays with broadcasting: ONNX's unary and binary operators, Where and
Cast."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np

from voxelrt.kernels.common.kernel import Array, Case, Kernel
from voxelrt.kernels.elementwise.codes import BINARY, UNARY
from voxelrt.kernels.elementwise.oracle import elementwise as oracle

Made = tuple[Sequence[Any], Mapping[str, Any]]

# What a float16 or bfloat16 answer differs from the float64 one by rounding alone.
_TOLERANCES = {"float32": 1e-6, "float64": 1e-14, "float16": 4e-4, "bfloat16": 3e-3}
# Where a function is defined, if not on [-6, 6]; its scalars.
_DOMAINS = {
    "Sqrt": (0.0, 9.0),
    "Log": (1e-3, 50.0),
    "Asin": (-1.0, 1.0),
    "Acos": (-1.0, 1.0),
    "Atanh": (-0.99, 0.99),
    "Acosh": (1.0, 9.0),
    "Tan": (-1.5, 1.5),
}
_SCALARS = {
    "LeakyRelu": (0.01, 0.0),
    "Elu": (1.3, 0.0),
    "Selu": (1.6732632, 1.0507010),
    "Celu": (0.7, 0.0),
    "HardSigmoid": (0.2, 0.5),
    "ThresholdedRelu": (1.0, 0.0),
    "Swish": (1.5, 0.0),
    "Shrink": (0.5, 0.25),
    "Clip": (-2.0, 3.0),
    "IsInf": (1.0, 0.0),
    "Affine": (3.0, -2.0),
}
_INTEGER_UNARY = ("Abs", "Neg", "Sign", "Relu", "Clip", "BitwiseNot", "Affine")
_INTEGER_BINARY = ("Add", "Sub", "Mul", "Div", "Mod", "Fmod", "Min", "Max", "Equal", "Less", "PRelu")
_BITS = ("ShiftLeft", "ShiftRight", "BitwiseAnd", "BitwiseOr", "BitwiseXor")
_LOGIC = ("And", "Or", "Xor")


def _dtype(name: str) -> np.dtype[Any]:
    return np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)


def _reals(rng: np.random.Generator, shape: Sequence[int], dtype: str, low: float = -6, high: float = 6) -> Array:
    return rng.uniform(low, high, shape).astype(_dtype(dtype))


def _integers(rng: np.random.Generator, shape: Sequence[int], dtype: str) -> Array:
    kind = np.dtype(dtype)
    if kind.kind == "b":
        return rng.integers(0, 2, shape).astype(bool)
    limits = np.iinfo(kind)
    return rng.integers(limits.min, limits.max, shape, dtype=kind, endpoint=True)


def _unary(op: str, dtype: str = "float32", shape: tuple[int, ...] = (3, 7, 41), bench: bool = False) -> Case:
    def make(rng: np.random.Generator) -> Made:
        alpha, beta = _SCALARS.get(op, (0.0, 0.0))
        options = {"alpha": alpha, "beta": beta}
        if dtype not in _TOLERANCES:
            return (op, _integers(rng, shape, dtype)), options
        x = _reals(rng, shape, dtype, *_DOMAINS.get(op, (-6.0, 6.0)))
        if op in ("IsNaN", "IsInf", "Relu", "Clip", "Sign", "Max"):
            x.ravel()[:3] = np.nan, np.inf, -np.inf
        return (op, x), options

    size = float(np.prod(shape)) * 4
    return Case(f"{op}-{dtype}-{'x'.join(map(str, shape))}", make, _TOLERANCES.get(dtype, 0.0), 0.0, 2 * size, bench)


def _binary(
    op: str,
    dtype: str = "float32",
    shapes: tuple[tuple[int, ...], tuple[int, ...]] = ((3, 7, 41), (3, 7, 41)),
    bench: bool = False,
    **options: Any,
) -> Case:
    def make(rng: np.random.Generator) -> Made:
        if dtype not in _TOLERANCES:
            x, y = (_integers(rng, shape, dtype) for shape in shapes)
            if op in ("Div", "Mod", "Fmod"):
                y = np.where(y == 0, y + 1, y).astype(y.dtype)
            if op.startswith("Shift"):
                y = (y % (8 * y.itemsize)).astype(y.dtype)
            return (op, x, y), options
        x, y = (_reals(rng, shape, dtype) for shape in shapes)
        if op == "Pow":
            x = np.abs(x)
        if op in ("Equal", "GreaterOrEqual", "LessOrEqual"):
            y = np.where(rng.random(y.shape) < 0.3, x, y) if x.shape == y.shape else y
        if op in ("Min", "Max"):
            x.ravel()[0] = y.ravel()[-1] = np.nan
        return (op, x, y), options

    name = f"{op}-{dtype}-" + "-".join("x".join(map(str, s)) or "scalar" for s in shapes)
    moved = 4.0 * sum(float(np.prod(s)) for s in (*shapes, shapes[0]))
    return Case(name + "".join(f"-{v}" for v in options.values()), make, _TOLERANCES.get(dtype, 0.0), 0.0, moved, bench)


def _cast(source: str, target: str, shape: tuple[int, ...] = (3, 7, 41)) -> Case:
    def make(rng: np.random.Generator) -> Made:
        made = _reals(rng, shape, source, 0, 100) if source in _TOLERANCES else _integers(rng, shape, source)
        return ("Cast", made), {"to": _dtype(target)}

    return Case(f"Cast-{source}-{target}", make, 0.0)


def _where(dtype: str, shapes: tuple[tuple[int, ...], ...]) -> Case:
    def make(rng: np.random.Generator) -> Made:
        values = [_integers(rng, s, dtype) if dtype not in _TOLERANCES else _reals(rng, s, dtype) for s in shapes[1:]]
        return ("Where", _integers(rng, shapes[0], "bool"), *values), {}

    return Case(f"Where-{dtype}-" + "-".join("x".join(map(str, s)) for s in shapes), make, 0.0)


def _strided(op: str) -> Case:
    def make(rng: np.random.Generator) -> Made:
        x = _reals(rng, (4, 9, 1000), "float32")[:, ::-2, 5:900:3].transpose(2, 0, 1)
        y = np.broadcast_to(_reals(rng, (4, 1), "float32"), x.shape)
        return (op, x, y), {}

    return Case(f"{op}-gaps", make, 1e-6)


def _rounding() -> Case:
    """Ties, subnormal numbers and overflow of a float16, each rounded once."""

    def make(rng: np.random.Generator) -> Made:
        odd = rng.integers(0, 2**16, 4000).astype(np.uint16).view(np.float16).astype(np.float64)
        odd = np.where(np.isnan(odd), 1.0, odd)
        return ("Cast", np.concatenate([odd * (1 + 2.0**-11), odd * (1 + 2.0**-11 + 2.0**-40)])), {"to": np.float16}

    return Case("Cast-ties", make, 0.0)


_FLOATS = tuple(op for op in UNARY if op not in ("Not", "BitwiseNot"))
_FLOAT_BINARY = tuple(op for op in BINARY if op not in (*_BITS, *_LOGIC))
_WIDE = ((2, 5, 6, 7), (5, 1, 7))

KERNEL = Kernel(
    name="elementwise",
    oracle=oracle,
    cases=(
        *(_unary(op) for op in _FLOATS),
        *(_unary(op, "float64") for op in _FLOATS),
        *(_unary(op, dtype) for op in ("Sigmoid", "Relu", "Gelu") for dtype in ("float16", "bfloat16")),
        *(_unary(op, dtype) for op in _INTEGER_UNARY for dtype in ("int8", "int32", "int64")),
        *(_unary(op, dtype) for op in ("Identity", "BitwiseNot") for dtype in ("uint16", "uint64")),
        _unary("Not", "bool"),
        _unary("Exp", shape=(1,)),
        _unary("Tanh", shape=()),
        _unary("Sigmoid", shape=(3, 0, 2)),
        _unary("Gelu", shape=(1, 16, 40, 50, 50), bench=True),
        _unary("Sigmoid", shape=(1, 16, 48, 64, 64), bench=True),
        *(_binary(op) for op in _FLOAT_BINARY),
        *(_binary(op, "float64") for op in _FLOAT_BINARY),
        *(_binary(op, "float16") for op in ("Add", "Max", "Less")),
        *(_binary(op, dtype) for op in _INTEGER_BINARY for dtype in ("int8", "uint8", "int32", "int64", "uint64")),
        *(_binary(op, dtype) for op in _BITS for dtype in ("uint8", "uint32", "uint64")),
        *(_binary(op, "bool") for op in (*_LOGIC, "Equal")),
        *(_binary(op, "float32", _WIDE) for op in ("Add", "Mul", "PRelu", "Greater")),
        _binary("Sub", "float32", ((5, 1, 7), (2, 5, 6, 7))),
        _binary("Mul", "int16", ((1000,), ())),
        _binary("Div", "float32", ((1,), (1,))),
        _binary("Add", "float32", ((4, 0), (4, 1))),
        _binary("Add", "float32", ((2, 3, 999), (2, 3, 999)), post="Relu"),
        _binary("Add", "float32", ((1, 16, 48, 64, 64), (1, 16, 48, 64, 64)), bench=True),
        _binary("Mul", "float32", ((1, 16, 48, 64, 64), (1, 16, 1, 1, 1)), bench=True),
        _strided("Add"),
        _strided("Max"),
        *(_cast(a, b) for a in ("float32", "float64", "int16") for b in ("float16", "bfloat16", "uint8", "bool")),
        *(_cast(a, "float32") for a in ("float16", "bfloat16", "float64", "int32", "uint64", "bool")),
        *(_cast("int64", b) for b in ("int8", "uint32", "float64", "uint64", "float32")),
        _rounding(),
        *(_where(d, ((3, 1, 41), (3, 7, 41), (7, 1))) for d in ("float32", "float64", "int16", "bool")),
        _where("int64", ((600,), (600,), (1,))),
    ),
)


def elementwise(
    op: str,
    *arrays: Array,
    alpha: float = 0.0,
    beta: float = 0.0,
    post: str = "Identity",
    to: Any = None,
    backend: str = "auto",
) -> Array:
    """One function of every element.

    Parameters
    ----------
    op : a name of ``codes.UNARY`` (one array), ``codes.BINARY`` (two), ``"Where"`` (bool, two) or ``"Cast"`` (one).
    arrays : of shapes that broadcast; all of one dtype but for Pow and Where. May have gaps.
    alpha, beta : the function's scalars, as ONNX names them: alpha of LeakyRelu, Elu, Celu, Swish, ThresholdedRelu;
        alpha and beta of HardSigmoid; alpha and gamma of Selu; lambd and bias of Shrink; least and greatest of Clip;
        whether negative and positive infinities count for IsInf; factor and summand of Affine.
    post : for two arrays, a unary function of the result, which then has alpha and beta.
    to : the dtype of Cast.

    Returns
    -------
    the broadcast shape; bool for comparisons, logic and IsNaN, else the dtype of the first array.

    Raises
    ------
    UsageError : no such function.
    ShapeError : shapes do not broadcast, or the function does not take the dtype.
    """
    result: Array = KERNEL(op, *arrays, alpha=alpha, beta=beta, post=post, to=to, backend=backend)
    return result
