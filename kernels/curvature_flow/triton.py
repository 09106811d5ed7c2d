"""curvature_flow in Triton: a launch an iteration, between two buffers."""

from __future__ import annotations

from collections.abc import Sequence

import triton
import triton.language as tl

from voxelrt.kernels.common.gpu.program import Program
from voxelrt.kernels.common.gpu.triton_volume import BLOCK, blocks, copy, lanes, place, taken
from voxelrt.kernels.common.kernel import Array
from voxelrt.kernels.common.volumes import as_volumes, stable_scheme


@triton.jit
def _crossed(volume, i, z, y, x, az, ay, ax, bz, by, bx, depth, rows, columns, inside):
    """Four times the mixed second difference along two axes."""
    both = taken(volume, i, z, y, x, az + bz, ay + by, ax + bx, depth, rows, columns, inside)
    both += taken(volume, i, z, y, x, -az - bz, -ay - by, -ax - bx, depth, rows, columns, inside)
    both -= taken(volume, i, z, y, x, az - bz, ay - by, ax - bx, depth, rows, columns, inside)
    return both - taken(volume, i, z, y, x, bz - az, by - ay, bx - ax, depth, rows, columns, inside)


@triton.jit
def _step(out, volume, count, depth, rows, columns, scale_z, scale_y, scale_x, step, BLOCK: tl.constexpr):
    i = lanes(BLOCK)
    inside = i < count
    z, y, x = place(i, depth, rows, columns)
    here = tl.load(volume + i, mask=inside, other=0.0)
    up_z = taken(volume, i, z, y, x, 1, 0, 0, depth, rows, columns, inside)
    down_z = taken(volume, i, z, y, x, -1, 0, 0, depth, rows, columns, inside)
    up_y = taken(volume, i, z, y, x, 0, 1, 0, depth, rows, columns, inside)
    down_y = taken(volume, i, z, y, x, 0, -1, 0, depth, rows, columns, inside)
    up_x = taken(volume, i, z, y, x, 0, 0, 1, depth, rows, columns, inside)
    down_x = taken(volume, i, z, y, x, 0, 0, -1, depth, rows, columns, inside)
    dz, dy, dx = (up_z - down_z) * 0.5 * scale_z, (up_y - down_y) * 0.5 * scale_y, (up_x - down_x) * 0.5 * scale_x
    dzz = ((up_z - here) - (here - down_z)) * scale_z * scale_z
    dyy = ((up_y - here) - (here - down_y)) * scale_y * scale_y
    dxx = ((up_x - here) - (here - down_x)) * scale_x * scale_x
    dzy = _crossed(volume, i, z, y, x, 1, 0, 0, 0, 1, 0, depth, rows, columns, inside) * 0.25 * scale_z * scale_y
    dzx = _crossed(volume, i, z, y, x, 1, 0, 0, 0, 0, 1, depth, rows, columns, inside) * 0.25 * scale_z * scale_x
    dyx = _crossed(volume, i, z, y, x, 0, 1, 0, 0, 0, 1, depth, rows, columns, inside) * 0.25 * scale_y * scale_x
    total = dz * dz * (dyy + dxx) + dy * dy * (dzz + dxx) + dx * dx * (dzz + dyy)
    total -= 2.0 * (dz * dy * dzy + dz * dx * dzx + dy * dx * dyx)
    squared = dz * dz + dy * dy + dx * dx
    change = tl.where(squared < 1e-9, 0.0, total / tl.maximum(squared, 1e-9))
    tl.store(out + i, here + step * change, mask=inside)


def program(
    volume: Array, *, step: float = 0.0625, iterations: int = 5, spacing: Sequence[float] = (1.0, 1.0, 1.0)
) -> Program:
    scale = stable_scheme(step, iterations, spacing)
    made = Program(__file__)
    here = made.input(as_volumes(volume))
    answer, other = made.output(here.shape), made.scratch(here.shape)
    made.finish(lambda found: found.reshape(volume.shape))
    if iterations == 0:
        made.launch(copy, blocks(answer.size), answer, here, answer.size, BLOCK=BLOCK)
    for left in range(iterations, 0, -1):
        there = answer if left % 2 else other
        numbers = (answer.size, *here.shape[1:], *scale, float(step))
        made.launch(_step, blocks(answer.size), there, here, *numbers, BLOCK=BLOCK)
        here = there
    return made
