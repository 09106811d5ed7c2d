"""Slabs of planes for a large upsampled volume that one convolution reads: it need not exist whole.

The last decoder stage of a U-Net holds three volumes at the network's full size: the upsampled one, the skip and the
result. Where a transposed convolution's taps do not overlap, its output is made a few planes at a time, each slab read
by the convolution before the next is made. Tiles begin at the same planes, so each has the same bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from voxelrt.kernels.common import native
from voxelrt.kernels.conv3d.algorithm import SHARED
from voxelrt.kernels.elementwise.codes import BINARY, UNARY
from voxelrt.plan.lowering.builder import refusal_of
from voxelrt.plan.memory import live_bytes
from voxelrt.plan.schedule import BLOCKED16, Kind, Operand, Step, Variant, dense_strides, storage_bytes

LARGE = 64 << 20  # bytes of an upsampled volume from which it is made in slabs
PLANES = 32  # of the result in a slab: a multiple of every tile; what slabs make twice is an eighth of the upsampling
WORTH = 16 << 20  # bytes of the arena that must be saved
UPSAMPLING = ("conv_transpose3d.direct", "conv_transpose3d.bf16")
READING = ("conv3d.winograd", "conv3d.direct", "conv3d.bf16")


def in_slabs(variant: Variant) -> Variant:
    """The same schedule with its largest upsampled volumes in slabs, where that makes its arena smaller."""
    index = 0
    while index < len(variant.steps):
        pair = _pair(variant, index)
        made = None if pair is None else _split(variant, pair)
        if made is not None and live_bytes(made) + WORTH <= live_bytes(variant):
            variant = made
        else:
            index += 1
    return variant


@dataclass(frozen=True)
class _Pair:
    """An upsampling step and the convolution that alone reads what it makes; ``first``, ``second``: their places."""

    first: int
    second: int
    up: Step
    conv: Step
    which: int  # of the convolution's inputs
    upsampled: dict[str, Any]
    convolved: dict[str, Any]


def _pair(variant: Variant, index: int) -> _Pair | None:
    up = variant.steps[index]
    if up.kernel not in UPSAMPLING or up.guards:
        return None
    made, source = up.outputs[0], up.inputs[0]
    if made is None or source is None or made.kind != Kind.ARENA or made.inner or made.bytes < LARGE:
        return None
    readers = [i for i, step in enumerate(variant.steps) if any(_same(o, made) for o in step.operands)]
    if len(readers) != 2 or readers[0] != index:
        return None
    conv = variant.steps[readers[1]]
    out = conv.outputs[0] if conv.outputs else None
    if conv.kernel not in READING or conv.guards or out is None or out.layout != BLOCKED16 or out.dims[2] < 2 * PLANES:
        return None
    between = [o for step in variant.steps[index + 1 : readers[1]] for o in step.outputs if o is not None]
    which = [i for i, o in enumerate(conv.inputs[:2]) if o is not None and _same(o, made)]
    if len(which) != 1 or any(_same(o, read) for o in between for read in up.operands):
        return None
    upsampled = native.kernels()[up.kernel].unpack(up.params)
    convolved = native.kernels()[conv.kernel].unpack(conv.params)
    apart = upsampled["kernel"][0] == upsampled["stride"][0] and upsampled["dilation"][0] == 1
    whole = not any(upsampled[name][0] for name in ("pad_begin", "pad_end", "output_padding"))
    plain = convolved["stride"][0] == convolved["dilation"][0] == 1 and convolved["algorithm"] != SHARED
    return _Pair(index, readers[1], up, conv, which[0], upsampled, convolved) if apart and whole and plain else None


def _same(a: Operand, b: Operand) -> bool:
    return a.kind == b.kind and a.slot == b.slot


def _split(variant: Variant, pair: _Pair) -> Variant | None:
    """The schedule with the pair in slabs; None where a kernel refuses one."""
    buffers = list(variant.buffers)
    steps = list(_slabs(pair, buffers))
    if any(refusal_of(s.kernel, s.params, s.inputs, s.outputs) is not None for s in steps):
        return None
    before = [s for i, s in enumerate(variant.steps[: pair.second]) if i != pair.first]
    return replace(variant, steps=[*before, *steps, *variant.steps[pair.second + 1 :]], buffers=buffers)


def _slabs(pair: _Pair, buffers: list[int]) -> Iterator[Step]:
    up, conv, factor = pair.up, pair.conv, pair.upsampled["stride"][0]
    source, made, out = up.inputs[0], up.outputs[0], conv.outputs[0]
    assert source is not None
    assert made is not None
    assert out is not None
    depth, planes, taps = out.dims[2], made.dims[2], pair.convolved["kernel"][0]
    sums = conv.outputs[1] if len(conv.outputs) > 1 else None
    sofar: Operand | None = None
    for start in range(0, depth, PLANES):
        stop = min(start + PLANES, depth)
        first = start - pair.convolved["pad_begin"][0]
        last = first + stop - start + taps - 1
        low, high = max(0, first), min(planes, last)
        begin, end = low // factor, -(-high // factor)
        note = f"planes {start} to {stop}"
        slab = _new((*made.dims[:2], (end - begin) * factor, *made.dims[3:]), made, buffers)
        yield replace(
            up,
            inputs=[_planes(source, begin, end), *up.inputs[1:]],
            outputs=[slab],
            note=note,
            flops=_share(up, source, begin, end),
        )
        inputs = [_planes(o, low, high) if o is not None and i in (0, 1) else o for i, o in enumerate(conv.inputs)]
        inputs[pair.which] = replace(
            _planes(slab, low - begin * factor, high - begin * factor), pending=_pending(conv.inputs[pair.which])
        )
        if len(inputs) > 4 and inputs[4] is not None:
            inputs[4] = _planes(inputs[4], start, stop)
        padding = {"pad_begin": low - first, "pad_end": last - high}
        params = {k: (padding[k], *v[1:]) if k in padding else v for k, v in pair.convolved.items()}
        outputs: list[Operand | None] = [_planes(out, start, stop), *conv.outputs[1:]]
        if sums is not None:
            outputs[1] = part = _new(sums.dims, sums, buffers)
        packed = native.kernels()[conv.kernel].pack(params)
        yield replace(
            conv, params=packed, inputs=inputs, outputs=outputs, note=note, flops=_share(conv, out, start, stop)
        )
        if sums is not None:
            if sofar is not None:
                total = sums if stop == depth else _new(sums.dims, sums, buffers)
                yield _added(sofar, part, total, conv)
                part = total
            sofar = part


def _planes(operand: Operand, start: int, stop: int) -> Operand:
    """Some planes of a blocked volume."""
    dims = (*operand.dims[:2], stop - start, *operand.dims[3:])
    return operand.view(dims, operand.strides, start * operand.strides[2])


def _new(dims: tuple[int, ...], like: Operand, buffers: list[int]) -> Operand:
    buffers.append(storage_bytes(dims, like.dtype, like.layout))
    strides = dense_strides(dims, like.layout)
    return replace(like, kind=Kind.ARENA, slot=len(buffers) - 1, dims=dims, strides=strides, inner=0, pending=None)


def _pending(operand: Operand | None) -> Any:
    return None if operand is None else operand.pending


def _share(step: Step, operand: Operand, start: int, stop: int) -> int:
    return step.flops * (stop - start) // operand.dims[2]


def _added(a: Operand, b: Operand, total: Operand, step: Step) -> Step:
    """A step that adds the sums of slabs."""
    params = {"op": BINARY.index("Add"), "post": UNARY.index("Identity"), "alpha": 0.0, "beta": 0.0}
    packed = native.kernels()["elementwise.binary"].pack(params)
    return Step("elementwise.binary", packed, [a, b], [total], step.nodes, "sums of slabs")
