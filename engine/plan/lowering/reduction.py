"""Reductions, arg extrema, running sums, softmax."""

from __future__ import annotations

import onnx_ir as ir

from voxelrt.kernels.reduce.codes import REDUCTIONS
from voxelrt.kernels.softmax.codes import FUNCTIONS
from voxelrt.plan.lowering.attributes import integer, integers
from voxelrt.plan.lowering.builder import Builder, Unsupported, dims_of, dtype_of, lowers


@lowers(*(f"Reduce{name}" for name in REDUCTIONS))
def reduce(b: Builder, node: ir.Node) -> None:
    """ReduceSum and its kin; axes from the attribute or a constant input."""
    x = node.inputs[0]
    assert x is not None
    rank = len(dims_of(x))
    axes = integers(node, "axes")
    if axes is None and len(node.inputs) > 1 and node.inputs[1] is not None:
        axes = tuple(int(v) for v in b.need_constant(node.inputs[1], "the axes").ravel())
    if not axes:
        if integer(node, "noop_with_empty_axes", 0):
            b.alias(node.outputs[0], b.linear(x))
            return
        axes = tuple(range(rank))
    over = {axis % rank for axis in axes} if rank else set()
    source = b.linear(x)
    kept = [1 if i in over else d for i, d in enumerate(dims_of(x))]
    target = b.result(node.outputs[0])
    b.step("reduce", [source], [target.view(kept)], flops=source.count, op=REDUCTIONS.index(node.op_type[6:]))


@lowers("ArgMax", "ArgMin")
def arg(b: Builder, node: ir.Node) -> None:
    """ArgMax and ArgMin along one axis."""
    x = node.inputs[0]
    assert x is not None
    axis = integer(node, "axis", 0) % max(1, len(dims_of(x)))
    kept = [1 if i == axis else d for i, d in enumerate(dims_of(x))]
    target = b.result(node.outputs[0])
    b.step(
        "reduce.arg",
        [b.linear(x)],
        [target.view(kept)],
        axis=axis,
        smallest=int(node.op_type == "ArgMin"),
        last=integer(node, "select_last_index", 0),
    )


@lowers("CumSum")
def cumsum(b: Builder, node: ir.Node) -> None:
    """CumSum along a constant axis."""
    x = node.inputs[0]
    assert x is not None
    if dtype_of(x) != dtype_of(node.outputs[0]):
        raise Unsupported("input and output differ in dtype")
    axis = int(b.need_constant(node.inputs[1], "the axis").ravel()[0]) % max(1, len(dims_of(x)))
    b.step(
        "reduce.cumsum",
        [b.linear(x)],
        [b.result(node.outputs[0])],
        axis=axis,
        exclusive=integer(node, "exclusive", 0),
        reverse=integer(node, "reverse", 0),
    )


@lowers("Softmax", "LogSoftmax", "Hardmax")
def softmax(b: Builder, node: ir.Node) -> None:
    """Softmax and its kin along one axis; over the channels a blocked volume stays blocked."""
    x = node.inputs[0]
    assert x is not None
    axis = integer(node, "axis", -1) % max(1, len(dims_of(x)))
    blocked = axis == 1 and b.is_blocked(x)
    source = b.blocked(x) if blocked else b.linear(x)
    target = b.result(node.outputs[0], source.layout)
    b.step("softmax", [source], [target], op=FUNCTIONS.index(node.op_type), axis=axis)
