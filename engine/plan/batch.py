"""The batch as a run-time loop bound: found by lowering at a batch of one and of two and comparing.

Where the two schedules have the same steps, parameters and memory, and every operand either keeps its dims or doubles
its first, the batch can be chosen at run time: the executor multiplies those first dims.
"""

from __future__ import annotations

from dataclasses import replace

from voxelrt.plan.schedule import Io, Operand, Pending, Variant


def mark_batched(one: Variant, two: Variant) -> bool:
    """Mark the operands of ``one`` that carry the batch; False (and unchanged) where the batch cannot vary."""
    if len(one.steps) != len(two.steps) or len(one.buffers) != len(two.buffers):
        return False
    ios = [_io(a, b) for a, b in zip((*one.inputs, *one.outputs), (*two.inputs, *two.outputs), strict=True)]
    marked: list[tuple[list[Operand | None], list[Operand | None]]] = []
    for a, b in zip(one.steps, two.steps, strict=True):
        if a.guards != b.guards:
            return False
        if (a.kernel, a.params, len(a.inputs), len(a.outputs)) != (b.kernel, b.params, len(b.inputs), len(b.outputs)):
            return False
        try:
            inputs = [_operand(x, y) for x, y in zip(a.inputs, b.inputs, strict=True)]
            outputs = [_operand(x, y) for x, y in zip(a.outputs, b.outputs, strict=True)]
        except _Differs:
            return False
        marked.append((inputs, outputs))
    if any(io is None for io in ios):
        return False
    for step, (inputs, outputs) in zip(one.steps, marked, strict=True):
        step.inputs, step.outputs = inputs, outputs
    found = [io for io in ios if io is not None]
    one.inputs, one.outputs = found[: len(one.inputs)], found[len(one.inputs) :]
    return True


class _Differs(Exception):  # noqa: N818 - control flow inside this file
    """Two operands differ in more than the batch."""


def _io(a: Io, b: Io) -> Io | None:
    if a.dims == b.dims:
        return a
    if a.dims and b.dims == (2 * a.dims[0], *a.dims[1:]):
        return replace(a, batched=True)
    return None


def _operand(a: Operand | None, b: Operand | None) -> Operand | None:
    if a is None or b is None:
        if a is not b:
            raise _Differs
        return None
    same = (a.kind, a.slot, a.dtype, a.layout, a.inner) == (b.kind, b.slot, b.dtype, b.layout, b.inner)
    if not same or (a.pending is None) != (b.pending is None) or len(a.dims) != len(b.dims):
        raise _Differs
    batched = a.dims != b.dims
    if batched and b.dims != (2 * a.dims[0], *a.dims[1:]):
        raise _Differs
    if any(d > 1 and x != y for d, x, y in zip(b.dims[1:], a.strides[1:], b.strides[1:], strict=True)):
        raise _Differs
    pending = a.pending
    if a.pending is not None and b.pending is not None:
        scale, shift = _operand(a.pending.scale, b.pending.scale), _operand(a.pending.shift, b.pending.shift)
        if scale is None or shift is None or a.pending.slope != b.pending.slope:
            raise _Differs
        pending = Pending(scale, shift, a.pending.slope)
    # With one sample the first stride says nothing; the schedule at two has the true one.
    strides = (b.strides[0], *a.strides[1:]) if batched else a.strides
    return replace(a, batched=batched, pending=pending, strides=strides)
