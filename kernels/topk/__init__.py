"""topk: the k largest or smallest elements along an axis, and where they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np

from voxelrt.kernels.common.kernel import Array, Case, Kernel
from voxelrt.kernels.topk.oracle import topk as oracle


def _case(
    shape: tuple[int, ...],
    k: int,
    axis: int,
    dtype: str = "float32",
    largest: bool = True,
    nan: bool = False,
    bench: bool = False,
) -> Case:
    def make(rng: np.random.Generator) -> tuple[Sequence[Any], Mapping[str, Any]]:
        x = rng.integers(0, 50, shape).astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
        if nan:
            x.ravel()[::7] = np.nan
        return (x, k), {"axis": axis, "largest": largest}

    name = f"{'x'.join(map(str, shape))}-{dtype}-{k}-{axis}-{'largest' if largest else 'smallest'}"
    return Case(name + ("-nan" if nan else ""), make, 0.0, 0.0, 4.0 * float(np.prod(shape)), bench)


def _gaps() -> Case:
    def make(rng: np.random.Generator) -> tuple[Sequence[Any], Mapping[str, Any]]:
        return (rng.normal(size=(6, 40, 9)).astype(np.float32)[::-1, ::3].transpose(2, 0, 1), 5), {"axis": 2}

    return Case("gaps", make, 0.0)


KERNEL = Kernel(
    name="topk",
    oracle=oracle,
    cases=(
        *(_case((4, 60, 5), k, 1, largest=largest) for k in (1, 7, 60) for largest in (True, False)),
        *(_case((4, 33), 5, 1, d) for d in ("uint8", "int64", "uint64", "float16", "bfloat16", "float64", "bool")),
        *(_case((3, 50), k, -1, largest=largest, nan=True) for k in (4, 20) for largest in (True, False)),
        _case((7,), 0, 0),
        _case((0, 4), 2, 1),
        _case((1,), 1, 0),
        _gaps(),
        _case((64, 20_000), 50, 1, bench=True),
    ),
)


def topk(x: Array, k: int, *, axis: int = -1, largest: bool = True, backend: str = "auto") -> tuple[Array, Array]:
    """The k largest (or smallest) elements along an axis, best first.

    Parameters
    ----------
    x : any dtype, up to 8 axes; may have gaps. A NaN counts as larger than every number.
    k : how many, at most the axis's length.
    axis : along which.
    largest : False for the smallest.
    backend : see ``Kernel``.

    Returns
    -------
    the values, and their int64 places along the axis. Of equal elements the first comes first.

    Raises
    ------
    ShapeError : the axis has less than k elements.
    """
    values, places = KERNEL(x, k, axis=axis, largest=largest, backend=backend)
    return values, places
