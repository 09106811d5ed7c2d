"""softmax: softmax, log-softmax and hardmax along an axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np

from voxelrt.kernels.common.kernel import Array, Case, Kernel
from voxelrt.kernels.softmax.codes import FUNCTIONS
from voxelrt.kernels.softmax.oracle import softmax as oracle

_TOLERANCES = {"float32": 1e-6, "float64": 1e-14, "float16": 5e-4, "bfloat16": 4e-3}


def _case(shape: tuple[int, ...], axis: int, op: str = "Softmax", dtype: str = "float32", bench: bool = False) -> Case:
    def make(rng: np.random.Generator) -> tuple[Sequence[Any], Mapping[str, Any]]:
        x = rng.normal(0, 3, shape).astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
        return (x,), {"axis": axis, "op": op}

    moved = 2.0 * float(np.prod(shape)) * 4
    tolerance = 0.0 if op == "Hardmax" else _TOLERANCES[dtype]
    return Case(f"{op}-{dtype}-{'x'.join(map(str, shape))}-{axis}", make, tolerance, 0.0, moved, bench)


def _gaps(op: str, axis: int) -> Case:
    def make(rng: np.random.Generator) -> tuple[Sequence[Any], Mapping[str, Any]]:
        return (rng.normal(0, 3, (5, 60, 40)).astype(np.float32)[::-1, ::3].transpose(2, 0, 1),), {
            "axis": axis,
            "op": op,
        }

    return Case(f"{op}-gaps-{axis}", make, 1e-6)


def _extremes() -> Case:
    """Large, infinite and NaN elements; a line of nothing but minus infinity is NaN."""

    def make(rng: np.random.Generator) -> tuple[Sequence[Any], Mapping[str, Any]]:
        x = rng.normal(0, 1e4, (5, 70)).astype(np.float32)
        x[0, 3], x[1, 4], x[2] = np.nan, -np.inf, -np.inf
        return (x,), {"axis": 1}

    return Case("Softmax-extremes", make, 1e-6)


KERNEL = Kernel(
    name="softmax",
    oracle=oracle,
    cases=(
        *(_case((3, 5, 37, 70), axis, op) for axis in (0, 1, 3) for op in FUNCTIONS),
        *(
            _case((3, 5, 300), axis, op, dtype)
            for axis in (1, 2)
            for op in FUNCTIONS
            for dtype in ("float64", "float16", "bfloat16")
        ),
        _case((1,), 0),
        _case((3, 50, 20), 2, "LogSoftmax"),
        _case((2, 0, 3), 2),
        _case((4, 10_000), 1, "LogSoftmax"),
        *(_gaps(op, axis) for op in FUNCTIONS for axis in (0, 2)),
        _extremes(),
        _case((1, 8, 48, 64, 64), 1, bench=True),
        _case((8, 512, 512), 2, bench=True),
    ),
)


def softmax(x: Array, *, axis: int = -1, op: str = "Softmax", backend: str = "auto") -> Array:
    """Softmax along an axis.

    Parameters
    ----------
    x : floating point, up to 8 axes; may have gaps.
    axis : whose elements sum to one.
    op : ``"Softmax"``, ``"LogSoftmax"`` or ``"Hardmax"`` (one at the first largest element, zero elsewhere).
    backend : see ``Kernel``.

    Raises
    ------
    ShapeError : not floating point, or no such axis.
    """
    result: Array = KERNEL(x, axis=axis, op=op, backend=backend)
    return result
