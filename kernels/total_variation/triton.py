"""total_variation in Triton: Chambolle's projection, an iteration three launches.

When to stop is decided on the device: the third launch marks a volume as done, and all later launches leave it alone.
"""

from __future__ import annotations

import numpy as np
import triton
import triton.language as tl

from voxelrt.errors import UsageError
from voxelrt.kernels.common.gpu.program import Program
from voxelrt.kernels.common.gpu.triton_volume import BLOCK, blocks, lanes, place
from voxelrt.kernels.common.kernel import Array
from voxelrt.kernels.common.volumes import as_volumes


@triton.jit
def _start(field, done, energy, count, batch, BLOCK: tl.constexpr):
    i = lanes(BLOCK)
    tl.store(field + i, tl.zeros((BLOCK,), tl.float32), mask=i < 3 * count)
    tl.store(done + i, tl.zeros((BLOCK,), tl.int32), mask=i < batch)
    tl.store(energy + i, tl.zeros((BLOCK,), tl.float64), mask=i < 2 * batch)


@triton.jit
def _diverge(
    out, partial, volume, field, done, count, voxels, depth, rows, columns, BLOCK: tl.constexpr
):  # fmt: skip
    """The image of this iteration, and each block's sum of squared divergences."""
    v, item = lanes(BLOCK), tl.program_id(1).to(tl.int64)
    if tl.load(done + item) == 0:
        inside = v < voxels
        z, y, x = place(v, depth, rows, columns)
        i = item * voxels + v
        change = -tl.load(field + i, mask=inside, other=0.0)
        change += tl.load(field + i - rows * columns, mask=inside & (z > 0), other=0.0)
        change -= tl.load(field + count + i, mask=inside, other=0.0)
        change += tl.load(field + count + i - columns, mask=inside & (y > 0), other=0.0)
        change -= tl.load(field + 2 * count + i, mask=inside, other=0.0)
        change += tl.load(field + 2 * count + i - 1, mask=inside & (x > 0), other=0.0)
        tl.store(out + i, tl.load(volume + i, mask=inside, other=0.0) + change, mask=inside)
        tl.store(
            partial + item * tl.num_programs(0) + tl.program_id(0), tl.sum(tl.where(inside, change * change, 0.0), 0)
        )


@triton.jit
def _project(
    field, partial, out, done, count, voxels, depth, rows, columns, tau, share, BLOCK: tl.constexpr
):  # fmt: skip
    """The dual field of the next iteration, and each block's sum of the gradient's lengths."""
    v, item = lanes(BLOCK), tl.program_id(1).to(tl.int64)
    if tl.load(done + item) == 0:
        inside = v < voxels
        z, y, x = place(v, depth, rows, columns)
        i = item * voxels + v
        here = tl.load(out + i, mask=inside, other=0.0)
        dz = tl.where(
            z + 1 < depth, tl.load(out + i + rows * columns, mask=inside & (z + 1 < depth), other=0.0) - here, 0.0
        )
        dy = tl.where(y + 1 < rows, tl.load(out + i + columns, mask=inside & (y + 1 < rows), other=0.0) - here, 0.0)
        dx = tl.where(x + 1 < columns, tl.load(out + i + 1, mask=inside & (x + 1 < columns), other=0.0) - here, 0.0)
        norm = tl.sqrt(dz * dz + dy * dy + dx * dx)
        below = 1.0 / (1.0 + share * norm)
        old = tl.load(field + i, mask=inside, other=0.0)
        tl.store(field + i, (old - tau * dz) * below, mask=inside)
        old = tl.load(field + count + i, mask=inside, other=0.0)
        tl.store(field + count + i, (old - tau * dy) * below, mask=inside)
        old = tl.load(field + 2 * count + i, mask=inside, other=0.0)
        tl.store(field + 2 * count + i, (old - tau * dx) * below, mask=inside)
        tl.store(partial + item * tl.num_programs(0) + tl.program_id(0), tl.sum(tl.where(inside, norm, 0.0), 0))


@triton.jit
def _judge(done, energy, squares, norms, count, voxels, weight, tolerance, FIRST: tl.constexpr, BLOCK: tl.constexpr):
    """Mark a volume as done whose energy no longer changes; ``energy`` holds the first and the last of each."""
    item = tl.program_id(0).to(tl.int64)
    if tl.load(done + item) == 0:
        total = tl.zeros((BLOCK,), tl.float64)
        for start in range(0, count, BLOCK):
            at = start + tl.arange(0, BLOCK)
            square = tl.load(squares + item * count + at, mask=at < count, other=0.0).to(tl.float64)
            total += square + tl.load(norms + item * count + at, mask=at < count, other=0.0).to(tl.float64) * weight
        now = tl.sum(total, 0) / voxels
        if FIRST:
            tl.store(energy + 2 * item, now)
        else:
            change = tl.abs(tl.load(energy + 2 * item + 1) - now)
            tl.store(done + item, (change < tolerance * tl.load(energy + 2 * item)).to(tl.int32))
        tl.store(energy + 2 * item + 1, now)


def program(volume: Array, weight: float, *, tolerance: float = 2e-4, iterations: int = 200) -> Program:
    if iterations < 1 or not tolerance >= 0:
        raise UsageError(f"iterations {iterations} and tolerance {tolerance:g}: at least 1, and not below 0")
    made = Program(__file__)
    source = made.input(as_volumes(volume))
    batch, *size = source.shape
    out = made.output(source.shape)
    made.finish(lambda found: found.reshape(volume.shape))
    if out.size == 0:
        return made
    count, voxels = out.size, int(np.prod(size))
    tau = 1 / (4 if volume.ndim == 2 else 6)
    field, done, energy = (
        made.scratch((3, count)),
        made.scratch((batch,), np.int32),
        made.scratch((batch, 2), np.float64),
    )
    squares, norms = (made.scratch((batch, blocks(voxels))) for _ in range(2))
    made.launch(_start, blocks(3 * count), field, done, energy, count, batch, BLOCK=BLOCK)
    grid, sizes = (blocks(voxels), batch), (count, voxels, *size)
    for number in range(iterations):
        made.launch(_diverge, grid, out, squares, source, field, done, *sizes, BLOCK=BLOCK)
        made.launch(_project, grid, field, norms, out, done, *sizes, tau, tau / weight, BLOCK=BLOCK)
        numbers = (blocks(voxels), voxels, np.float64(weight), np.float64(tolerance))
        made.launch(_judge, batch, done, energy, squares, norms, *numbers, FIRST=number == 0, BLOCK=BLOCK)
    return made
