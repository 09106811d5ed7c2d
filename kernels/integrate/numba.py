"""integrate in numba: interleaved float32 vectors in two buffers, one position for three components."""

from __future__ import annotations

import math

import numba
import numpy as np

from voxelrt.errors import UsageError
from voxelrt.kernels.common.kernel import Array
from voxelrt.kernels.common.numba_parts import in_parts
from voxelrt.kernels.integrate.codes import PADDINGS


@numba.njit(nogil=True, cache=True, inline="always")
def _pair(at, displacement, size, border):
    """Of one axis: the first of two neighbours, and the weights of both; 0 where there is none."""
    down = math.floor(displacement)
    rest = displacement - down
    if down != down:
        return 0, rest, rest
    # Beyond the grid only that matters; a limit keeps the whole number in range.
    first = at + int(min(max(down, -4.0e6), 4.0e6))
    low, high = np.float32(1.0) - rest, rest
    if border:
        if first < 0:
            first, low, high = 0, np.float32(1.0), np.float32(0.0)
        elif first >= size - 1:
            first, low, high = size - 1, np.float32(1.0), np.float32(0.0)
    else:
        if first < -1 or first >= size:
            low, high = np.float32(0.0), np.float32(0.0)
        elif first == -1:
            first, low, high = 0, rest, np.float32(0.0)
        elif first == size - 1:
            high = np.float32(0.0)
        first = min(max(first, 0), size - 1)
    return first, low, high


@numba.njit(nogil=True, cache=True)
def _square(begin, end, field, border, out):
    """out(x) = u(x) + u(x + u(x)) for rows begin to end; fields (Z, Y, X, 3)."""
    depth, rows, columns = field.shape[:3]
    for line in range(begin, end):
        z, y = line // rows, line % rows
        for x in range(columns):
            z0, az, bz = _pair(z, field[z, y, x, 0], depth, border)
            y0, ay, by = _pair(y, field[z, y, x, 1], rows, border)
            x0, ax, bx = _pair(x, field[z, y, x, 2], columns, border)
            # Where a second neighbour has no weight it may be missing.
            z1, y1, x1 = min(z0 + 1, depth - 1), min(y0 + 1, rows - 1), min(x0 + 1, columns - 1)
            w00, w01, w10, w11 = az * ay, az * by, bz * ay, bz * by
            for k in range(3):
                low = (
                    w00 * field[z0, y0, x0, k]
                    + w01 * field[z0, y1, x0, k]
                    + w10 * field[z1, y0, x0, k]
                    + w11 * field[z1, y1, x0, k]
                )
                high = (
                    w00 * field[z0, y0, x1, k]
                    + w01 * field[z0, y1, x1, k]
                    + w10 * field[z1, y0, x1, k]
                    + w11 * field[z1, y1, x1, k]
                )
                out[z, y, x, k] = field[z, y, x, k] + (ax * low + bx * high)


def run(velocity: Array, *, steps: int = 7, padding: str = "zeros", out: Array | None = None) -> Array:
    if padding not in PADDINGS:
        raise UsageError(f"padding is {padding!r}; it is one of {', '.join(PADDINGS)}")
    axes = velocity.ndim - 2
    made = np.empty(velocity.shape, velocity.dtype) if out is None else out
    if steps == 0:
        made[...] = velocity
        return made
    for one, answer in zip(velocity, made, strict=True):
        size = (*(1,) * (3 - axes), *one.shape[1:])
        here = np.zeros((*size, 3), np.float32)
        here[..., 3 - axes :] = np.moveaxis(one.reshape(axes, *size), 0, -1)
        here *= np.float32(2.0**-steps)
        there = np.empty_like(here)
        for _ in range(steps):
            in_parts(_square, size[0] * size[1], here, padding == "border", there)
            here, there = there, here
        answer[...] = np.moveaxis(here[..., 3 - axes :], -1, 0).reshape(one.shape)
    return made
