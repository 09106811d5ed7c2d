"""Operators that rearrange: Transpose, Expand, Tile, Split, Slice, Pad, DepthToSpace, SpaceToDepth. All are copies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from voxelrt.kernels.common import capi, native
from voxelrt.kernels.pad.codes import MODES
from voxelrt.plan.lowering.attributes import integer, integers, text
from voxelrt.plan.lowering.builder import Builder, Unsupported, dims_of, lowers
from voxelrt.plan.schedule import BLOCKED16, LINEAR, Operand, dense_strides


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
    held = b.value(x)
    if held.layout == LINEAR and len(held.dims) == len(dims) and transposed(held, order).contiguous:
        b.alias(node.outputs[0], transposed(held, order))  # it lies so already: both directions of a recurrent layer
        return
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
    if len(dims) > capi.MAX_RANK:
        raise Unsupported(f"repeats along axes that make {len(dims)} in all; at most {capi.MAX_RANK} are supported")
    copy(b, source.view(dims, strides), node.outputs[0])


def cut(b: Builder, x: ir.Value, ranges: Sequence[range], out: ir.Value) -> None:
    """Copy what a range of each axis picks. A blocked volume cut in space or at whole blocks of channels stays one."""
    ranges = [r if len(r) > 1 else range(r.start, r.start + 1) for r in ranges]
    if 0 in dims_of(out):
        b.result(out)
        return
    forward = all(r.step > 0 for r in ranges)
    if forward and b.is_blocked(x) and ranges[1].start % native.BLOCK == 0 and ranges[1].step == 1:
        volume = b.blocked(x)
        five = [*ranges[:2], *[range(1)] * (5 - len(ranges)), *ranges[2:]]
        starts = [five[0].start, five[1].start // native.BLOCK, *(r.start for r in five[2:])]
        b.step("copy", [_strided(volume, five, starts)], [b.result(out, BLOCKED16)], reserved=0)
        return
    source = b.linear(x)
    if forward:
        copy(b, _strided(source, ranges, [r.start for r in ranges]), out)
        return
    rest = [0] * (capi.MAX_RANK - len(ranges))
    start, step = ([r.start for r in ranges] + rest, [r.step for r in ranges] + rest)
    b.step("gather.slice", [source], [b.result(out)], start=start, step=step)


def _strided(source: Operand, ranges: Sequence[range], starts: Sequence[int]) -> Operand:
    offset = sum(start * stride for start, stride in zip(starts, source.strides, strict=True))
    strides = [stride * r.step for stride, r in zip(source.strides, ranges, strict=True)]
    return source.view([len(r) for r in ranges], strides, offset)


@lowers("Split")
def split(b: Builder, node: ir.Node) -> None:
    """Split: one copy a part."""
    x = node.inputs[0]
    assert x is not None
    axis = integer(node, "axis", 0) % max(1, len(dims_of(x)))
    start = 0
    for out in node.outputs:
        ranges = [range(n) for n in dims_of(x)]
        ranges[axis] = range(start, start + dims_of(out)[axis])
        cut(b, x, ranges, out)
        start = ranges[axis].stop


@lowers("Slice")
def slice_(b: Builder, node: ir.Node) -> None:
    """Slice with constant bounds; negative steps too."""
    x = node.inputs[0]
    assert x is not None
    given = [b.need_constant(v, "a bound") if v is not None else None for v in node.inputs[1:]]
    given += [None] * (4 - len(given))
    assert given[0] is not None
    assert given[1] is not None
    starts, ends = (np.asarray(v).ravel().tolist() for v in given[:2])
    axes = given[2].ravel().tolist() if given[2] is not None else list(range(len(starts)))
    steps = given[3].ravel().tolist() if given[3] is not None else [1] * len(starts)
    ranges = [range(n) for n in dims_of(x)]
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        n = dims_of(x)[axis]
        # Python would count an end below -n from the back again; with a negative step ONNX means "before 0" by it.
        stop = None if step < 0 and end < -n else int(end)
        ranges[axis] = range(n)[slice(int(start), stop, int(step))]
    cut(b, x, ranges, node.outputs[0])


@lowers("Pad")
def pad(b: Builder, node: ir.Node) -> None:
    """Pad with constant widths; negative ones are taken away first. A volume padded in space keeps its layout."""
    x = node.inputs[0]
    assert x is not None
    value = node.inputs[2] if len(node.inputs) > 2 else None
    mode = text(node, "mode", "constant")
    if mode not in MODES:
        raise Unsupported(f"mode {mode!r}")
    dims, pads = dims_of(x), _widths(b, node)
    zero = value is None or mode != "constant" or _is_zero(b.constant(value))
    if b.is_blocked(x) and zero and pads[:2] == [(0, 0)] * 2 and all(a >= 0 and z >= 0 for a, z in pads):
        source, target = b.blocked(x), b.result(node.outputs[0], BLOCKED16)
        pads = [*pads[:2], *[(0, 0)] * (5 - len(pads)), *pads[2:]]
        value = None
    else:
        kept = [n + min(0, a) + min(0, z) for n, (a, z) in zip(dims, pads, strict=True)]
        if min(kept, default=0) < 0:
            raise Unsupported("negative widths that take away more than there is")
        whole, target = b.linear(x), b.result(node.outputs[0])
        start = sum(max(0, -a) * stride for (a, _), stride in zip(pads, whole.strides, strict=True))
        source = whole.view(kept, whole.strides, start)
    b.step(
        "pad",
        [source, b.linear(value).view((1,)) if value is not None else None],
        [target],
        mode=MODES.index(mode),
        begin=[max(0, a) for a, _ in pads] + [0] * (capi.MAX_RANK - len(pads)),
    )


def _is_zero(array: NDArray[Any] | None) -> bool:
    return array is not None and not array.any()


def _widths(b: Builder, node: ir.Node) -> list[tuple[int, int]]:
    """How many elements Pad adds before and after each axis."""
    x = node.inputs[0]
    assert x is not None
    rank = len(dims_of(x))
    widths = b.need_constant(node.inputs[1], "the widths").ravel().tolist()
    axes: Sequence[int] = range(rank)
    if len(node.inputs) > 3 and node.inputs[3] is not None:
        axes = [a % rank for a in b.need_constant(node.inputs[3], "the axes").ravel().tolist()]
    pads = [(0, 0)] * rank
    for i, axis in enumerate(axes):
        pads[axis] = (int(widths[i]), int(widths[i + len(widths) // 2]))
    return pads


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
