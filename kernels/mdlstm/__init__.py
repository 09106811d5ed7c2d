"""mdlstm: LSTM layers over grids of two and three dimensions, all directions at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from voxelrt.kernels.common.kernel import Array, Case, Kernel
from voxelrt.kernels.mdlstm.oracle import mdlstm as oracle


def _case(grid: tuple[int, ...], batch: int, inputs: int, hidden: int, bias: bool = True, bench: bool = False) -> Case:
    axes = len(grid)
    directions, gates = 2**axes, axes + 3

    def make(rng: np.random.Generator) -> tuple[Sequence[Any], Mapping[str, Any]]:
        scale = 1.0 / (axes * hidden) ** 0.5
        x = rng.normal(size=(*grid, batch, inputs))
        w = rng.normal(0, scale, (directions, gates * hidden, inputs))
        r = rng.normal(0, scale, (directions, gates * hidden, axes * hidden))
        b = rng.normal(0, 0.3, (directions, gates * hidden))
        return tuple(v.astype(np.float32) for v in ((x, w, r, b) if bias else (x, w, r))), {}

    cells = float(np.prod(grid)) * batch * directions
    flops = 2 * cells * gates * hidden * (inputs + axes * hidden)
    moved = 4 * (cells / directions * inputs + cells * hidden)
    name = f"{'x'.join(map(str, grid))}-n{batch}i{inputs}h{hidden}" + ("" if bias else "-unbiased")
    return Case(name, make, 2e-6, flops, moved, bench)


KERNEL = Kernel(
    name="mdlstm",
    oracle=oracle,
    cases=(
        _case((1, 1), 1, 1, 1, bias=False),
        _case((7,), 3, 5, 13),
        _case((5, 7), 2, 3, 11),
        _case((1, 9), 1, 4, 17),
        _case((13, 6), 3, 5, 37, bias=False),
        _case((3, 4, 5), 2, 3, 10),
        _case((4, 1, 3), 1, 2, 33),
        _case((0, 4), 1, 2, 3),
        _case((3, 4), 0, 2, 3),
        _case((32, 32), 1, 16, 32, bench=True),
        _case((10, 10, 10), 1, 8, 32, bench=True),
    ),
    backends=("cpu", "triton", "cuda"),
    gpu_cases=(_case((2, 3), 1, 2, 3), _case((2, 2, 2), 1, 1, 2), _case((3,), 1, 2, 18)),
)


def mdlstm(x: Array, w: Array, r: Array, b: Array | None = None, *, backend: str = "auto") -> Array:
    """A multi-dimensional LSTM layer in all its directions (Graves, Fernández and Schmidhuber 2007), without peepholes.

    Each cell of the grid has one predecessor along each of the d axes, with a forget gate of its own:
    c = σ(i)·tanh(g) + Σ_a σ(f_a)·c_a and h = σ(o)·tanh(c), every gate a sum over the input and all d states.

    Parameters
    ----------
    x : (grid, batch, inputs) float32, the grid of one to three axes.
    w : (2^d, (3 + d) · hidden, inputs): gates in the order i, o, f of each axis, g. Direction k goes backwards
        along the axes whose bit is set in k.
    r : (2^d, (3 + d) · hidden, d · hidden): the states of the predecessors of each axis, side by side.
    b : (2^d, (3 + d) · hidden).
    backend : see ``Kernel``.

    Returns
    -------
    (grid, 2^d, batch, hidden) float32.

    Raises
    ------
    ShapeError : shapes or dtypes that do not go together.
    """
    made: Array = KERNEL(x, w, r, b, backend=backend)
    return made
