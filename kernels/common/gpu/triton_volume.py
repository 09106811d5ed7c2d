"""Where voxels lie, for Triton kernels on volumes (B, Z, Y, X) without gaps: a lane a voxel, 64-bit indices."""

from __future__ import annotations

import triton
import triton.language as tl

BLOCK = 128  # lanes of a program; one a thread, so that no lane's work is done twice


@triton.jit
def lanes(BLOCK: tl.constexpr):
    """The program's voxels, along the grid's first axis."""
    return tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)


@triton.jit
def place(i, depth, rows, columns):
    """z, y, x of a voxel of the whole batch."""
    return i // (rows * columns) % depth, i // columns % rows, i % columns


@triton.jit
def clamped(at, size):
    """Beyond a face its last voxel goes on."""
    return tl.minimum(tl.maximum(at, 0), size - 1)


@triton.jit
def mirrored(at, size):
    """Beyond a face the volume goes on as a mirror image about the outer voxels' centres."""
    period = tl.maximum(2 * (size - 1), 1)
    rest = at % period
    along = tl.where(rest < 0, rest + period, rest)
    return tl.where(size > 1, tl.where(along < size, along, period - along), 0)


@triton.jit
def taken(volume, i, z, y, x, dz, dy, dx, depth, rows, columns, inside):
    """The value at an offset from voxel i at z, y, x; beyond the faces that of the outer voxel."""
    to_z, to_y, to_x = clamped(z + dz, depth), clamped(y + dy, rows), clamped(x + dx, columns)
    at = i + ((to_z - z) * rows + (to_y - y)) * columns + (to_x - x)
    return tl.load(volume + at, mask=inside, other=0.0)


@triton.jit
def copy(out, volume, count, BLOCK: tl.constexpr):
    i = lanes(BLOCK)
    tl.store(out + i, tl.load(volume + i, mask=i < count, other=0.0), mask=i < count)


def blocks(count: int, block: int = BLOCK) -> int:
    """Programs for so many voxels."""
    return -(-count // block)
