"""norm3d in numba: a norm is a row. Its moments in float64, in two passes; then the row once more."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numba
import numpy as np

from voxelrt.errors import UsageError
from voxelrt.kernels.common.activation import activate
from voxelrt.kernels.common.kernel import Array
from voxelrt.kernels.common.numba_parts import in_parts
from voxelrt.kernels.norm3d.cpu import KINDS, LAYER_MODES

_GROUP = len(LAYER_MODES)  # instance and group norm: variances as of layers


@numba.njit(nogil=True, cache=True)
def _moments(begin, end, rows, mode, epsilon, p, mean, inverse):
    """Of each row what is taken away and what it is multiplied with."""
    length = rows.shape[1]
    for r in range(begin, end):
        total, squares = 0.0, 0.0
        if mode == 3:
            for i in range(length):
                value = abs(np.float64(rows[r, i]))
                squares += value if p == 1 else value * value
            size = squares if p == 1 else math.sqrt(squares)
            mean[r], inverse[r] = 0.0, (0.0 if size == 0.0 else 1.0 / size)
            continue
        if mode != 1:
            for i in range(length):
                total += np.float64(rows[r, i])
        middle = total / length
        for i in range(length):
            value = np.float64(rows[r, i]) - middle
            squares += value * value
        variance = squares / length
        mean[r] = middle
        inverse[r] = 1.0 / (math.sqrt(variance) + epsilon if mode == 2 else math.sqrt(variance + epsilon))


@numba.njit(nogil=True, cache=True)
def _scaled(begin, end, rows, scale, shift, out):
    for r in range(begin, end):
        for i in range(rows.shape[1]):
            out[r, i] = rows[r, i] * scale[r] + shift[r]


@numba.njit(nogil=True, cache=True)
def _response(begin, end, volume, size, alpha, power, bias, out):
    """Local response norm of items (N, C, S), item by item."""
    channels, length = volume.shape[1:]
    for n in range(begin, end):
        for c in range(channels):
            low, high = max(0, c - (size - 1) // 2), min(channels, c + size // 2 + 1)
            for i in range(length):
                total = 0.0
                for k in range(low, high):
                    total += np.float64(volume[n, k, i]) ** 2
                out[n, c, i] = volume[n, c, i] / (bias + alpha / size * total) ** power


def run(
    x: Array,
    gamma: Array | None = None,
    beta: Array | None = None,
    *,
    kind: str = "instance",
    groups: int = 0,
    axes: Sequence[int] = (-1,),
    epsilon: float = 1e-5,
    activation: tuple[str, float, float] = ("none", 0.0, 0.0),
    p: int = 2,
    response: tuple[int, float, float, float] = (5, 1e-4, 0.75, 1.0),
    moments: bool = False,
    layout: str = "linear",
) -> Array | tuple[Array, Array, Array]:
    del layout  # how the native library keeps a volume
    if kind not in KINDS:
        raise UsageError(f"norm3d has no kind {kind!r}; it has {', '.join(KINDS)}")
    given = np.ascontiguousarray(x, np.float64 if x.dtype == np.float64 else np.float32)
    if kind in LAYER_MODES:
        made = _over_axes(given, gamma, beta, kind, axes, epsilon, p)
        return (made[0].astype(x.dtype), *made[1:]) if moments else made[0].astype(x.dtype)
    if kind == "response":
        out = np.empty((*given.shape[:2], int(np.prod(given.shape[2:]))), given.dtype)
        in_parts(_response, given.shape[0], given.reshape(out.shape), *response, out)
        return out.reshape(x.shape).astype(x.dtype)
    out = _by_channel(given, gamma, beta, groups if kind == "instance" else None, epsilon)
    name, alpha, high = activation
    return activate(name, out, alpha, high).astype(x.dtype)


def _by_channel(x: Array, gamma: Array | None, beta: Array | None, groups: int | None, epsilon: float) -> Array:
    """Instance and group norms, and (groups is None) affines: each channel of each item a scale and a shift."""
    out = np.empty_like(x)
    if not x.size:
        return out
    batch, channels = x.shape[:2]
    scale = np.ones((batch, channels)) * (1.0 if gamma is None else gamma.astype(np.float64))
    shift = np.zeros((batch, channels)) + (0.0 if beta is None else beta.astype(np.float64))
    if groups is not None:
        rows = x.reshape(batch * (groups or channels), -1)
        mean, inverse = np.empty(len(rows)), np.empty(len(rows))
        in_parts(_moments, len(rows), rows, _GROUP, epsilon, 2, mean, inverse)
        wide = [np.repeat(v.reshape(batch, -1), channels // (groups or channels), axis=1) for v in (mean, inverse)]
        scale = scale * wide[1]
        shift = shift - wide[0] * scale
    flat = x.reshape(batch * channels, -1)
    in_parts(_scaled, len(flat), flat, scale.ravel(), shift.ravel(), out.reshape(flat.shape))
    return out


def _over_axes(
    x: Array, gamma: Array | None, beta: Array | None, kind: str, axes: Sequence[int], epsilon: float, p: int
) -> tuple[Array, Array, Array]:
    inner = sorted(axis % x.ndim for axis in axes)
    order = [axis for axis in range(x.ndim) if axis not in inner] + inner
    turned = np.ascontiguousarray(x.transpose(order))
    rows = turned.reshape(-1, int(np.prod([x.shape[axis] for axis in inner])))
    mean, inverse, out = np.empty(len(rows)), np.empty(len(rows)), np.empty_like(rows)
    in_parts(_moments, len(rows), rows, LAYER_MODES[kind], epsilon, p, mean, inverse)
    in_parts(_scaled, len(rows), rows, inverse, -mean * inverse, out)
    normed = out.reshape(turned.shape).transpose(np.argsort(order))
    kept = [1 if axis in inner else x.shape[axis] for axis in range(x.ndim)]
    made = normed * (1 if gamma is None else gamma.astype(x.dtype)) + (0 if beta is None else beta.astype(x.dtype))
    return made, mean.reshape(kept).astype(x.dtype), inverse.reshape(kept).astype(x.dtype)
