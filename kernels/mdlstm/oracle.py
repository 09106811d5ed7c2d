"""mdlstm, obviously: one cell of the grid at a time, in float64."""

from __future__ import annotations

import itertools

import numpy as np

from voxelrt.kernels.common.kernel import Array


def _sigmoid(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-x)))


def mdlstm(x: Array, w: Array, r: Array, b: Array | None = None) -> Array:
    *grid, batch, _ = x.shape
    axes, hidden = len(grid), r.shape[2] // len(grid)
    y = np.zeros((*grid, 2**axes, batch, hidden))
    for k, n in itertools.product(range(2**axes), range(batch)):
        backwards = [bool(k >> axis & 1) for axis in range(axes)]
        ranges = [range(size)[::-1] if back else range(size) for size, back in zip(grid, backwards, strict=True)]
        inner = np.zeros((*grid, hidden))
        for place in itertools.product(*ranges):
            states, cells = [], []
            for axis in range(axes):
                before = list(place)
                before[axis] += 1 if backwards[axis] else -1
                inside = 0 <= before[axis] < grid[axis]
                states.append(y[(*before, k, n)] if inside else np.zeros(hidden))
                cells.append(inner[tuple(before)] if inside else np.zeros(hidden))
            sums = w[k].astype(np.float64) @ x[(*place, n)].astype(np.float64)
            sums += r[k].astype(np.float64) @ np.concatenate(states)
            sums += 0 if b is None else b[k].astype(np.float64)
            i, o, *forget, new = sums.reshape(axes + 3, hidden)
            c = _sigmoid(i) * np.tanh(new) + sum(_sigmoid(f) * old for f, old in zip(forget, cells, strict=True))
            inner[place] = c
            y[(*place, k, n)] = _sigmoid(o) * np.tanh(c)
    return y
