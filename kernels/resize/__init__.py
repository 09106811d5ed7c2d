"""resize: nearest, linear and cubic interpolation in any number of axes, as ONNX Resize defines them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from voxelrt.kernels.common.kernel import Array, Case, Kernel
from voxelrt.kernels.resize.codes import COORDINATES, MODES, ROUNDINGS
from voxelrt.kernels.resize.oracle import resize as oracle

_TOLERANCES = {"float32": 1e-6, "float64": 1e-14, "float16": 1e-3}


def _case(
    shape: tuple[int, ...],
    scales: tuple[float, ...],
    mode: str = "linear",
    dtype: str = "float32",
    bench: bool = False,
    **options: Any,
) -> Case:
    def make(rng: np.random.Generator) -> tuple[Sequence[Any], Mapping[str, Any]]:
        x = rng.normal(0, 1, shape) if dtype in _TOLERANCES else rng.integers(0, 100, shape)
        return (x.astype(dtype), scales), {"mode": mode, **options}

    grown = float(np.prod([int(n * s) for n, s in zip(shape, scales, strict=True)]))
    moved = (float(np.prod(shape)) + grown) * np.dtype(dtype).itemsize
    text = "".join(f"-{key}" if value is True else f"-{value}" for key, value in options.items())
    name = f"{mode}-{dtype}-{'x'.join(map(str, shape))}-{','.join(f'{s:g}' for s in scales)}{text}".replace(" ", "")
    return Case(name, make, 0.0 if mode == "nearest" else _TOLERANCES[dtype], 0.0, moved, bench)


_ROI = ((0.0, 1.0), (0.2, 0.7), (-0.3, 1.2))
_CROP: dict[str, Any] = {"coordinate": "tf_crop_and_resize", "roi": _ROI, "extrapolation": 7.0}
_SHAPE, _SCALES = (2, 7, 11), (1.0, 1.7, 0.6)

KERNEL = Kernel(
    name="resize",
    oracle=oracle,
    cases=(
        *(_case(_SHAPE, _SCALES, mode, coordinate=c) for mode in MODES for c in COORDINATES[:-1]),
        *(_case(_SHAPE, _SCALES, "nearest", d, rounding=r) for r in ROUNDINGS for d in ("uint8", "float32")),
        *(
            _case((9,), (s,), "nearest", "int16", rounding=r, coordinate="asymmetric")
            for r in ROUNDINGS
            for s in (0.5, 2.0)
        ),
        *(_case(_SHAPE, _SCALES, mode, antialias=True) for mode in MODES[1:]),
        *(_case(_SHAPE, (1.0, 0.3, 0.25), mode, antialias=True, exclude_outside=True) for mode in MODES[1:]),
        *(_case(_SHAPE, _SCALES, "cubic", exclude_outside=True, cubic=a) for a in (-0.5, -0.75)),
        *(_case(_SHAPE, _SCALES, mode, **_CROP) for mode in MODES),
        *(_case(_SHAPE, _SCALES, mode, dtype) for mode in MODES[1:] for dtype in ("float64", "float16")),
        _case((1, 3, 4, 5, 6), (1, 1, 2, 2, 2)),
        _case((1, 3, 4, 5, 6), (1, 1, 2, 2, 2), "nearest", "float64", coordinate="asymmetric"),
        _case((3, 4, 5, 6), (2, 1.5, 1, 1)),
        _case((3, 4, 5, 6), (2, 1.5, 1, 1), "nearest", "bool"),
        _case((2, 3, 4, 3, 4, 2), (1, 1, 1.5, 2, 0.5, 1)),
        _case((3, 4), (1, 1)),
        _case((1,), (1.0,), "nearest"),
        _case((1,), (5.0,)),
        _case((2, 0, 4), (1, 2.0, 2.0)),
        _case((1, 8, 24, 32, 32), (1, 1, 2, 2, 2), bench=True),
        _case((1, 8, 24, 32, 32), (1, 1, 2, 2, 2), coordinate="align_corners", bench=True),
        _case((1, 8, 48, 64, 64), (1, 1, 0.5, 0.5, 0.5), antialias=True, bench=True),
        _case((1, 8, 24, 32, 32), (1, 1, 2, 2, 2), "nearest", coordinate="asymmetric", bench=True),
    ),
)


def resize(
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
    backend: str = "auto",
) -> Array:
    """Resize an array; names and meanings are ONNX Resize's.

    Parameters
    ----------
    x : up to 8 axes. Any dtype for ``"nearest"``; interpolation is in float32, or float64 for that dtype.
    scales : of each axis; 1 leaves it as it is.
    sizes : of the result; the whole part of size times scale where not given.
    mode : ``"nearest"``, ``"linear"`` or ``"cubic"``.
    coordinate : where an output element looks: ``coordinate_transformation_mode``.
    rounding : ``nearest_mode``.
    antialias : widen the kernel where an axis shrinks.
    exclude_outside : weigh no element beyond the ends (else the end's own are repeated).
    cubic : ``cubic_coeff_a``.
    extrapolation, roi : of ``"tf_crop_and_resize"``: the value outside, and (start, end) of each axis, from 0 to 1.
    backend : see ``Kernel``.

    Raises
    ------
    UsageError : an unknown mode, or not a number for each axis.
    ShapeError : a scale out of range, or an empty axis that would grow.
    """
    result: Array = KERNEL(
        x,
        scales,
        sizes,
        mode=mode,
        coordinate=coordinate,
        rounding=rounding,
        antialias=antialias,
        exclude_outside=exclude_outside,
        cubic=cubic,
        extrapolation=extrapolation,
        roi=roi,
        backend=backend,
    )
    return result
