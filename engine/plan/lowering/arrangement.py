"""Operators that rearrange: Transpose, Expand, Tile, Split, Slice, Pad, DepthToSpace, SpaceToDepth. All are copies."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from voxelrt.kernels.common import native
from voxelrt.kernels.pad.codes import MODES
from voxelrt.plan.lowering.attributes import integer, integers, text
from voxelrt.plan.lowering.builder import Builder, Unsupported, dims_of, lowers
from voxelrt.plan.schedule import Operand, dense_strides


def transposed(operand: Operand, order: Sequence[int]) -> Operand:
    """A view with the axes in another order."""
    return operand.view([operand.dims[i] for i in order], [operand.strides[i] for i in order])


def copy(b: Builder, source: Operand, out: ir.Value) -> None:
    """Copy a view into the memory of a value; the view's dims may be a refinement of the value's."""
    target = b.result(out)
    b.step("copy", [source], [target.view(source.dims)], reserved=0)


@lowers("Transpose")
def transpose(b: Builder, node: ir.Node) -> None:
    """Transpose; one that only moves axes of size one is a view."""
    x = node.inputs[0]
    assert x is not None
    dims = dims_of(x)
    order = integers(node, "perm") or tuple(reversed(range(len(dims))))
    source = b.linear(x)
    if [i for i in order if dims[i] != 1] == [i for i in range(len(dims)) if dims[i] != 1]:
        b.alias(node.outputs[0], source.view(dims_of(node.outputs[0])))
    else:
        copy(b, transposed(source, order), node.outputs[0])


@lowers("Expand")
def expand(b: Builder, node: ir.Node) -> None:
    """Expand: axes of one are read with a stride of zero."""
    x = node.inputs[0]
    assert x is not None
    copy(b, broadcast(b.linear(x), dims_of(node.outputs[0])), node.outputs[0])


def broadcast(operand: Operand, dims: Sequence[int]) -> Operand:
    """The operand spread to other dims, aligned at the right."""
    extra = len(dims) - len(operand.dims)
    own = [1] * extra + list(operand.dims)
    strides = [0] * extra + list(operand.strides)
    spread = [0 if n == 1 else s for n, s in zip(own, strides, strict=True)]
    return operand.view(dims, spread)


@lowers("Tile")
def tile(b: Builder, node: ir.Node) -> None:
    """Tile: every repeated axis becomes two, the outer with a stride of zero."""
    x = node.inputs[0]
    assert x is not None
    repeats = [int(v) for v in b.need_constant(node.inputs[1], "the repeats").ravel()]
    source = b.linear(x)
    dims, strides = [], []
    for n, stride, times in zip(source.dims, source.strides, repeats, strict=True):
        dims += [times, n] if times != 1 else [n]
        strides += [0, stride] if times != 1 else [stride]
    if len(dims) > native.MAX_RANK:
        raise Unsupported(f"repeats along axes that make {len(dims)} in all; at most {native.MAX_RANK} are supported")
    copy(b, source.view(dims, strides), node.outputs[0])


@lowers("Split")
def split(b: Builder, node: ir.Node) -> None:
    """Split: one copy a part."""
    x = node.inputs[0]
    assert x is not None
    source = b.linear(x)
    axis = integer(node, "axis", 0) % max(1, len(source.dims))
    start = 0
    for out in node.outputs:
        dims = dims_of(out)
        copy(b, source.view(dims, source.strides, start * source.strides[axis]), out)
        start += dims[axis]


@lowers("Slice")
def slice_(b: Builder, node: ir.Node) -> None:
    """Slice with constant bounds; negative steps too."""
    x = node.inputs[0]
    assert x is not None
    source = b.linear(x)
    given = [b.need_constant(v, "a bound") if v is not None else None for v in node.inputs[1:]]
    given += [None] * (4 - len(given))
    assert given[0] is not None
    assert given[1] is not None
    starts, ends = (np.asarray(v).ravel().tolist() for v in given[:2])
    axes = given[2].ravel().tolist() if given[2] is not None else list(range(len(starts)))
    steps = given[3].ravel().tolist() if given[3] is not None else [1] * len(starts)
    ranges = [range(n) for n in source.dims]
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        n = source.dims[axis]
        # Python would count an end below -n from the back again; with a negative step ONNX means "before 0" by it.
        stop = None if step < 0 and end < -n else int(end)
        ranges[axis] = range(n)[slice(int(start), stop, int(step))]
    rest = [0] * (native.MAX_RANK - len(ranges))
    target = b.result(node.outputs[0])
    if 0 in target.dims:
        return
    b.step(
        "gather.slice",
        [source],
        [target],
        start=[r.start for r in ranges] + rest,
        step=[r.step for r in ranges] + rest,
    )


@lowers("Pad")
def pad(b: Builder, node: ir.Node) -> None:
    """Pad with constant widths; negative ones are taken away first."""
    x = node.inputs[0]
    assert x is not None
    inputs = [*node.inputs, None, None, None][:4]
    source = b.linear(x)
    widths = b.need_constant(inputs[1], "the widths").ravel().tolist()
    axes: Sequence[int] = range(len(source.dims))
    if inputs[3] is not None:
        axes = [a % len(source.dims) for a in b.need_constant(inputs[3], "the axes").ravel().tolist()]
    pads = [(0, 0)] * len(source.dims)
    for i, axis in enumerate(axes):
        pads[axis] = (int(widths[i]), int(widths[i + len(widths) // 2]))
    dims = [n + min(0, a) + min(0, z) for n, (a, z) in zip(source.dims, pads, strict=True)]
    if min(dims, default=0) < 0:
        raise Unsupported("negative widths that take away more than there is")
    start = sum(max(0, -a) * stride for (a, _), stride in zip(pads, source.strides, strict=True))
    mode = text(node, "mode", "constant")
    if mode not in MODES:
        raise Unsupported(f"mode {mode!r}")
    b.step(
        "pad",
        [source.view(dims, source.strides, start), b.linear(inputs[2]).view((1,)) if inputs[2] is not None else None],
        [b.result(node.outputs[0])],
        mode=MODES.index(mode),
        begin=[max(0, a) for a, _ in pads] + [0] * (native.MAX_RANK - len(pads)),
    )


@lowers("DepthToSpace", "SpaceToDepth")
def depth_to_space(b: Builder, node: ir.Node) -> None:
    """Blocks of channels to blocks of pixels and back: a transpose of six axes."""
    x = node.inputs[0]
    assert x is not None
    source = b.linear(x)
    n, c, h, w = source.dims
    k = integer(node, "blocksize", 1)
    crd = text(node, "mode", "DCR") == "CRD"
    if node.op_type == "SpaceToDepth":
        dims, order = (n, c, h // k, k, w // k, k), (0, 1, 3, 5, 2, 4) if crd else (0, 3, 5, 1, 2, 4)
    elif not crd:
        dims, order = (n, k, k, c // (k * k), h, w), (0, 3, 4, 1, 5, 2)
    else:
        dims, order = (n, c // (k * k), k, k, h, w), (0, 1, 4, 2, 5, 3)
    copy(b, transposed(source.view(dims, dense_strides(dims)), order), node.outputs[0])
