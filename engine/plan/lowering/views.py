"""Operators that only look at memory in another way, and Concat."""

from __future__ import annotations

from dataclasses import replace

import onnx_ir as ir

from voxelrt.kernels.common import capi, native
from voxelrt.plan.lowering.attributes import integer
from voxelrt.plan.lowering.builder import Builder, Unsupported, dims_of, dtype_of, lowers
from voxelrt.plan.lowering.fusion import concat_is_deferrable
from voxelrt.plan.schedule import BLOCKED16, LINEAR, Operand


@lowers("Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity")
def reshape(b: Builder, node: ir.Node) -> None:
    """The same numbers with other dims. A volume that keeps its dims keeps its layout too."""
    x = node.inputs[0]
    assert x is not None
    if len(node.outputs) > 1 and any(o.uses() or b.is_output(o) for o in node.outputs[1:]):
        raise Unsupported("the second output (a mask) is not made")
    trains = node.inputs[2] if node.op_type == "Dropout" and len(node.inputs) > 2 else None
    if trains is not None and b.need_constant(trains, "whether Dropout trains").any():
        raise Unsupported("training mode")
    out = node.outputs[0]
    if dims_of(x) == dims_of(out):
        b.alias(out, b.value(x))
    else:
        b.alias(out, b.linear(x).view(dims_of(out)))


@lowers("BitCast")
def bit_cast(b: Builder, node: ir.Node) -> None:
    """The same bytes as another dtype of the same size."""
    x, out = node.inputs[0], node.outputs[0]
    assert x is not None
    source = b.linear(x)
    if source.itemsize != capi.numpy_dtype(dtype_of(out)).itemsize:
        raise Unsupported("a dtype of another size")
    b.alias(out, replace(source, dtype=dtype_of(out)))


@lowers("Concat")
def concat(b: Builder, node: ir.Node) -> None:
    """Copies into slices of the result; or nothing, where one convolution reads both halves."""
    inputs = [v for v in node.inputs if v is not None]
    out = node.outputs[0]
    if concat_is_deferrable(b, node):
        b.defer_concat(out, inputs[0], inputs[1])
        return
    axis = integer(node, "axis", 0) % max(1, len(dims_of(out)))
    layout = BLOCKED16 if _join_as_blocked(b, inputs, axis) else LINEAR
    target = b.result(out, layout)
    inner = axis + 5 - len(dims_of(out)) if layout == BLOCKED16 and axis > 1 else axis  # unit axes before space
    start = 0
    for value in inputs:
        source = b.blocked(value) if layout == BLOCKED16 else b.linear(value)
        if source.count:
            b.step("copy", [source], [_slice(target, inner, start, source)], reserved=0)
        start += dims_of(value)[axis]


def _join_as_blocked(b: Builder, values: list[ir.Value], axis: int) -> bool:
    """Whether all values are blocked already and, along the channels, all but the last end with a block."""
    whole = axis != 1 or all(dims_of(v)[1] % native.BLOCK == 0 for v in values[:-1])
    return whole and all(b.is_blocked(v) for v in values)


def _slice(target: Operand, axis: int, start: int, like: Operand) -> Operand:
    step = target.strides[axis]
    offset = start // native.BLOCK * step if target.layout == BLOCKED16 and axis == 1 else start * step
    return target.view(like.dims, target.strides, offset)
