"""reduce: sums, means, extrema, products, norms over any axes; where an extremum is; running sums."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np

from voxelrt.kernels.common.kernel import Array, Case, Kernel
from voxelrt.kernels.reduce.codes import REDUCTIONS
from voxelrt.kernels.reduce.oracle import reduce as oracle

_TOLERANCES = {"float32": 1e-6, "float64": 1e-13, "float16": 1e-3, "bfloat16": 5e-3}


def _case(
    op: str,
    shape: tuple[int, ...],
    axes: tuple[int, ...] | None,
    dtype: str = "float32",
    bench: bool = False,
    **options: Any,
) -> Case:
    def make(rng: np.random.Generator) -> tuple[Sequence[Any], Mapping[str, Any]]:
        if dtype in _TOLERANCES:
            x = rng.normal(0.3, 1.0, shape)
            x = np.abs(x) if op == "LogSum" else 1 + 0.02 * (x - 0.3) if op == "Prod" else x
            return (op, x.astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype), axes), options
        low, high = (0, 2) if dtype == "bool" else (-5, 6) if dtype.startswith("int") else (0, 11)
        return (op, rng.integers(low, high, shape).astype(dtype), axes), options

    over = "all" if axes is None else "".join(map(str, axes))
    name = f"{op}-{dtype}-{'x'.join(map(str, shape))}-{over}" + "".join(f"-{k}" for k, v in options.items() if v)
    count = float(np.prod(shape))
    exact = dtype not in _TOLERANCES or op in ("ArgMax", "ArgMin", "Max", "Min")
    return Case(name, make, 0.0 if exact else _TOLERANCES[dtype], count, 4.0 * count, bench)


def _gaps(op: str, axes: tuple[int, ...]) -> Case:
    def make(rng: np.random.Generator) -> tuple[Sequence[Any], Mapping[str, Any]]:
        return (op, rng.normal(size=(5, 90, 40)).astype(np.float32)[::-1, ::3].transpose(2, 0, 1), axes), {}

    return Case(f"{op}-gaps-{''.join(map(str, axes))}", make, 1e-6)


def _extremes() -> Case:
    """Infinities and NaNs."""

    def make(rng: np.random.Generator) -> tuple[Sequence[Any], Mapping[str, Any]]:
        x = rng.normal(size=(6, 50)).astype(np.float32)
        x[0, 7], x[1, 7], x[2, 7], x[3] = np.nan, np.inf, -np.inf, -np.inf
        x[4] *= 1e4
        return ("LogSumExp", x, (1,)), {}

    return Case("LogSumExp-extremes", make, 1e-6)


_AXES: tuple[tuple[int, ...] | None, ...] = ((2,), (0,), (1, 3), None)

KERNEL = Kernel(
    name="reduce",
    oracle=oracle,
    cases=(
        *(_case(op, (3, 5, 7, 37), axes) for op in REDUCTIONS for axes in _AXES),
        *(_case(op, (3, 5, 67), (2,), dtype) for op in REDUCTIONS for dtype in ("float64", "float16", "bfloat16")),
        *(
            _case(op, (3, 5, 67), axes, dtype)
            for op in ("Sum", "Mean", "Max", "Min", "L1", "L2", "SumSquare")
            for dtype in ("int8", "uint8", "int32", "uint64", "int64")
            for axes in ((1,), (2,))
        ),
        _case("Max", (3, 5, 67), (1,), "bool"),
        _case("Prod", (4, 3), (1,), "int32"),
        _case("Sum", (1,), (0,)),
        _case("Sum", (3, 0, 4), (1,)),
        _case("Max", (3, 0, 4), (0,)),
        _case("Sum", (2, 3, 200_001), (2,)),
        _case("LogSumExp", (2, 3, 200_001), (2,)),
        _case("Mean", (150_000, 5), (0,)),
        _case("LogSumExp", (150_000, 5), (0,)),
        _case("L2", (100_000, 3), (1,), keepdims=False),
        _case("Mean", (1, 16, 48, 64, 64), (2, 3, 4), bench=True),
        _case("Max", (1, 16, 48, 64, 64), (1,), bench=True),
        *(_gaps(op, axes) for op in ("Sum", "Max", "LogSumExp") for axes in ((0,), (1, 2), (0, 2))),
        _extremes(),
        *(
            _case(op, (3, 5, 67), (axis,), dtype, last=last)
            for op in ("ArgMax", "ArgMin")
            for dtype in ("float32", "uint8", "int64")
            for axis in (1, 2)
            for last in (False, True)
        ),
        _case("ArgMax", (4, 600), (1,), "float16", keepdims=False),
        _case("ArgMax", (1, 8, 48, 64, 64), (1,), bench=True),
        *(
            _case("CumSum", (3, 5, 67), (axis,), dtype, exclusive=exclusive, reverse=reverse)
            for axis, dtype in ((0, "float32"), (2, "int32"), (1, "float64"))
            for exclusive in (False, True)
            for reverse in (False, True)
        ),
    ),
)


def reduce(
    op: str,
    x: Array,
    axes: Sequence[int] | None = None,
    *,
    keepdims: bool = True,
    last: bool = False,
    exclusive: bool = False,
    reverse: bool = False,
    backend: str = "auto",
) -> Array:
    """Reduce an array over axes.

    Parameters
    ----------
    op : a name of ``codes.REDUCTIONS`` (ONNX ReduceSum is ``"Sum"``), ``"ArgMax"``, ``"ArgMin"`` or ``"CumSum"``.
    x : any shape of up to 8 axes; may have gaps. LogSum and LogSumExp take floating point; bool has Max and Min.
    axes : None is all; the last three take one.
    keepdims : whether reduced axes stay with size one.
    last : ArgMax, ArgMin: of equal extrema take the last.
    exclusive, reverse : CumSum: leave the element itself out; sum from the end.
    backend : see ``Kernel``.

    Returns
    -------
    the dtype of ``x``; int64 for ArgMax and ArgMin. Floating point accumulates in float64, integers wrap. A NaN makes
    extrema NaN and is where ArgMax and ArgMin point.

    Raises
    ------
    UsageError : no such reduction.
    ShapeError : the dtype or the axis does not go with it.
    """
    options: dict[str, Any] = {"keepdims": keepdims, "last": last, "exclusive": exclusive, "reverse": reverse}
    result: Array = KERNEL(op, x, axes, **options, backend=backend)
    return result
