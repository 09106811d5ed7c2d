"""resize on the native library."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from voxelrt.errors import UsageError
from voxelrt.kernels.common import capi, native
from voxelrt.kernels.common.kernel import Array
from voxelrt.kernels.resize.codes import COORDINATES, MODES, ROUNDINGS


def _code(value: str, values: Sequence[str], what: str) -> int:
    if value not in values:
        raise UsageError(f"{what} is {value!r}; it is one of {', '.join(values)}")
    return values.index(value)


def run(
    x: Array,
    scales: Sequence[float],
    sizes: Sequence[int] | None = None,
    *,
    mode: str = "nearest",
    coordinate: str = "half_pixel",
    rounding: str = "round_prefer_floor",
    antialias: bool = False,
    exclude_outside: bool = False,
    cubic: float = -0.75,
    extrapolation: float = 0.0,
    roi: Sequence[tuple[float, float]] | None = None,
) -> Array:
    if len(scales) != x.ndim or (sizes is not None and len(sizes) != x.ndim):
        raise UsageError(f"scales and sizes have one number for each of the {x.ndim} axes")
    shape = sizes if sizes is not None else [math.floor(n * s) for n, s in zip(x.shape, scales, strict=True)]
    wide = x if mode == "nearest" or x.dtype in (np.float32, np.float64) else x.astype(np.float32)
    out = native.aligned_empty(shape, wide.dtype)
    rest = capi.MAX_RANK - x.ndim
    crop = list(roi or [(0.0, 1.0)] * x.ndim) + [(0.0, 1.0)] * rest
    native.run_kernel(
        "resize",
        [np.asarray(wide, order="C")],
        [out],
        mode=_code(mode, MODES, "mode"),
        coordinate=_code(coordinate, COORDINATES, "coordinate"),
        rounding=_code(rounding, ROUNDINGS, "rounding"),
        antialias=antialias,
        exclude_outside=exclude_outside,
        cubic=cubic,
        extrapolation=extrapolation,
        scale=[*scales, *[1.0] * rest],
        roi=[a for a, _ in crop] + [b for _, b in crop],
    )
    return out if wide.dtype == x.dtype else out.astype(x.dtype)
