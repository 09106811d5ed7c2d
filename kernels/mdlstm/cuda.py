"""mdlstm as a CUDA program: the input's product once, then a launch a front of the grid."""

from __future__ import annotations

import numpy as np

from voxelrt.errors import ShapeError, UnsupportedError
from voxelrt.kernels.common.gpu.cuda_gates import SEQUENCES, UNITS, block_of, input_grid, packed
from voxelrt.kernels.common.gpu.program import Program
from voxelrt.kernels.common.kernel import Array

ENTRIES = ("voxelrt_mdlstm_inputs", "voxelrt_mdlstm_front")


def program(x: Array, w: Array, r: Array, b: Array | None = None) -> Program:
    *grid, batch, inputs = x.shape
    axes = len(grid)
    if not 1 <= axes <= 3 or w.shape[0] != 2**axes or r.shape[2] % axes or w.shape[1] != r.shape[1]:
        raise ShapeError(f"x {x.shape}, w {w.shape} and r {r.shape} do not go together")
    if any(a.dtype != np.float32 for a in (x, w, r)):
        raise UnsupportedError("mdlstm on cuda takes float32: use backend='cpu'")
    hidden, gates = r.shape[2] // axes, axes + 3
    made = Program(__file__)
    out = made.output((*grid, 2**axes, batch, hidden))
    if out.size == 0:
        return made
    given = [made.input(np.ascontiguousarray(a)) for a in (x, w)]
    bias = made.input(np.zeros(w.shape[:2], np.float32) if b is None else np.ascontiguousarray(b, np.float32))
    cells = made.scratch(out.shape)
    sizes = (*(1,) * (3 - axes), *grid)
    products = made.scratch((*grid, batch, 2**axes, gates * hidden))
    lines = (int(np.prod(grid)) * batch, 2**axes * gates * hidden)
    made.launch(ENTRIES[0], input_grid(*lines), products, *given, bias, *lines, inputs, block=256)
    weights = made.input(packed(r, gates))
    blocks = (-(-sizes[0] * sizes[1] * batch // SEQUENCES), -(-hidden // UNITS), 2**axes)
    for number in range(sum(sizes) - 2):
        numbers = (number, *sizes, batch, hidden, np.int32(axes))
        made.launch(ENTRIES[1], blocks, out, cells, products, weights, *numbers, block=block_of(gates))
    return made
