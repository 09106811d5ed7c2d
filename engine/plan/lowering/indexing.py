"""Gathers, scatters, OneHot, Trilu, TopK; indices are run-time values, checked as they are read."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from voxelrt.kernels.common import capi
from voxelrt.kernels.gather.codes import REDUCTIONS
from voxelrt.plan.lowering.attributes import integer, text
from voxelrt.plan.lowering.builder import Builder, dims_of, dtype_of, lowers
from voxelrt.plan.schedule import Operand


def _inputs(b: Builder, node: ir.Node) -> list[Operand | None]:
    return [b.linear(v) if v is not None else None for v in node.inputs]


def _axis(node: ir.Node, extra: int = 0) -> int:
    x = node.inputs[0]
    assert x is not None
    return integer(node, "axis", 0) % max(1, len(dims_of(x)) + extra)


@lowers("Gather", "GatherElements")
def gather(b: Builder, node: ir.Node) -> None:
    """Gather and GatherElements along one axis."""
    kernel = "gather" if node.op_type == "Gather" else "gather.elements"
    b.step(kernel, _inputs(b, node), [b.result(node.outputs[0])], axis=_axis(node))


@lowers("GatherND")
def gather_nd(b: Builder, node: ir.Node) -> None:
    """GatherND."""
    b.step("gather.nd", _inputs(b, node), [b.result(node.outputs[0])], batch_dims=integer(node, "batch_dims", 0))


@lowers("ScatterElements", "ScatterND")
def scatter(b: Builder, node: ir.Node) -> None:
    """ScatterElements and ScatterND with any reduction."""
    kernel = "gather.scatter_elements" if node.op_type == "ScatterElements" else "gather.scatter_nd"
    reduction = REDUCTIONS.index(text(node, "reduction", "none"))
    b.step(kernel, _inputs(b, node), [b.result(node.outputs[0])], axis=_axis(node), reduction=reduction)


@lowers("OneHot")
def one_hot(b: Builder, node: ir.Node) -> None:
    """OneHot; the depth is the output's size along the axis."""
    indices, _, values = _inputs(b, node)
    axis = integer(node, "axis", -1) % (len(dims_of(node.outputs[0])) or 1)
    b.step("gather.onehot", [indices, values], [b.result(node.outputs[0])], axis=axis)


@lowers("Trilu")
def trilu(b: Builder, node: ir.Node) -> None:
    """The upper or lower triangle of each matrix, from a constant diagonal on."""
    x = node.inputs[0]
    assert x is not None
    given = node.inputs[1] if len(node.inputs) > 1 else None
    k = int(b.need_constant(given, "the diagonal").ravel()[0]) if given is not None else 0
    b.step("gather.trilu", [b.linear(x)], [b.result(node.outputs[0])], upper=integer(node, "upper", 1), k=k)


@lowers("TopK")
def top_k(b: Builder, node: ir.Node) -> None:
    """TopK; how many is the outputs' size along the axis. An output that nothing reads is made all the same."""
    x = node.inputs[0]
    assert x is not None
    axis = integer(node, "axis", -1) % max(1, len(dims_of(x)))
    outputs = [b.result(out) for out in node.outputs]
    b.step("topk", [b.linear(x)], outputs, axis=axis, smallest=int(not integer(node, "largest", 1)))


@lowers("EyeLike")
def eye_like(b: Builder, node: ir.Node) -> None:
    """EyeLike: a constant of the shape."""
    out = node.outputs[0]
    rows, columns = dims_of(out)
    eye = np.eye(rows, columns, integer(node, "k", 0), capi.numpy_dtype(dtype_of(out)))
    b.alias(out, b.weight(eye))
