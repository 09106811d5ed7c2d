"""lstm as a CUDA program: all that the op has; the input's product once, then a launch a step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from voxelrt.errors import UnsupportedError
from voxelrt.kernels.common.gpu.cuda_gates import SEQUENCES, UNITS, block_of, input_grid, packed
from voxelrt.kernels.common.gpu.program import Program, Tensor
from voxelrt.kernels.common.kernel import Array
from voxelrt.kernels.lstm.codes import CELLS
from voxelrt.kernels.lstm.layer import RecurrentLayer

ENTRIES = ("voxelrt_lstm_start", "voxelrt_lstm_inputs", "voxelrt_lstm_step")
_WHOLE, _GATES, _CANDIDATE = range(3)


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
    if x.dtype != np.float32:
        raise UnsupportedError(f"lstm on cuda takes float32, not {x.dtype}: use backend='cpu'")
    steps, batch, inputs = x.shape
    usual = None if activations is None else tuple(activations)
    layer = RecurrentLayer(cell, r.shape[2], direction, usual, clip, input_forget, linear_before_reset)
    layer.check(w.shape, r.shape, None if b is None else b.shape, None if p is None else p.shape)
    directions, hidden, gates = layer.directions, layer.hidden, layer.gates
    made = Program(__file__)

    def given(array: Array | None, size: tuple[int, ...], fill: float = 0.0, dtype: Any = np.float32) -> Tensor:
        values = np.full(size, fill, dtype) if array is None else np.asarray(array, dtype)
        return made.input(np.ascontiguousarray(values))

    shape = (directions, batch, hidden)
    y, last, cells = made.output((steps, *shape)), made.output(shape), made.output(shape)
    made.finish(lambda *found: found if cell == "lstm" else found[:2])
    if last.size == 0:
        return made
    states = [last, made.scratch(shape)]
    states = states[::-1] if steps % 2 else states  # the last step's are the answer
    first = [given(a, shape) for a in (h, c)]
    made.launch(ENTRIES[0], min(-(-last.size // 256), 1 << 16), states[0], cells, *first, last.size, block=256)
    if steps == 0:
        return made
    of_direction, bias = gates * hidden, given(b, (directions, 2 * gates * hidden))
    products = made.scratch((steps, batch, directions, of_direction))
    sizes = (steps * batch, directions * of_direction)
    both = 2 * hidden if layer.resets_behind else of_direction
    weights = (given(x, x.shape), given(w, w.shape), bias)
    numbers = (*sizes, inputs, of_direction, both)
    made.launch(ENTRIES[1], input_grid(*sizes), products, *weights, *numbers, block=256)
    _steps(made, layer, (y, cells, states, products), (bias, given(p, (directions, 3 * hidden)), p is not None),
           given(lengths, (batch,), steps, np.int32), packed(np.asarray(r, np.float32), gates))  # fmt: skip
    return made


def _steps(
    made: Program, layer: RecurrentLayer, memory: Any, vectors: tuple[Tensor, Tensor, bool], lengths: Tensor, r: Array
) -> None:
    """A launch for each step, or two: to the gates of a GRU whose reset comes first, then to its candidate."""
    y, cells, states, products = memory
    bias, peepholes, has_peepholes = vectors
    steps, directions, batch, hidden = y.shape
    options = layer.params()
    codes = made.input(np.asarray(options["functions"], np.int32))
    pairs = np.stack([options["alpha"], options["beta"]], 1)
    numbers, weights = made.input(pairs.astype(np.float32)), made.input(r)
    in_front = layer.cell == "gru" and not layer.resets_behind
    update, candidate = (made.scratch(states[0].shape) if in_front else cells for _ in range(2))
    flags = (layer.direction == "reverse", has_peepholes, layer.input_forget, layer.resets_behind)
    flag_bits = sum(1 << bit for bit, there in enumerate(flags) if there)
    phases = [(_GATES, 0, 2), (_CANDIDATE, 2, 1)] if in_front else [(_WHOLE, 0, layer.gates)]
    for step in range(steps):
        before, after = states[step % 2], states[1 - step % 2]
        for phase, first, count in phases:
            made.launch(
                ENTRIES[2],
                (-(-batch // SEQUENCES), -(-hidden // UNITS), directions),
                *(y, after, cells, before, update, candidate, products, weights, bias, peepholes, lengths),
                *(codes, numbers, step, batch, hidden),
                *(np.int32(v) for v in (CELLS.index(layer.cell), phase, layer.gates, first, flag_bits)),
                float(options["clip"]),
                block=block_of(count),
            )
