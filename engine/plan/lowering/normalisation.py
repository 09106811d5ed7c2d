"""Norms. Instance and group norms stay pending: a step computes a scale and a shift, who loads the value applies."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from voxelrt.kernels.common import capi
from voxelrt.kernels.norm3d.cpu import LAYER_MODES
from voxelrt.plan.lowering.arrangement import broadcast, transposed
from voxelrt.plan.lowering.attributes import integer, integers, real
from voxelrt.plan.lowering.builder import Builder, Unsupported, dims_of, dtype_of, lowers, volume_dims
from voxelrt.plan.schedule import Operand

FLOAT32 = capi.DTYPES["float32"]
FLOAT64 = capi.DTYPES["float64"]
VOLUME_AXES = 5


@lowers("InstanceNormalization")
def instance_norm(b: Builder, node: ir.Node) -> None:
    """InstanceNormalization: statistics now, the affine when the value is loaded."""
    _statistics(b, node, 0, real(node, "epsilon", 1e-5))


@lowers("GroupNormalization")
def group_norm(b: Builder, node: ir.Node) -> None:
    """GroupNormalization with one scale and bias a channel (opset 21)."""
    _statistics(b, node, integer(node, "num_groups", 1), real(node, "epsilon", 1e-5))


def _statistics(b: Builder, node: ir.Node, groups: int, epsilon: float) -> None:
    x, gamma, beta = node.inputs[:3]
    assert x is not None
    channels = dims_of(x)[1]
    vectors = [_channels(b, v, channels, dtype_of(x)) for v in (gamma, beta)]
    if dtype_of(x) != FLOAT32 or len(dims_of(x)) > VOLUME_AXES:
        _grouped_rows(b, node, vectors, groups or channels, epsilon)
        return
    dims = volume_dims(dims_of(x))
    source = b.value(x) if b.is_blocked(x) else b.volume(b.linear(x))
    scale, shift = (b.temporary(dims[:2], FLOAT32) for _ in range(2))
    sums = b.sums_of(source)
    if sums is not None:
        voxels = int(np.prod(dims[2:]))
        b.step("norm3d.from_sums", [sums, *vectors], [scale, shift], groups=groups, epsilon=epsilon, voxels=voxels)
    else:
        b.step("norm3d.statistics", [source, *vectors], [scale, shift], groups=groups, epsilon=epsilon)
    if source.pending is not None:  # a norm of a norm: the first is written
        source = b.blocked(x)
    b.pend(node.outputs[0], source, scale, shift)


def _channels(b: Builder, value: ir.Value | None, channels: int, dtype: int) -> Operand | None:
    if value is None:
        return None
    if dims_of(value) != (channels,) or dtype_of(value) != dtype:
        raise Unsupported(f"a scale or bias of the shape {dims_of(value)} for {channels} channels, or of another dtype")
    return b.linear(value)


def _grouped_rows(b: Builder, node: ir.Node, vectors: Sequence[Operand | None], groups: int, epsilon: float) -> None:
    """Instance and group norms in the dtypes that have no pending affine: (N, groups, channels, voxels) by rows."""
    x = node.inputs[0]
    assert x is not None
    n, c = dims_of(x)[:2]
    if groups < 1 or c % groups:
        raise Unsupported(f"{groups} groups do not divide {c} channels")
    rows = (n, groups, c // groups, int(np.prod(dims_of(x)[2:])))
    spread = [None if v is None else v.view(rows, (0, c // groups, 1, 0)) for v in vectors]
    target = b.result(node.outputs[0])
    _layer_step(b, [b.linear(x).view(rows), *spread], [target.view(rows)], "layer", 2, epsilon)


def _layer_step(
    b: Builder,
    inputs: Sequence[Operand | None],
    outputs: Sequence[Operand | None],
    mode: str,
    axis: int,
    epsilon: float,
    p: int = 2,
) -> None:
    target = outputs[0]
    assert target is not None
    flops = 8 * target.count
    b.step("norm3d.layer", inputs, outputs, flops=flops, mode=LAYER_MODES[mode], axis=axis, p=p, epsilon=epsilon)


@lowers("LayerNormalization", "RMSNormalization")
def layer_norm(b: Builder, node: ir.Node) -> None:
    """LayerNormalization with its optional moments, and RMSNormalization."""
    x = node.inputs[0]
    assert x is not None
    dims = dims_of(x)
    axis = integer(node, "axis", -1) % max(1, len(dims))
    spread = [broadcast(b.linear(v), dims) if v is not None else None for v in node.inputs[1:3]]
    moments = [b.result(v) if v.name else None for v in node.outputs[1:3]]
    mode = "rms" if node.op_type == "RMSNormalization" else "layer"
    targets = [b.result(node.outputs[0]), *moments]
    _layer_step(b, [b.linear(x), *spread], targets, mode, axis, real(node, "epsilon", 1e-5))


def _over_axes(b: Builder, node: ir.Node, axes: Sequence[int], mode: str, epsilon: float, p: int = 2) -> None:
    """A norm over any axes: both sides are read with those axes last."""
    x = node.inputs[0]
    assert x is not None
    rank = len(dims_of(x))
    inner = sorted({axis % max(1, rank) for axis in axes})
    if not inner or inner[-1] >= rank:
        raise Unsupported(f"a norm over the axes {tuple(axes)} of {rank}")
    order = [i for i in range(rank) if i not in inner] + inner
    source, target = transposed(b.linear(x), order), transposed(b.result(node.outputs[0]), order)
    _layer_step(b, [source], [target], mode, rank - len(inner), epsilon, p)


@lowers("LpNormalization")
def lp_norm(b: Builder, node: ir.Node) -> None:
    """LpNormalization along one axis."""
    _over_axes(b, node, [integer(node, "axis", -1)], "lp", 0.0, integer(node, "p", 2))


@lowers("MeanVarianceNormalization")
def mean_variance_norm(b: Builder, node: ir.Node) -> None:
    """MeanVarianceNormalization: ε is added to the deviation, as ONNX's function body has it."""
    _over_axes(b, node, integers(node, "axes") or (0, 2, 3), "mean_variance", 1e-9)


@lowers("LRN")
def local_response(b: Builder, node: ir.Node) -> None:
    """LRN over neighbouring channels."""
    x = node.inputs[0]
    assert x is not None
    b.step(
        "norm3d.lrn",
        [b.linear(x)],
        [b.result(node.outputs[0])],
        size=integer(node, "size", 1),
        alpha=real(node, "alpha", 1e-4),
        beta=real(node, "beta", 0.75),
        bias=real(node, "bias", 1.0),
    )


@lowers("BatchNormalization")
def batch_norm(b: Builder, node: ir.Node) -> None:
    """BatchNormalization at inference: pending like the others where scale and shift are known now, else a step."""
    x = node.inputs[0]
    assert x is not None
    if integer(node, "training_mode", 0) or len([o for o in node.outputs if o.name]) > 1:
        raise Unsupported("training mode")
    known = [b.constant(v) for v in node.inputs[1:5]]
    epsilon = real(node, "epsilon", 1e-5)
    wide = FLOAT64 if dtype_of(x) == FLOAT64 else FLOAT32
    if any(v is None for v in known):
        channels = dims_of(x)[1:2]
        scale, shift = (b.temporary(channels, wide) for _ in range(2))
        vectors = [b.linear(v) for v in node.inputs[1:5] if v is not None]
        b.step("norm3d.fold", vectors, [scale, shift], epsilon=epsilon)
    else:
        gamma, beta, mean, variance = (np.asarray(v, np.float64) for v in known)
        scales = (gamma / np.sqrt(variance + epsilon)).astype(capi.numpy_dtype(wide))
        shifts = (beta - mean * scales).astype(capi.numpy_dtype(wide))
        if wide == FLOAT32 == dtype_of(x) and 2 <= len(dims_of(x)) <= VOLUME_AXES:
            _pend_constant(b, node, scales, shifts)
            return
        scale, shift = b.weight(scales), b.weight(shifts)
    source = b.linear(x)
    b.step("norm3d.apply", [source, scale, shift], [b.result(node.outputs[0])], activation=0, alpha=0.0, beta=0.0)


def _pend_constant(b: Builder, node: ir.Node, scale: np.ndarray, shift: np.ndarray) -> None:
    x = node.inputs[0]
    assert x is not None
    batch = dims_of(x)[0]
    source = b.value(x)
    if source.pending is not None:
        source = b.blocked(x) if b.is_blocked(x) else b.linear(x)
    vectors = [b.weight(np.tile(v, (batch, 1))) for v in (scale, shift)]
    b.pend(node.outputs[0], source, vectors[0], vectors[1])
