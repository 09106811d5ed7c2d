"""norm3d on the native library."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from voxelrt.errors import UsageError
from voxelrt.kernels.common import native
from voxelrt.kernels.common.activation import ACTIVATIONS
from voxelrt.kernels.common.kernel import Array

LAYER_MODES = {"layer": 0, "rms": 1, "mean_variance": 2, "lp": 3}
KINDS = ("instance", "affine", "response", *LAYER_MODES)


def _operand(array: Array, layout: str) -> native.Operand:
    if layout == "blocked":
        return native.Operand(native.to_blocked(array), native.BLOCKED16, array.shape[1])
    return native.Operand(array)


def _like(operand: native.Operand) -> native.Operand:
    array = operand.array
    return native.Operand(native.aligned_empty(array.shape, array.dtype), operand.layout, operand.channels)


def statistics(
    x: native.Operand, gamma: Array | None, beta: Array | None, *, groups: int, epsilon: float
) -> tuple[Array, Array]:
    """The scale and shift (N, C) of an instance or group norm of a volume in either layout."""
    channels = x.channels if x.layout == native.BLOCKED16 else x.array.shape[1]
    scale, shift = (native.aligned_empty((x.array.shape[0], channels), np.float32) for _ in range(2))
    native.run_kernel("norm3d.statistics", [x, gamma, beta], [scale, shift], groups=groups, epsilon=epsilon)
    return scale, shift


def _layer(
    x: Array, gamma: Array | None, beta: Array | None, kind: str, axes: Sequence[int], epsilon: float, p: int
) -> tuple[Array, Array, Array]:
    inner = sorted(axis % x.ndim for axis in axes)
    order = [axis for axis in range(x.ndim) if axis not in inner] + inner
    outer = x.ndim - len(inner)
    out = native.aligned_empty(x.shape, x.dtype)
    spread = [None if v is None else np.broadcast_to(v, x.shape).transpose(order) for v in (gamma, beta)]
    kept = [1 if axis in inner else x.shape[axis] for axis in range(x.ndim)]
    wide = np.float64 if x.dtype == np.float64 else np.float32
    moments = [native.aligned_empty([x.shape[axis] for axis in order[:outer]] + [1] * len(inner), wide) for _ in "mi"]
    native.run_kernel(
        "norm3d.layer",
        [x.transpose(order), *spread],
        [out.transpose(order), *moments],
        mode=LAYER_MODES[kind],
        axis=outer,
        p=p,
        epsilon=epsilon,
    )
    return out, moments[0].reshape(kept), moments[1].reshape(kept)


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
    if kind not in KINDS:
        raise UsageError(f"norm3d has no kind {kind!r}; it has {', '.join(KINDS)}")
    if kind in LAYER_MODES:
        result = _layer(x, gamma, beta, kind, axes, epsilon, p)
        return result if moments else result[0]
    if kind == "response":
        out = native.aligned_empty(x.shape, x.dtype)
        size, alpha, power, bias = response
        source = np.ascontiguousarray(x)
        native.run_kernel("norm3d.lrn", [source], [out], size=size, alpha=alpha, beta=power, bias=bias)
        return out
    volume = _operand(x, layout)
    if kind == "instance":
        scale, shift = statistics(volume, gamma, beta, groups=groups, epsilon=epsilon)
    else:
        one = np.ones(x.shape[1], x.dtype)
        scale, shift = (one if gamma is None else gamma), (one * 0 if beta is None else beta)
    target = _like(volume)
    name, alpha, high = activation
    native.run_kernel(
        "norm3d.apply", [volume, scale, shift], [target], activation=ACTIVATIONS[name], alpha=alpha, beta=high
    )
    return target.array if layout == "linear" else native.from_blocked(target.array, target.channels)
