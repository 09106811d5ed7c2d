"""Products of matrices. A constant right-hand side is packed; a bias and an activation behind it are taken in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from voxelrt.kernels.common import capi
from voxelrt.plan.lowering.arrangement import broadcast
from voxelrt.plan.lowering.attributes import integer, real
from voxelrt.plan.lowering.builder import Activation, Builder, Unsupported, dims_of, dtype_of, lowers
from voxelrt.plan.lowering.fusion import fused_activation
from voxelrt.plan.schedule import Operand

PACKED = tuple(capi.DTYPES[name] for name in ("float32", "float16", "bfloat16"))
FLOATS = (*PACKED, capi.DTYPES["float64"])


def product_params(
    packed: bool = False,
    transposed: bool = False,
    alpha: float = 1.0,
    beta: float = 1.0,
    activation: Activation | None = None,
) -> dict[str, Any]:
    """The parameters of a matmul step."""
    act = activation or Activation()
    return {
        "packed": packed,
        "transposed": transposed,
        "alpha": alpha,
        "beta": beta,
        "activation": act.kind,
        "activation_alpha": act.alpha,
        "activation_beta": act.beta,
    }


def exchanged(operand: Operand) -> Operand:
    """The last two axes the other way round."""
    d, s = operand.dims, operand.strides
    return operand.view((*d[:-2], d[-1], d[-2]), (*s[:-2], s[-1], s[-2]))


def _right(b: Builder, value: ir.Value, transposed: bool, batch: Sequence[int]) -> tuple[Operand, bool]:
    """The right-hand side with these batch axes, or packed where it is a constant matrix of a float."""
    array = b.constant(value)
    if array is not None and array.ndim == 2 and array.size and dtype_of(value) in PACKED:
        return b.weight(array, "matmul", **product_params(True, transposed)), True
    operand = b.linear(value)
    if len(operand.dims) == 1:
        operand = operand.view((*operand.dims, 1))
    operand = exchanged(operand) if transposed else operand
    return broadcast(operand, (*batch, *operand.dims[-2:])), False


def _bias_behind(b: Builder, value: ir.Value) -> tuple[np.ndarray[Any, Any] | None, ir.Value]:
    """The constant of an Add behind a value, absorbed, and the Add's value; nothing where there is none."""
    node = b.next_node(value, "Add")
    if node is None:
        return None, value
    other = node.inputs[1] if node.inputs[0] is value else node.inputs[0]
    array = b.constant(other)
    if array is None or dims_of(node.outputs[0]) != dims_of(value) or other is value:
        return None, value
    b.absorb(node)
    return array, node.outputs[0]


@lowers("MatMul")
def matmul(b: Builder, node: ir.Node) -> None:
    """MatMul of any ranks, the Add of a constant and the activation behind it."""
    x, y = node.inputs[0], node.inputs[1]
    assert x is not None
    assert y is not None
    left = b.linear(x)
    left = left.view((1, *left.dims)) if len(left.dims) == 1 else left
    right_dims = dims_of(y) if len(dims_of(y)) > 1 else (*dims_of(y), 1)
    batch = np.broadcast_shapes(left.dims[:-2], right_dims[:-2])
    right, packed = _right(b, y, False, batch)
    dims = (*batch, left.dims[-2], right_dims[-1])
    out, bias, activation = node.outputs[0], None, Activation()
    if dtype_of(out) in FLOATS:
        if len(dims_of(out)) == len(dims):
            bias, out = _bias_behind(b, out)
        activation, out = fused_activation(b, out)
    addend = None if bias is None else broadcast(b.weight(bias), dims)
    target = b.result(out).view(dims)
    b.step(
        "matmul",
        [broadcast(left, (*batch, *left.dims[-2:])), right, addend],
        [target],
        flops=2 * target.count * left.dims[-1],
        **product_params(packed, activation=activation),
    )


@lowers("Gemm")
def gemm(b: Builder, node: ir.Node) -> None:
    """Gemm, and the activation behind it."""
    x, y = node.inputs[0], node.inputs[1]
    assert x is not None
    assert y is not None
    left = exchanged(b.linear(x)) if integer(node, "transA", 0) else b.linear(x)
    right, packed = _right(b, y, bool(integer(node, "transB", 0)), ())
    c = node.inputs[2] if len(node.inputs) > 2 else None
    out, activation = node.outputs[0], Activation()
    if dtype_of(out) in FLOATS:
        activation, out = fused_activation(b, out)
    target = b.result(out)
    b.step(
        "matmul",
        [left, right, None if c is None else broadcast(b.linear(c), target.dims)],
        [target],
        flops=2 * target.count * left.dims[-1],
        **product_params(packed, False, real(node, "alpha", 1.0), real(node, "beta", 1.0), activation),
    )


@lowers("MatMulInteger")
def matmul_integer(b: Builder, node: ir.Node) -> None:
    """MatMulInteger with zero points of a tensor, of rows of A or of columns of B."""
    x, y = node.inputs[0], node.inputs[1]
    assert x is not None
    assert y is not None
    integer_product(
        b, x, y, [node.inputs[i] if len(node.inputs) > i else None for i in (2, 3)], b.result(node.outputs[0])
    )


def integer_product(b: Builder, x: ir.Value, y: ir.Value, zeros: Sequence[ir.Value | None], target: Operand) -> None:
    """A step of (x - zero)·(y - zero) into int32 memory."""
    left, right = b.linear(x), b.linear(y)
    left = left.view((1, *left.dims)) if len(left.dims) == 1 else left
    right = right.view((*right.dims, 1)) if len(right.dims) == 1 else right
    batch = np.broadcast_shapes(left.dims[:-2], right.dims[:-2])
    dims = (*batch, left.dims[-2], right.dims[-1])
    offsets = [
        None if zero is None else _zero_point(b.linear(zero), (*batch, size), axis)
        for zero, size, axis in zip(zeros, (dims[-2], dims[-1]), (-1, -2), strict=True)
    ]
    b.step(
        "matmul.integer",
        [broadcast(left, (*batch, *left.dims[-2:])), broadcast(right, (*batch, *right.dims[-2:])), *offsets],
        [target.view(dims)],
        flops=2 * target.count * left.dims[-1],
        reserved=0,
    )


def _zero_point(operand: Operand, dims: Sequence[int], axis: int) -> Operand:
    """One number a row or column: a scalar, a vector, or a matrix with one axis of size one."""
    if operand.count == 1:
        return operand.view(dims, [0] * len(dims))
    if len(operand.dims) > 1:
        if operand.dims[axis] != 1:
            raise Unsupported(f"a zero point of the shape {operand.dims}")
        kept = list(operand.dims)
        del kept[axis]
        operand = operand.view(kept)
    return broadcast(operand, dims)
