"""quantize: floats to small integers by scale and zero point, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np

from voxelrt.kernels.common.kernel import Array, Case, Kernel
from voxelrt.kernels.quantize.oracle import quantize as oracle


def _case(shape: tuple[int, ...], source: str, target: str, scales: tuple[int, ...], zero: bool = True) -> Case:
    def make(rng: np.random.Generator) -> tuple[Sequence[Any], Mapping[str, Any]]:
        whole = np.dtype(ml_dtypes.bfloat16 if source == "bfloat16" else source).kind in "iu"
        small, wide = (source, target) if whole else (target, source)
        info = np.iinfo(small)
        scale = rng.uniform(0.01, 0.2, scales).astype(ml_dtypes.bfloat16 if wide == "bfloat16" else wide)
        offset = rng.integers(max(info.min, -9), 9, scales, dtype=small) if zero else None
        if whole:
            return (rng.integers(info.min, info.max, shape, dtype=source, endpoint=True), scale, offset), {}
        x = rng.normal(0, 15, shape).astype(ml_dtypes.bfloat16 if source == "bfloat16" else source)
        return (x, scale, offset), {"dtype": target}

    tolerance = {"float16": 1e-3, "bfloat16": 8e-3, "float32": 1e-7}.get(target, 0.0)
    moved = 5.0 * float(np.prod(shape))
    name = f"{'x'.join(map(str, shape))}-{source}-{target}-{'x'.join(map(str, scales))}{'' if zero else '-symmetric'}"
    return Case(name, make, tolerance, 0.0, moved, bench=moved > 1e5)


KERNEL = Kernel(
    name="quantize",
    oracle=oracle,
    cases=(
        _case((1,), "float32", "int8", ()),
        _case((3, 5, 7), "float32", "uint8", (5, 1)),
        _case((2, 9, 130), "float16", "int8", (9, 1), zero=False),
        _case((4, 600), "float32", "uint16", (4, 1)),
        _case((40, 40, 40), "float32", "int8", (), zero=False),
        _case((3, 5, 7), "int8", "float32", (5, 1)),
        _case((2, 9, 130), "uint8", "float16", (), zero=True),
        _case((33, 17), "int32", "float32", (17,), zero=False),
        _case((33, 17), "int16", "bfloat16", ()),
        _case((40, 40, 40), "int8", "float32", (40, 1, 1), zero=False),
        _case((0, 3), "float32", "int8", ()),
    ),
)


def quantize(x: Array, scale: Array, zero: Array | None = None, *, dtype: str = "int8", backend: str = "auto") -> Array:
    """``saturate(round(x / scale) + zero)``, halves to even (ONNX QuantizeLinear).

    Parameters
    ----------
    x : float32, float16 or bfloat16.
    scale : of a float dtype, broadcast against ``x``.
    zero : of ``dtype``, broadcast against ``x``; nothing where None.
    dtype : ``int8``, ``uint8``, ``int16`` or ``uint16``.
    backend : ``auto`` or ``cpu``.

    Raises
    ------
    ShapeError : a dtype that the kernel does not take.
    """
    result: Array = KERNEL(x, scale, zero, dtype=dtype, backend=backend)
    return result


def dequantize(x: Array, scale: Array, zero: Array | None = None, *, backend: str = "auto") -> Array:
    """``(x − zero) · scale`` in the dtype of the scale (ONNX DequantizeLinear).

    Parameters
    ----------
    x : int8, uint8, int16, uint16 or int32.
    scale : float32, float16 or bfloat16, broadcast against ``x``.
    zero : of the dtype of ``x``, broadcast against it; nothing where None.
    backend : ``auto`` or ``cpu``.

    Raises
    ------
    ShapeError : a dtype that the kernel does not take.
    """
    result: Array = KERNEL(x, scale, zero, backend=backend)
    return result
