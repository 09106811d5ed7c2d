"""QuantizeLinear, DequantizeLinear and QLinearMatMul."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from voxelrt.graph.quantised import left_to_convolutions
from voxelrt.kernels.common import capi
from voxelrt.kernels.elementwise.codes import BINARY, UNARY
from voxelrt.plan.lowering.arrangement import broadcast
from voxelrt.plan.lowering.attributes import integer
from voxelrt.plan.lowering.builder import Builder, Unsupported, dims_of, dtype_of, lowers
from voxelrt.plan.lowering.products import integer_product
from voxelrt.plan.schedule import Operand

FLOAT32, INT32 = capi.DTYPES["float32"], capi.DTYPES["int32"]


@lowers("QuantizeLinear", "DequantizeLinear")
def quantize(b: Builder, node: ir.Node) -> None:
    """By tensor, by axis or by block: scale and zero point are read with strides of zero."""
    x, scale = node.inputs[0], node.inputs[1]
    assert x is not None
    assert scale is not None
    if b.fuse and left_to_convolutions(node):  # they read the floats and round them on their way
        return
    dims = dims_of(x)
    axis = integer(node, "axis", 1)
    seen = _blocked_dims(dims, axis, integer(node, "block_size", 0)) if len(dims_of(scale)) > 1 else dims
    vectors = [None if v is None else _spread(b.linear(v), dims, seen, axis) for v in node.inputs[1:3]]
    target = b.result(node.outputs[0])
    kernel = "quantize.linear" if node.op_type == "QuantizeLinear" else "quantize.dequantize"
    b.step(kernel, [b.linear(x).view(seen), *vectors], [target.view(seen)], reserved=0)


def _blocked_dims(dims: Sequence[int], axis: int, block: int) -> tuple[int, ...]:
    """The dims with the blocked axis as two: blocks, and numbers in a block."""
    axis %= max(1, len(dims))
    if block < 1 or dims[axis] % block:
        raise Unsupported(f"blocks of {block} along an axis of {dims[axis]}")
    return (*dims[:axis], dims[axis] // block, block, *dims[axis + 1 :])


def _spread(operand: Operand, dims: Sequence[int], seen: Sequence[int], axis: int) -> Operand:
    if operand.count == 1:
        return operand.view(seen, [0] * len(seen))
    axis %= max(1, len(dims))
    if len(operand.dims) == 1:
        if operand.dims[0] != dims[axis]:
            raise Unsupported(f"{operand.dims[0]} scales for an axis of {dims[axis]}")
        return operand.view(seen, [operand.strides[0] if i == axis else 0 for i in range(len(seen))])
    if operand.dims != (*seen[: axis + 1], *seen[axis + 2 :]):
        raise Unsupported(f"scales of the shape {operand.dims}")
    return operand.view(seen, (*operand.strides[: axis + 1], 0, *operand.strides[axis + 1 :]))


@lowers("QLinearMatMul")
def quantized_matmul(b: Builder, node: ir.Node) -> None:
    """QLinearMatMul: the product in int32, both scales in float32, then rounded."""
    x, x_scale, x_zero, y, y_scale, y_zero, scale, zero = node.inputs[:8]
    assert x is not None
    assert y is not None
    target = b.result(node.outputs[0])
    dims = target.dims
    sums = b.temporary(dims, INT32)
    integer_product(b, x, y, [x_zero, y_zero], sums)
    scaled, real = b.temporary(dims, FLOAT32), b.temporary(dims, FLOAT32)
    rows = _single(b, x_scale, "a scale of rows")
    b.step("quantize.dequantize", [sums, rows.view(dims, [0] * len(dims))], [scaled], reserved=0)
    columns = broadcast(_real(b, y_scale), dims)
    b.step(
        "elementwise.binary",
        [scaled, columns],
        [real],
        op=BINARY.index("Mul"),
        post=UNARY.index("Identity"),
        alpha=0.0,
        beta=0.0,
    )
    assert zero is not None
    ends = [_single(b, scale, "a scale of the result"), b.linear(zero)]
    if ends[1].count != 1:
        raise Unsupported("a zero point for each row of the result")
    b.step("quantize.linear", [real, *(v.view(dims, [0] * len(dims)) for v in ends)], [target], reserved=0)


def _real(b: Builder, value: ir.Value | None) -> Operand:
    """A scale in float32."""
    assert value is not None
    operand = b.linear(value)
    if dtype_of(value) == FLOAT32:
        return operand
    target = b.temporary(operand.dims, FLOAT32)
    b.step("elementwise.cast", [operand], [target], reserved=0)
    return target


def _single(b: Builder, value: ir.Value | None, what: str) -> Operand:
    operand = _real(b, value)
    if operand.count != 1:
        raise Unsupported(f"{what} that is not one number")
    return operand
