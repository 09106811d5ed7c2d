"""lstm in Triton: LSTM, plain RNN and GRU with the reset after the product; a launch a step, both directions at once.

A program has 16 sequences and 16 units: all gates of these are columns of one product over the input and the last
state, and the cell's arithmetic follows in registers. States go to and fro between two buffers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import triton
import triton.language as tl

from voxelrt.errors import UnsupportedError
from voxelrt.kernels.common.gpu.program import Program, Tensor
from voxelrt.kernels.common.gpu.triton_activation import tanh
from voxelrt.kernels.common.gpu.triton_gates import add_product, gate, sigmoid
from voxelrt.kernels.common.kernel import Array
from voxelrt.kernels.lstm.codes import GATES

_ROWS, _UNITS, _DEPTH = 16, 16, 16
_LSTM, _GRU, _RNN = 0, 1, 2


@triton.jit
def _start(states, cells, h, c, count, BLOCK: tl.constexpr):
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    tl.store(states + i, tl.load(h + i, mask=i < count, other=0.0), mask=i < count)
    tl.store(cells + i, tl.load(c + i, mask=i < count, other=0.0), mask=i < count)


@triton.jit
def _clipped(value, clip, CLIP: tl.constexpr):
    if CLIP:
        value = tl.minimum(tl.maximum(value, -clip), clip)
    return value


@triton.jit
def _step(
    y,
    new,
    cells,
    old,
    x,
    w,
    r,
    b,
    lengths,
    peepholes,
    step,
    steps,
    batch,
    inputs,
    hidden,
    clip,
    CELL: tl.constexpr,
    BACKWARDS: tl.constexpr,
    PEEPHOLES: tl.constexpr,
    INPUT_FORGET: tl.constexpr,
    CLIP: tl.constexpr,
    GATES: tl.constexpr,
    WIDE: tl.constexpr,
    ROWS: tl.constexpr,
    UNITS: tl.constexpr,
    BK: tl.constexpr,
):
    n = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    direction, directions = tl.program_id(2).to(tl.int64), tl.num_programs(2)
    there = n < batch
    length = tl.load(lengths + n, mask=there, other=0).to(tl.int64)
    runs = there & (step < length)
    back = (direction == 1) | (BACKWARDS != 0)
    time = tl.where(runs & back, length - 1 - step, step)
    column = tl.arange(0, WIDE * UNITS)
    unit, which = tl.program_id(1) * UNITS + column % UNITS, column // UNITS
    known = (which < WIDE) & (unit < hidden)
    # A GRU's candidate has its two products apart: the input's is column 2, the state's column 3.
    from_x, from_h = known & (which < GATES), known & (which < GATES)
    row_x, row_h = which, which
    if CELL == 1:
        from_h, row_h = known & (which != 2), tl.where(which == 3, 2, which)
    at_x = (direction * GATES + row_x) * hidden + unit
    at_h = (direction * GATES + row_h) * hidden + unit
    sums = tl.zeros((ROWS, WIDE * UNITS), tl.float32)
    sums = add_product(sums, x + (time * batch + n) * inputs, runs, w + at_x * inputs, from_x, inputs, BK)
    sums = add_product(sums, old + (direction * batch + n) * hidden, runs, r + at_h * hidden, from_h, hidden, BK)
    biases = b + direction * GATES * hidden  # two vectors of gates a direction: beside w, then beside r
    sums += tl.load(biases + at_x, mask=from_x, other=0.0)[None, :]
    sums += tl.load(biases + GATES * hidden + at_h, mask=from_h, other=0.0)[None, :]
    own = tl.program_id(1) * UNITS + tl.arange(0, UNITS)
    kept = there[:, None] & (own < hidden)[None, :]
    at = (direction * batch + n)[:, None] * hidden + own[None, :]
    before = tl.load(old + at, mask=kept, other=0.0)
    if CELL == 0:
        inner = tl.load(cells + at, mask=kept, other=0.0)
        i, o = gate(sums, 0, WIDE, UNITS), gate(sums, 1, WIDE, UNITS)
        f = gate(sums, 2, WIDE, UNITS)
        if PEEPHOLES:
            peep = peepholes + direction * 3 * hidden + own
            i += tl.load(peep, mask=own < hidden, other=0.0)[None, :] * inner
            f += tl.load(peep + 2 * hidden, mask=own < hidden, other=0.0)[None, :] * inner
        i = sigmoid(_clipped(i, clip, CLIP))
        f = sigmoid(_clipped(f, clip, CLIP))
        if INPUT_FORGET:
            f = 1.0 - i
        cell = f * inner + i * tanh(_clipped(gate(sums, 3, WIDE, UNITS), clip, CLIP))
        if PEEPHOLES:
            o += (
                tl.load(peepholes + direction * 3 * hidden + hidden + own, mask=own < hidden, other=0.0)[None, :] * cell
            )
        made = sigmoid(_clipped(o, clip, CLIP)) * tanh(cell)
        tl.store(cells + at, cell, mask=kept & runs[:, None])
    elif CELL == 1:
        z = sigmoid(_clipped(gate(sums, 0, WIDE, UNITS), clip, CLIP))
        reset = sigmoid(_clipped(gate(sums, 1, WIDE, UNITS), clip, CLIP))
        candidate = gate(sums, 2, WIDE, UNITS) + reset * gate(sums, 3, WIDE, UNITS)
        made = (1.0 - z) * tanh(_clipped(candidate, clip, CLIP)) + z * before
    else:
        made = tanh(_clipped(gate(sums, 0, WIDE, UNITS), clip, CLIP))
    made = tl.where(runs[:, None], made, before)
    tl.store(new + at, made, mask=kept)
    place = ((time * directions + direction) * batch + n)[:, None] * hidden + own[None, :]
    tl.store(y + place, tl.where(runs[:, None], made, 0.0), mask=kept)


def _check(x: Array, cell: str, activations: Any, linear_before_reset: bool) -> None:
    advice = "use backend='cpu'"
    if activations is not None:
        raise UnsupportedError(f"lstm on triton has the usual activations only: {advice}")
    if cell == "gru" and not linear_before_reset:
        raise UnsupportedError(f"lstm on triton has GRU only with linear_before_reset: {advice}")
    if x.dtype != np.float32:
        raise UnsupportedError(f"lstm on triton takes float32, not {x.dtype}: {advice}")


def program(
    x: Array,
    w: Array,
    r: Array,
    b: Array | None = None,
    lengths: Array | None = None,
    h: Array | None = None,
    c: Array | None = None,
    p: Array | None = None,
    *,
    cell: str = "lstm",
    direction: str = "forward",
    activations: Sequence[tuple[str, float | None, float | None]] | None = None,
    clip: float | None = None,
    input_forget: bool = False,
    linear_before_reset: bool = False,
) -> Program:
    _check(x, cell, activations, linear_before_reset)
    steps, batch, inputs = x.shape
    directions, hidden, gates = w.shape[0], r.shape[2], GATES[cell]
    made = Program(__file__)

    def given(array: Array | None, shape: tuple[int, ...], fill: float, dtype: Any = np.float32) -> Tensor:
        values = np.full(shape, fill, dtype) if array is None else np.asarray(array, dtype)
        return made.input(np.ascontiguousarray(values))

    shape = (directions, batch, hidden)
    y, last, inner = made.output((steps, *shape)), made.output(shape), made.output(shape)
    made.finish(lambda *found: found if cell == "lstm" else found[:2])
    if last.size == 0:
        return made
    other = made.scratch(shape)
    states = [other, last] if steps % 2 else [last, other]  # the last step's are the answer
    first = [given(a, shape, 0.0) for a in (h, c)]
    made.launch(_start, -(-last.size // 128), states[0], inner, *first, last.size, BLOCK=128)
    weights = [given(a, a.shape, 0.0) for a in (x, w, r)]
    weights += [given(b, (directions, 2 * gates * hidden), 0.0), given(lengths, (batch,), steps, np.int32)]
    weights.append(given(p, (directions, 3 * hidden), 0.0))
    grid = (-(-batch // _ROWS), -(-hidden // _UNITS), directions)
    for step in range(steps):
        old, new = states[step % 2], states[1 - step % 2]
        made.launch(
            _step,
            grid,
            *(y, new, inner, old, *weights, step, steps, batch, inputs, hidden, float(clip or 0.0)),
            CELL={"lstm": _LSTM, "gru": _GRU, "rnn": _RNN}[cell],
            BACKWARDS=direction == "reverse",
            PEEPHOLES=p is not None,
            INPUT_FORGET=input_forget,
            CLIP=clip is not None,
            GATES=gates,
            WIDE=1 if cell == "rnn" else 4,
            ROWS=_ROWS,
            UNITS=_UNITS,
            BK=_DEPTH,
        )
    return made
