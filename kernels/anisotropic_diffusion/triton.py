"""anisotropic_diffusion in Triton: an iteration is the mean squared slope (blocks, then one block) and a step."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import triton
import triton.language as tl

from voxelrt.kernels.common.gpu.program import Program
from voxelrt.kernels.common.gpu.triton_volume import BLOCK, blocks, copy, lanes, place, taken
from voxelrt.kernels.common.kernel import Array
from voxelrt.kernels.common.volumes import as_volumes, positive, stable_scheme


@triton.jit
def _slope(volume, i, z, y, x, oz, oy, ox, dz, dy, dx, depth, rows, columns, inside):
    """The central difference along (dz, dy, dx) at the voxel at offset (oz, oy, ox), over two voxels."""
    up = taken(volume, i, z, y, x, oz + dz, oy + dy, ox + dx, depth, rows, columns, inside)
    return 0.5 * (up - taken(volume, i, z, y, x, oz - dz, oy - dy, ox - dx, depth, rows, columns, inside))


@triton.jit
def _slopes(partial, volume, voxels, depth, rows, columns, scale_z, scale_y, scale_x, BLOCK: tl.constexpr):
    """Each block's sum of squared slopes."""
    v, item = lanes(BLOCK), tl.program_id(1).to(tl.int64)
    inside = v < voxels
    z, y, x = place(v, depth, rows, columns)
    i = item * voxels + v
    dz = _slope(volume, i, z, y, x, 0, 0, 0, 1, 0, 0, depth, rows, columns, inside) * scale_z
    dy = _slope(volume, i, z, y, x, 0, 0, 0, 0, 1, 0, depth, rows, columns, inside) * scale_y
    dx = _slope(volume, i, z, y, x, 0, 0, 0, 0, 0, 1, depth, rows, columns, inside) * scale_x
    squared = tl.where(inside, dz * dz + dy * dy + dx * dx, 0.0)
    tl.store(partial + item * tl.num_programs(0) + tl.program_id(0), tl.sum(squared, 0))


@triton.jit
def _width(width, partial, count, voxels, conductance, BLOCK: tl.constexpr):
    """From the blocks' sums the inverse width of the edge-stopping function; 0 where a volume has no slope at all."""
    item = tl.program_id(0).to(tl.int64)
    total = tl.zeros((BLOCK,), tl.float64)
    for start in range(0, count, BLOCK):
        at = start + tl.arange(0, BLOCK)
        total += tl.load(partial + item * count + at, mask=at < count, other=0.0).to(tl.float64)
    mean = tl.sum(total, 0) / voxels
    wide = 2.0 * conductance * conductance * mean
    tl.store(width + item, tl.where(wide > 0.0, 1.0 / tl.where(wide > 0.0, wide, 1.0), 0.0).to(tl.float32))


@triton.jit
def _flow(volume, i, z, y, x, here, sz, sy, sx, scale, az, ay, ax, bz, by, bx, scale_a, scale_b, slope_a, slope_b,
          inverse, depth, rows, columns, inside):  # fmt: skip
    """What flows from the next voxel along (sz, sy, sx); a and b are the other two axes, with their slopes here."""
    along = (taken(volume, i, z, y, x, sz, sy, sx, depth, rows, columns, inside) - here) * scale
    a = _slope(volume, i, z, y, x, sz, sy, sx, az, ay, ax, depth, rows, columns, inside) * scale_a
    b = _slope(volume, i, z, y, x, sz, sy, sx, bz, by, bx, depth, rows, columns, inside) * scale_b
    mean_a, mean_b = 0.5 * (a + slope_a), 0.5 * (b + slope_b)
    return along * tl.exp(-(along * along + mean_a * mean_a + mean_b * mean_b) * inverse)


@triton.jit
def _step(
    out,
    volume,
    width,
    voxels,
    depth,
    rows,
    columns,
    scale_z,
    scale_y,
    scale_x,
    step,
    BLOCK: tl.constexpr,
):
    v, item = lanes(BLOCK), tl.program_id(1).to(tl.int64)
    inside = v < voxels
    z, y, x = place(v, depth, rows, columns)
    i = item * voxels + v
    inverse = tl.load(width + item)
    here = tl.load(volume + i, mask=inside, other=0.0)
    dz = _slope(volume, i, z, y, x, 0, 0, 0, 1, 0, 0, depth, rows, columns, inside) * scale_z
    dy = _slope(volume, i, z, y, x, 0, 0, 0, 0, 1, 0, depth, rows, columns, inside) * scale_y
    dx = _slope(volume, i, z, y, x, 0, 0, 0, 0, 0, 1, depth, rows, columns, inside) * scale_x
    change = tl.zeros((BLOCK,), tl.float32)
    for side in tl.static_range(-1, 2, 2):
        change += _flow(volume, i, z, y, x, here, side, 0, 0, scale_z, 0, 1, 0, 0, 0, 1, scale_y, scale_x,
                                  dy, dx, inverse, depth, rows, columns, inside)  # fmt: skip
        change += _flow(volume, i, z, y, x, here, 0, side, 0, scale_y, 1, 0, 0, 0, 0, 1, scale_z, scale_x,
                                  dz, dx, inverse, depth, rows, columns, inside)  # fmt: skip
        change += _flow(volume, i, z, y, x, here, 0, 0, side, scale_x, 1, 0, 0, 0, 1, 0, scale_z, scale_y,
                                  dz, dy, inverse, depth, rows, columns, inside)  # fmt: skip
    tl.store(out + i, here + step * change, mask=inside)


def program(
    volume: Array,
    *,
    conductance: float = 1.0,
    step: float = 0.0625,
    iterations: int = 5,
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
) -> Program:
    scale = stable_scheme(step, iterations, spacing)
    wide = positive(conductance, "conductance")
    made = Program(__file__)
    here = made.input(as_volumes(volume))
    batch, *size = here.shape
    answer, other = made.output(here.shape), made.scratch(here.shape)
    made.finish(lambda found: found.reshape(volume.shape))
    voxels = int(np.prod(size))
    if iterations == 0:
        made.launch(copy, blocks(answer.size), answer, here, answer.size, BLOCK=BLOCK)
    partial, width = made.scratch((batch, blocks(voxels))), made.scratch((batch,))
    for left in range(iterations, 0, -1):
        there, grid = (answer if left % 2 else other), (blocks(voxels), batch)
        made.launch(_slopes, grid, partial, here, voxels, *size, *scale, BLOCK=BLOCK)
        made.launch(_width, batch if voxels else 0, width, partial, blocks(voxels), voxels, wide, BLOCK=BLOCK)
        made.launch(_step, grid, there, here, width, voxels, *size, *scale, float(step), BLOCK=BLOCK)
        here = there
    return made
