"""resize, obviously: for every axis a matrix of weights in float64, after the definition in ONNX Resize."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np

from voxelrt.kernels.common.kernel import Array


def _position(j: int, n: int, out: int, scale: float, coordinate: str, roi: tuple[float, float]) -> float:
    length = scale * n
    if coordinate == "align_corners":
        return 0.0 if length == 1 else j * (n - 1) / (length - 1)
    if coordinate == "asymmetric":
        return j / scale
    if coordinate == "tf_crop_and_resize":
        if length == 1:
            return (roi[0] + roi[1]) * (n - 1) / 2
        return roi[0] * (n - 1) + j * (roi[1] - roi[0]) * (n - 1) / (length - 1)
    if coordinate == "pytorch_half_pixel" and out == 1:
        return 0.0
    x = (j + 0.5) / scale - 0.5
    if coordinate == "half_pixel_symmetric":
        x += n / 2 * (1 - out / length)
    return x


def _kernel(x: float, mode: str, a: float) -> float:
    x = abs(x)
    if mode == "linear":
        return max(0.0, 1 - x)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


def _rounded(x: float, rounding: str) -> int:
    if rounding == "floor":
        return math.floor(x)
    if rounding == "ceil":
        return math.ceil(x)
    return math.ceil(x - 0.5) if rounding == "round_prefer_floor" else math.floor(x + 0.5)


def _weights(n: int, out: int, scale: float, roi: tuple[float, float], options: dict[str, Any]) -> tuple[Array, Array]:
    """The (out, n) weights, and which output elements lie outside."""
    matrix, outside = np.zeros((out, n)), np.zeros(out, bool)
    mode = options["mode"]
    shrink = min(scale, 1.0) if options["antialias"] else 1.0
    reach = (2 if mode == "cubic" else 1) / shrink
    for j in range(out):
        x = _position(j, n, out, scale, options["coordinate"], roi)
        outside[j] = options["coordinate"] == "tf_crop_and_resize" and not 0 <= x <= n - 1
        if mode == "nearest":
            matrix[j, min(max(_rounded(x, options["rounding"]), 0), n - 1)] = 1
            continue
        taps = [i for i in range(math.floor(x - reach) - 1, math.ceil(x + reach) + 2) if abs(i - x) <= reach]
        values = [_kernel((i - x) * shrink, mode, options["cubic"]) for i in taps]
        if options["exclude_outside"]:
            values = [v if 0 <= i < n else 0.0 for i, v in zip(taps, values, strict=True)]
        for i, value in zip(taps, values, strict=True):
            matrix[j, min(max(i, 0), n - 1)] += value / sum(values)
    return matrix, outside


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
) -> Array:
    options = {
        "mode": mode,
        "coordinate": coordinate,
        "rounding": rounding,
        "antialias": antialias,
        "exclude_outside": exclude_outside,
        "cubic": cubic,
    }
    floating = np.issubdtype(x.dtype, np.floating) or x.dtype == ml_dtypes.bfloat16
    result = x.astype(np.float64)
    beyond = []
    for axis, scale in enumerate(scales):
        n = x.shape[axis]
        out = sizes[axis] if sizes is not None else math.floor(n * scale)
        matrix, outside = _weights(n, out, scale, roi[axis] if roi else (0.0, 1.0), options)
        result = np.moveaxis(np.tensordot(matrix, result, (1, axis)), 0, axis)
        beyond.append(outside)
    for axis, outside in enumerate(beyond):
        np.moveaxis(result, axis, 0)[outside] = extrapolation
    return result if floating else result.astype(x.dtype)
