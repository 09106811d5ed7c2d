"""mdlstm on the native library: one product for the input's part of the gates, then the recurrent part by fronts."""

from __future__ import annotations

from typing import Any

import numpy as np

from voxelrt.errors import ShapeError
from voxelrt.kernels.common import native
from voxelrt.kernels.common.kernel import Array
from voxelrt.kernels.matmul.cpu import run as matmul

BLOCK = 16


def by_blocks(rows: Array, gates: int) -> Array:
    """(n, directions, gates · hidden) as (n, directions · blocks · gates · 16): what the kernel reads side by side."""
    count, directions, total = rows.shape
    hidden = total // gates
    padded = -(-hidden // BLOCK) * BLOCK
    made = np.zeros((count, directions, gates, padded), rows.dtype)
    made[..., :hidden] = rows.reshape(count, directions, gates, hidden)
    blocks = made.reshape(count, directions, gates, padded // BLOCK, BLOCK).transpose(0, 1, 3, 2, 4)
    return np.ascontiguousarray(blocks).reshape(count, directions * gates * padded)


def run(x: Array, w: Array, r: Array, b: Array | None = None) -> Array:
    axes = x.ndim - 2
    if not 1 <= axes <= 3:
        raise ShapeError(f"x has the shape {x.shape}; it has one to three axes of the grid, the batch and the features")
    directions, gates = 2**axes, axes + 3
    hidden = r.shape[-1] // axes if r.ndim == 3 else 0
    wanted = {
        "W": (w, (directions, gates * hidden, x.shape[-1])),
        "R": (r, (directions, gates * hidden, axes * hidden)),
        "B": (b, (directions, gates * hidden)),
    }
    for name, (array, shape) in wanted.items():
        if array is not None and (array.shape != shape or not hidden):
            raise ShapeError(f"{name} has the shape {array.shape}; a grid of {axes} axes takes {shape}")
    for name, array in (("x", x), ("W", w), ("R", r), ("B", b)):
        if array is not None and array.dtype != np.float32:
            raise ShapeError(f"{name} is {array.dtype}; the cpu backend of mdlstm computes in float32")
    weight = by_blocks(w.transpose(2, 0, 1), gates)
    bias = None if b is None else by_blocks(b[None], gates).reshape(-1)
    sums = matmul(np.ascontiguousarray(x), weight, bias, packed=bool(x.shape[-1]))
    y = native.aligned_empty((*x.shape[:-2], directions, x.shape[-2], hidden), np.float32)
    params: dict[str, Any] = {"axes": axes, "hidden": hidden}
    native.run_kernel("mdlstm", [sums, native.pack_weight("mdlstm", r, **params)], [y], **params)
    return y
