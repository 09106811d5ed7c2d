"""spline_prefilter: the coefficients of the cubic B-spline that goes through a volume's voxels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from voxelrt.kernels.common.kernel import Array, Case, Kernel
from voxelrt.kernels.spline_prefilter.oracle import spline_prefilter as oracle


def _case(shape: tuple[int, ...], dtype: str = "float32", bench: bool = False) -> Case:
    def make(rng: np.random.Generator) -> tuple[Sequence[Any], Mapping[str, Any]]:
        return ((rng.normal(0, 50, shape)).astype(dtype),), {}

    count, axes = float(np.prod(shape)), len(shape) - 2
    name = f"{dtype}-{'x'.join(map(str, shape))}"
    return Case(name, make, 1e-6, count * axes * 5, count * 8 * axes, bench)


KERNEL = Kernel(
    name="spline_prefilter",
    oracle=oracle,
    cases=(
        _case((1, 1, 1, 1, 1)),
        _case((1, 1, 2, 3, 1)),
        _case((2, 3, 5, 7, 11)),
        _case((1, 2, 17, 40, 67)),
        _case((1, 1, 70, 3, 16)),
        _case((2, 2, 9, 33)),
        _case((1, 2, 6, 7, 20), "int16"),
        _case((1, 2, 6, 7, 20), "float16"),
        _case((1, 0, 6, 7, 20)),
        _case((1, 1, 64, 64, 64), bench=True),
    ),
    backends=("cpu", "triton"),
)


def spline_prefilter(volume: Array, *, out: Array | None = None, backend: str = "auto") -> Array:
    """The coefficients c with Σ c(k) β³(x − k) = volume(x) at every voxel x.

    A recursive filter along each axis, forth and back (Unser, Aldroubi, Eden, B-spline signal processing: part II,
    IEEE TSP 41, 1993); beyond the ends the volume goes on as a mirror image about its outer voxels.

    Parameters
    ----------
    volume : (N, C, Z, Y, X) or (N, C, Y, X), any float of up to 32 or whole number of up to 16 bits.
    out : float32, where the coefficients go.
    backend : see ``Kernel``.

    Returns
    -------
    The coefficients, float32, of the volume's shape.

    Raises
    ------
    ShapeError : the shape or dtype is none of these.
    """
    result: Array = KERNEL(volume, out=out, backend=backend)
    return result
