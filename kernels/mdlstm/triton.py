"""mdlstm in Triton: a launch a diagonal of the grid, all directions at once.

The cells of a diagonal depend on earlier diagonals alone. A program has 16 of them (with their batch) and 8 or 16
units: all gates of these are columns of one product over the input and the states of the predecessors, and the
cell's arithmetic follows in registers.
"""

from __future__ import annotations

import numpy as np
import triton
import triton.language as tl

from voxelrt.errors import ShapeError, UnsupportedError
from voxelrt.kernels.common.gpu.program import Program
from voxelrt.kernels.common.gpu.triton_activation import tanh
from voxelrt.kernels.common.gpu.triton_gates import add_product, gate, sigmoid
from voxelrt.kernels.common.kernel import Array

_ROWS, _DEPTH = 16, 16


@triton.jit
def _turned(at, size, backwards):
    """A cell's place along an axis, from how far its direction has come."""
    return tl.where(backwards != 0, size - 1 - at, at)


@triton.jit
def _before(step, z, y, x, AXIS: tl.constexpr):
    return z - (step if AXIS == 0 else 0), y - (step if AXIS == 1 else 0), x - (step if AXIS == 2 else 0)


@triton.jit
def _diagonal(
    y_all,
    cells,
    x_all,
    w,
    r,
    b,
    number,
    depth,
    rows,
    columns,
    batch,
    inputs,
    hidden,
    AXES: tl.constexpr,
    GATES: tl.constexpr,
    WIDE: tl.constexpr,
    ROWS: tl.constexpr,
    UNITS: tl.constexpr,
    BK: tl.constexpr,
):
    lane = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    direction = tl.program_id(2).to(tl.int64)
    directions = tl.num_programs(2)
    n, line = lane % batch, lane // batch
    py, pz = line % rows, line // rows
    px = number - pz - py
    here = (pz < depth) & (px >= 0) & (px < columns)
    flip_z = (direction >> (AXES - 3)) & 1 if AXES == 3 else direction * 0
    flip_y = (direction >> (AXES - 2)) & 1 if AXES >= 2 else direction * 0
    flip_x = (direction >> (AXES - 1)) & 1
    z, y, x = _turned(pz, depth, flip_z), _turned(py, rows, flip_y), _turned(px, columns, flip_x)
    cell = (z * rows + y) * columns + x
    column = tl.arange(0, WIDE * UNITS)
    unit = tl.program_id(1) * UNITS + column % UNITS
    which = column // UNITS
    known = (which < GATES) & (unit < hidden)
    row = (direction * GATES + which) * hidden + unit
    sums = tl.zeros((ROWS, WIDE * UNITS), tl.float32)
    sums = add_product(sums, x_all + (cell * batch + n) * inputs, here, w + row * inputs, known, inputs, BK)
    for axis in tl.static_range(3 - AXES, 3):
        bz, by, bx = _before(1, pz, py, px, axis)
        there = here & (bz >= 0) & (by >= 0) & (bx >= 0)
        old = (_turned(bz, depth, flip_z) * rows + _turned(by, rows, flip_y)) * columns + _turned(bx, columns, flip_x)
        state = ((old * directions + direction) * batch + n) * hidden
        weights = r + row * (AXES * hidden) + (axis - (3 - AXES)) * hidden
        sums = add_product(sums, y_all + state, there, weights, known, hidden, BK)
    sums += tl.load(b + row, mask=known, other=0.0)[None, :]
    own = tl.program_id(1) * UNITS + tl.arange(0, UNITS)
    kept = here[:, None] & (own < hidden)[None, :]
    made = sigmoid(gate(sums, 0, WIDE, UNITS)) * tanh(gate(sums, GATES - 1, WIDE, UNITS))
    for axis in tl.static_range(3 - AXES, 3):
        bz, by, bx = _before(1, pz, py, px, axis)
        there = here & (bz >= 0) & (by >= 0) & (bx >= 0)
        old = (_turned(bz, depth, flip_z) * rows + _turned(by, rows, flip_y)) * columns + _turned(bx, columns, flip_x)
        at = ((old * directions + direction) * batch + n)[:, None] * hidden + own[None, :]
        inner = tl.load(cells + at, mask=there[:, None] & (own < hidden)[None, :], other=0.0)
        made += sigmoid(gate(sums, 2 + axis - (3 - AXES), WIDE, UNITS)) * inner
    at = ((cell * directions + direction) * batch + n)[:, None] * hidden + own[None, :]
    tl.store(cells + at, made, mask=kept)
    tl.store(y_all + at, sigmoid(gate(sums, 1, WIDE, UNITS)) * tanh(made), mask=kept)


def program(x: Array, w: Array, r: Array, b: Array | None = None) -> Program:
    *grid, batch, inputs = x.shape
    axes = len(grid)
    if not 1 <= axes <= 3 or w.shape[0] != 2**axes or r.shape[2] % axes or w.shape[1] != r.shape[1]:
        raise ShapeError(f"x {x.shape}, w {w.shape} and r {r.shape} do not go together")
    if any(a.dtype != np.float32 for a in (x, w, r)):
        raise UnsupportedError("mdlstm on triton takes float32: use backend='cpu'")
    hidden, gates = r.shape[2] // axes, axes + 3
    made = Program(__file__)
    out = made.output((*grid, 2**axes, batch, hidden))
    if out.size == 0:
        return made
    given = [made.input(np.ascontiguousarray(a)) for a in (x, w, r)]
    bias = made.input(np.zeros(w.shape[:2], np.float32) if b is None else np.ascontiguousarray(b, np.float32))
    cells = made.scratch(out.shape)
    sizes = (*(1,) * (3 - axes), *grid)
    units = 16 if gates == 4 else 8  # more gates of as many units spill on sm_90
    grid_of = (-(-sizes[0] * sizes[1] * batch // _ROWS), -(-hidden // units), 2**axes)
    for number in range(sum(sizes) - 2):
        made.launch(
            _diagonal,
            grid_of,
            *(out, cells, *given, bias, number, *sizes, batch, inputs, hidden),
            AXES=axes,
            GATES=gates,
            WIDE=4 if gates == 4 else 8,
            ROWS=_ROWS,
            UNITS=units,
            BK=_DEPTH,
        )
    return made
