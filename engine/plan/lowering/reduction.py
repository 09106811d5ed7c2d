"""Reductions, arg extrema, running sums, softmax."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir

from voxelrt.kernels.common import capi
from voxelrt.kernels.reduce.codes import REDUCTIONS
from voxelrt.kernels.softmax.codes import FUNCTIONS
from voxelrt.plan.lowering.attributes import integer, integers
from voxelrt.plan.lowering.builder import Builder, Unsupported, dims_of, dtype_of, lowers, volume_dims
from voxelrt.plan.lowering.elementwise import binary_step
from voxelrt.plan.schedule import BLOCKED16


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
    if b.is_blocked(x):
        _reduce_volume(b, node, over)
        return
    source = b.linear(x)
    kept = [1 if i in over else d for i, d in enumerate(dims_of(x))]
    target = b.result(node.outputs[0])
    b.step("reduce", [source], [target.view(kept)], flops=source.count, op=REDUCTIONS.index(node.op_type[6:]))


def _reduce_volume(b: Builder, node: ir.Node, over: set[int]) -> None:
    """Reduce a blocked volume: into a linear result where channels go, else into a blocked one."""
    x, out = node.inputs[0], node.outputs[0]
    assert x is not None
    source, kept = b.blocked(x), reduced_volume(x, over)
    params: dict[str, Any] = {"flops": source.count, "op": REDUCTIONS.index(node.op_type[6:])}
    if kept[1] != source.dims[1]:
        b.step("reduce", [source], [b.result(out).view(kept)], **params)
    elif len(dims_of(out)) == len(dims_of(x)):
        b.step("reduce", [source], [b.result(out, BLOCKED16)], **params)
    else:
        made = b.temporary(kept, source.dtype, BLOCKED16)
        b.step("reduce", [source], [made], **params)
        b.step("copy", [made], [b.result(out).view(kept)], reserved=0)


def reduced_volume(x: ir.Value, over: set[int]) -> tuple[int, ...]:
    """The dims of a volume after axes of the value are reduced to one."""
    dims = dims_of(x)
    return volume_dims([1 if i in over else n for i, n in enumerate(dims)])


@lowers("ArgMax", "ArgMin")
def arg(b: Builder, node: ir.Node) -> None:
    """ArgMax and ArgMin along one axis."""
    x = node.inputs[0]
    assert x is not None
    axis = integer(node, "axis", 0) % max(1, len(dims_of(x)))
    kept = [1 if i == axis else d for i, d in enumerate(dims_of(x))]
    target = b.result(node.outputs[0])
    blocked = axis == 1 and kept != list(dims_of(x)) and b.is_blocked(x)
    b.step(
        "reduce.arg",
        [b.blocked(x) if blocked else b.linear(x)],
        [target.view(reduced_volume(x, {axis}) if blocked else kept)],
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


@lowers("LpNormalization")
def lp_normalization(b: Builder, node: ir.Node) -> None:
    """Each line divided by its norm; a line of zeros stays one."""
    x = node.inputs[0]
    assert x is not None
    source, dtype = b.linear(x), dtype_of(x)
    axis = integer(node, "axis", -1) % max(1, len(source.dims))
    norm, guarded = (b.temporary([1 if i == axis else n for i, n in enumerate(source.dims)], dtype) for _ in range(2))
    b.step("reduce", [source], [norm], op=REDUCTIONS.index(f"L{integer(node, 'p', 2)}"))
    least = ml_dtypes.finfo(capi.numpy_dtype(dtype)).tiny  # type: ignore[no-untyped-call]
    binary_step(b, "Max", norm, b.weight(np.full(1, least, capi.numpy_dtype(dtype))), guarded)
    binary_step(b, "Div", source, guarded, b.result(node.outputs[0]))
