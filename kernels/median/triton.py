"""median in Triton: the middle value bit by bit from the top, by counting the window's smaller values each time.

Thirty-two passes over a window that lies in the cache, in registers of its own size nothing: any radius, no sorting.
"""

from __future__ import annotations

import triton
import triton.language as tl

from voxelrt.errors import ShapeError
from voxelrt.kernels.common.gpu.program import Program
from voxelrt.kernels.common.gpu.triton_volume import BLOCK, blocks, lanes, place, taken
from voxelrt.kernels.common.kernel import Array
from voxelrt.kernels.common.volumes import as_volumes, radii
from voxelrt.kernels.common.windows import Triple

MOST = 2197


@triton.jit
def _median(out, volume, count, depth, rows, columns, reach_z, reach_y, reach_x, BLOCK: tl.constexpr):
    i = lanes(BLOCK)
    inside = i < count
    z, y, x = place(i, depth, rows, columns)
    wide, high = 2 * reach_x + 1, 2 * reach_y + 1
    window = (2 * reach_z + 1) * high * wide
    found = tl.zeros((BLOCK,), tl.uint32)
    for step in range(32):
        tried = found | (tl.full((BLOCK,), 1, tl.uint32) << (31 - step))
        below = tl.zeros((BLOCK,), tl.int32)
        for k in range(window):
            dz, dy, dx = k // (high * wide) - reach_z, k // wide % high - reach_y, k % wide - reach_x
            value = taken(volume, i, z, y, x, dz, dy, dx, depth, rows, columns, inside)
            bits = value.to(tl.uint32, bitcast=True)
            # Whole numbers in the order of the floats: negative ones backwards, below the others.
            key = tl.where(bits >> 31 != 0, ~bits, bits | 0x80000000)
            below += (key < tried).to(tl.int32)
        found = tl.where(below <= window // 2, tried, found)
    bits = tl.where(found >> 31 != 0, found & 0x7FFFFFFF, ~found)
    tl.store(out + i, bits.to(tl.float32, bitcast=True), mask=inside)


def program(volume: Array, *, radius: Triple = 1) -> Program:
    reach = radii(radius, volume, "radius")
    window = 1
    for r in reach:
        window *= 2 * r + 1
    if window > MOST:
        raise ShapeError(f"a window of {window} voxels; at most {MOST}")
    made = Program(__file__)
    source = made.input(as_volumes(volume))
    out = made.output(source.shape)
    made.finish(lambda found: found.reshape(volume.shape))
    made.launch(_median, blocks(out.size), out, source, out.size, *source.shape[1:], *map(int, reach), BLOCK=BLOCK)
    return made
