"""Recurrent weights and launches as ``gates.cuh`` wants them."""

from __future__ import annotations

import numpy as np

from voxelrt.kernels.common.kernel import Array

UNITS, SEQUENCES, TILE, THREADS = 16, 8, 64, 256  # gates.cuh


def packed(r: Array, gates: int) -> Array:
    """(directions, gates · hidden, depth) as (directions, blocks of 16 units, depth, gates, 16), zero past the last."""
    directions, rows, depth = r.shape
    hidden = rows // gates
    blocks = -(-hidden // UNITS)
    made = np.zeros((directions, gates, blocks * UNITS, depth), r.dtype)
    made[:, :, :hidden] = r.reshape(directions, gates, hidden, depth)
    by_block = made.reshape(directions, gates, blocks, UNITS, depth).transpose(0, 2, 4, 1, 3)
    return np.ascontiguousarray(by_block)


def block_of(gates: int) -> tuple[int, int]:
    """Threads along the columns of a block's product, and slices of its depth."""
    return gates * UNITS, THREADS // (gates * UNITS)


def input_grid(rows: int, columns: int) -> tuple[int, int]:
    """Blocks of the input's product."""
    return -(-rows // TILE), -(-columns // TILE)
