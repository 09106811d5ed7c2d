"""Norms. Instance and group norms stay pending: a step computes a scale and a shift, who loads the value applies."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from voxelrt.kernels.common import native
from voxelrt.plan.lowering.attributes import integer, real
from voxelrt.plan.lowering.builder import Builder, Unsupported, dims_of, dtype_of, lowers, volume_dims

FLOAT32 = native.DTYPES["float32"]


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
    if dtype_of(x) != FLOAT32:
        raise Unsupported("instance and group norms are float32")
    dims = volume_dims(dims_of(x))
    source = b.value(x) if b.is_blocked(x) else b.volume(b.linear(x))
    scale, shift = (b.temporary(dims[:2], FLOAT32) for _ in range(2))
    vectors = [b.weight(_channels(b, v, dims[1])) if v is not None else None for v in (gamma, beta)]
    b.step("norm3d.statistics", [source, *vectors], [scale, shift], groups=groups, epsilon=epsilon)
    if source.pending is not None:  # a norm of a norm: the first is written
        source = b.blocked(x)
    b.pend(node.outputs[0], source, scale, shift)


def _channels(b: Builder, value: ir.Value, channels: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    array = b.need_constant(value, "the scale or bias of a norm")
    if array.shape != (channels,):
        raise Unsupported(f"a scale or bias of shape {array.shape} for {channels} channels")
    return np.asarray(array, np.float32)


@lowers("BatchNormalization")
def batch_norm(b: Builder, node: ir.Node) -> None:
    """BatchNormalization at inference: pending like the others, with a scale and shift known now."""
    x = node.inputs[0]
    assert x is not None
    if integer(node, "training_mode", 0) or len([o for o in node.outputs if o.name]) > 1:
        raise Unsupported("training mode")
    if dtype_of(x) != FLOAT32 or not 2 <= len(dims_of(x)) <= 5:
        raise Unsupported("batch norms are float32 volumes of at most three spatial axes")
    gamma, beta, mean, variance = (
        np.asarray(b.need_constant(v, "a vector of the norm"), np.float64) for v in node.inputs[1:5]
    )
    scale = gamma / np.sqrt(variance + real(node, "epsilon", 1e-5))
    batch = dims_of(x)[0]
    vectors = [np.tile(v.astype(np.float32), (batch, 1)) for v in (scale, beta - mean * scale)]
    source = b.value(x)
    if source.pending is not None:
        source = b.blocked(x) if b.is_blocked(x) else b.linear(x)
    b.pend(node.outputs[0], source, b.weight(vectors[0]), b.weight(vectors[1]))
