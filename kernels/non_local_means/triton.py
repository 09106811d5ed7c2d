"""non_local_means in Triton: a lane four voxels of a pillar along z, whose patches share their planes' sums.

The same work as ``cuda.cu``'s: with patches of 3³ 13.5 differences a pair of voxels instead of 27.
"""

from __future__ import annotations

import numpy as np
import triton
import triton.language as tl

from voxelrt.kernels.common.gpu.program import Program
from voxelrt.kernels.common.gpu.triton_volume import BLOCK, blocks, lanes, mirrored
from voxelrt.kernels.common.kernel import Array
from voxelrt.kernels.common.windows import Triple
from voxelrt.kernels.non_local_means.device_arguments import problem

PILLAR = 4


@triton.jit
def _mirror(out, volume, count, depth, rows, columns, patch_z, patch_y, patch_x, BLOCK: tl.constexpr):
    i = lanes(BLOCK)
    inside = i < count
    wide, high, deep = columns + 2 * patch_x, rows + 2 * patch_y, depth + 2 * patch_z
    x, y = mirrored(i % wide - patch_x, columns), mirrored(i // wide % high - patch_y, rows)
    z, item = mirrored(i // (wide * high) % deep - patch_z, depth), i // (wide * high * deep)
    value = tl.load(volume + ((item * depth + z) * rows + y) * columns + x, mask=inside, other=0.0)
    tl.store(out + i, value, mask=inside)


@triton.jit
def _mean(
    out,
    copy,
    depth,
    rows,
    columns,
    search_z,
    search_y,
    search_x,
    patch_z,
    patch_y,
    patch_x,
    slope,
    offset,
    noise,
    SQUARES: tl.constexpr,
    PILLAR: tl.constexpr,
    BLOCK: tl.constexpr,
):
    i, item = lanes(BLOCK), tl.program_id(1).to(tl.int64)
    row, plane = columns + 2 * patch_x, (columns + 2 * patch_x) * (rows + 2 * patch_y)
    mine = i < (depth + PILLAR - 1) // PILLAR * rows * columns
    x, y, z = i % columns, i // columns % rows, i // (columns * rows) * PILLAR
    k = tl.arange(0, PILLAR)
    here = (item * (depth + 2 * patch_z) + z + patch_z) * plane + (y + patch_y) * row + x + patch_x
    # An axis has fewer than 2³¹ voxels, and so have windows: 32 bits for all but addresses.
    z, y, x = z.to(tl.int32), y.to(tl.int32), x.to(tl.int32)
    deep_end, high_end, wide_end = depth.to(tl.int32), rows.to(tl.int32), columns.to(tl.int32)
    # The pillar's own voxels; the last pillar may reach past the volume.
    own = mine[:, None] & (z[:, None] + k[None, :] < deep_end)
    total = tl.zeros((BLOCK, PILLAR), tl.float32)
    weights = tl.zeros((BLOCK, PILLAR), tl.float32)
    for oz in range(-search_z, search_z + 1):
        deep = z[:, None] + k[None, :] + oz
        lies = own & (deep >= 0) & (deep < deep_end)
        for oy in range(-search_y, search_y + 1):
            for ox in range(-search_x, search_x + 1):
                column = mine & (y + oy >= 0) & (y + oy < high_end) & (x + ox >= 0) & (x + ox < wide_end)
                there = here + oz * plane + oy * row + ox
                sums = tl.zeros((BLOCK, PILLAR), tl.float32)
                for t in range(-patch_z, PILLAR + patch_z):
                    low, high = -patch_z, deep_end + patch_z
                    known = column & (z + t < high) & (z + t + oz >= low) & (z + t + oz < high)
                    planar = tl.zeros((BLOCK,), tl.float32)
                    for py in range(-patch_y, patch_y + 1):
                        for px in range(-patch_x, patch_x + 1):
                            at = t * plane + py * row + px
                            value = tl.load(copy + here + at, mask=known, other=0.0)
                            away = value - tl.load(copy + there + at, mask=known, other=0.0)
                            planar = tl.fma(away, away, planar)
                    patches = (t - k <= patch_z) & (k - t <= patch_z)
                    sums += tl.where(patches[None, :], planar[:, None], 0.0)
                counted = lies & column[:, None]
                value = tl.load(copy + there[:, None] + k[None, :] * plane, mask=counted, other=0.0)
                weight = tl.where(counted, tl.exp(-tl.maximum(sums * slope - offset, 0.0)), 0.0)
                if SQUARES:
                    value = value * value
                total += weight * value
                weights += weight
    mean = total / tl.where(own, weights, 1.0)
    if SQUARES:
        mean = tl.sqrt(tl.maximum(mean - noise, 0.0))
    at = ((item * depth + z[:, None] + k[None, :]) * rows + y[:, None]) * columns + x[:, None]
    tl.store(out + at, mean, mask=own)


def program(
    volume: Array,
    sigma: float,
    *,
    search: Triple = 5,
    patch: Triple = 1,
    strength: float = 1.0,
    noise: str = "gaussian",
    subtract_noise: bool = False,
) -> Program:
    on = problem(__file__, "triton", volume, sigma, search, patch, strength, subtract_noise)
    made, size = on.made, on.size
    if on.out.size == 0:
        return made
    made.launch(_mirror, blocks(on.copy.size), on.copy, on.given, on.copy.size, *size, *on.near, BLOCK=BLOCK)
    grid = (blocks(-(-size[0] // PILLAR) * size[1] * size[2]), on.out.shape[0])
    window = tuple(np.int32(r) for r in (*on.window, *on.near))
    numbers = (*size, *window, on.slope, on.offset, on.noise)
    made.launch(
        _mean, grid, on.out, on.copy, *numbers, SQUARES=noise == "rician", PILLAR=PILLAR, BLOCK=BLOCK, registers=128
    )
    return made
