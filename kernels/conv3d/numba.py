"""conv3d in numba: direct sums, a row of outputs under each weight; an input channel's part is added as a whole."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numba
import numpy as np

from voxelrt.errors import ShapeError
from voxelrt.kernels.common.activation import activate
from voxelrt.kernels.common.kernel import Array
from voxelrt.kernels.common.numba_parts import in_parts
from voxelrt.kernels.common.windows import Padding, Triple, pairs, triple


@numba.njit(nogil=True, cache=True)
def _planes(begin, end, source, weights, step, spread, out):
    """Planes (n, o, z) begin to end of the convolution of an already padded source."""
    outputs, depth, rows, columns = out.shape[1:]
    inputs, kz, ky, kx = weights.shape[1:]
    per_group = outputs // (source.shape[1] // inputs)
    part = np.empty((rows, columns), out.dtype)
    for plane in range(begin, end):
        n, o, z = plane // (outputs * depth), plane // depth % outputs, plane % depth
        first = o // per_group * inputs
        out[n, o, z] = 0
        for i in range(inputs):
            part[:, :] = 0
            for a in range(kz):
                for b in range(ky):
                    for c in range(kx):
                        w = weights[o, i, a, b, c]
                        for y in range(rows):
                            row = source[n, first + i, z * step[0] + a * spread[0], y * step[1] + b * spread[1]]
                            start = c * spread[2]
                            if step[2] == 1:
                                for x in range(columns):
                                    part[y, x] += w * row[start + x]
                            else:
                                for x in range(columns):
                                    part[y, x] += w * row[start + x * step[2]]
            for y in range(rows):
                for x in range(columns):
                    out[n, o, z, y, x] += part[y, x]


def run(
    x: Array,
    weights: Array,
    bias: Array | None = None,
    *,
    stride: Triple = 1,
    padding: Padding = 0,
    dilation: Triple = 1,
    groups: int = 1,
    activation: str = "none",
    alpha: float = 0.0,
    beta: float = 0.0,
    second: Array | None = None,
    residual: Array | None = None,
    precision: str = "fp32",
    source_scale: float = 0.0,
    **_how: Any,
) -> Array:
    kind = np.float64 if x.dtype == np.float64 else np.float32
    joined = x if second is None else np.concatenate([x, second], axis=1)
    if joined.shape[1] != groups * weights.shape[1] or weights.shape[0] % groups:
        raise ShapeError(f"weights {weights.shape} do not fit {joined.shape[1]} channels in {groups} groups")
    source, taps = _rounded(joined.astype(kind), weights.astype(kind), precision, source_scale)
    source = np.pad(source, [(0, 0), (0, 0), *pairs(padding)])
    step, spread = triple(stride), triple(dilation)
    size = [max(0, (source.shape[2 + a] - spread[a] * (taps.shape[2 + a] - 1) - 1) // step[a] + 1) for a in range(3)]
    out = np.empty((x.shape[0], taps.shape[0], *size), kind)
    in_parts(_planes, out.shape[0] * out.shape[1] * out.shape[2], source, taps, step, spread, out)
    if bias is not None:
        out += bias.astype(kind)[:, None, None, None]
    if residual is not None:
        out += residual
    return activate(activation, out, alpha, beta).astype(x.dtype)


def _rounded(source: Array, weights: Array, precision: str, source_scale: float) -> tuple[Array, Array]:
    """The operands as the precision holds them, in the type that is multiplied."""
    if precision == "bf16":
        return tuple(a.astype(ml_dtypes.bfloat16).astype(a.dtype) for a in (source, weights))  # type: ignore[return-value]
    if precision == "int8":
        largest = np.abs(weights).max(axis=(1, 2, 3, 4), keepdims=True) / 127
        codes = np.clip(np.rint(source / source_scale), -128, 127)
        return codes * source.dtype.type(source_scale), np.rint(weights / largest) * largest
    return source, weights
