"""norm3d, obviously: each norm as its formula says, in float64."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from voxelrt.kernels.common.activation import activate
from voxelrt.kernels.common.kernel import Array


def _channels(vector: Array | None, x: Array, fill: float) -> Array:
    """A vector over the channels (C) or over batch items and channels (N, C), to be multiplied with x."""
    if vector is None:
        return np.full((1,) * x.ndim, fill)
    shape = (*((1,) if vector.ndim == 1 else ()), *vector.shape, *(1,) * (x.ndim - 2))
    return vector.astype(np.float64).reshape(shape)


def _grouped(x: Array, groups: int, epsilon: float) -> Array:
    groups = groups or x.shape[1]
    if x.size == 0:
        return x
    rows = x.reshape(x.shape[0], groups, -1)
    mean = rows.mean(axis=-1, keepdims=True)
    variance = ((rows - mean) ** 2).mean(axis=-1, keepdims=True)
    normed: Array = (rows - mean) / np.sqrt(variance + epsilon)
    return normed.reshape(x.shape)


def _response(x: Array, size: int, alpha: float, beta: float, bias: float) -> Array:
    out = np.empty_like(x)
    for c in range(x.shape[1]):
        near = x[:, max(0, c - (size - 1) // 2) : c + size // 2 + 1]
        out[:, c] = x[:, c] / (bias + alpha / size * (near**2).sum(axis=1)) ** beta
    return out


def _over_axes(x: Array, kind: str, axes: tuple[int, ...], epsilon: float, p: int) -> tuple[Array, Array, Array]:
    mean = x.mean(axis=axes, keepdims=True)
    deviation = np.sqrt(((x - mean) ** 2).mean(axis=axes, keepdims=True))
    if kind == "layer":
        inverse = 1 / np.sqrt(deviation**2 + epsilon)
    elif kind == "mean_variance":
        inverse = 1 / (deviation + epsilon)
    elif kind == "rms":
        mean, inverse = np.zeros_like(mean), 1 / np.sqrt((x**2).mean(axis=axes, keepdims=True) + epsilon)
    else:
        size = (np.abs(x) ** p).sum(axis=axes, keepdims=True) ** (1 / p)
        mean, inverse = np.zeros_like(mean), np.where(size == 0, 0.0, 1 / np.where(size == 0, 1.0, size))
    return (x - mean) * inverse, mean, inverse


def norm3d(
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
    del layout
    x64 = x.astype(np.float64)
    if kind in ("instance", "affine"):
        y = _grouped(x64, groups, epsilon) if kind == "instance" else x64
        y = y * _channels(gamma, x, 1.0) + _channels(beta, x, 0.0)
        return activate(activation[0], y, *activation[1:])
    if kind == "response":
        return _response(x64, *response)
    normed, mean, inverse = _over_axes(x64, kind, tuple(axes), epsilon, p)
    y = normed * (1.0 if gamma is None else gamma.astype(np.float64))
    y = y + (0.0 if beta is None else beta.astype(np.float64))
    return (y, mean, inverse) if moments else y
