"""bilateral in Triton: a lane a voxel, its window in the cache; the window ends at the volume's faces."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import triton
import triton.language as tl

from voxelrt.kernels.common.gpu.program import Program
from voxelrt.kernels.common.gpu.triton_volume import BLOCK, blocks, lanes, place
from voxelrt.kernels.common.kernel import Array
from voxelrt.kernels.common.volumes import as_volumes, spatial_values


@triton.jit
def _bilateral(
    out,
    volume,
    count,
    depth,
    rows,
    columns,
    reach_z,
    reach_y,
    reach_x,
    near_z,
    near_y,
    near_x,
    slope,
    BLOCK: tl.constexpr,
):
    i = lanes(BLOCK)
    inside = i < count
    z, y, x = place(i, depth, rows, columns)
    z, y, x = z.to(tl.int32), y.to(tl.int32), x.to(tl.int32)  # an axis has fewer than 2³¹ voxels; so have windows
    high, wide, deep = rows.to(tl.int32), columns.to(tl.int32), depth.to(tl.int32)
    here = tl.load(volume + i, mask=inside, other=0.0)
    total = tl.zeros((BLOCK,), tl.float32)
    weights = tl.zeros((BLOCK,), tl.float32)
    for dz in range(-reach_z, reach_z + 1):
        for dy in range(-reach_y, reach_y + 1):
            plane = dz * dz * near_z + dy * dy * near_y
            lines = inside & (z + dz >= 0) & (z + dz < deep) & (y + dy >= 0) & (y + dy < high)
            for dx in range(-reach_x, reach_x + 1):
                there = lines & (x + dx >= 0) & (x + dx < wide)
                value = tl.load(volume + i + (dz * rows + dy) * columns + dx, mask=there, other=0.0)
                away = value - here
                far = plane + dx * dx * near_x
                weight = tl.where(there, tl.exp2(-(far + away * away * slope)), 0.0)
                total = tl.fma(weight, value, total)
                weights += weight
    tl.store(out + i, total / tl.where(inside, weights, 1.0), mask=inside)


def program(volume: Array, width: float | Sequence[float], spread: float, *, truncate: float = 2.5) -> Program:
    widths = spatial_values(width, "width")
    if volume.ndim == 2:
        widths = (0.0, *widths[1:])
    half = math.log2(math.e) / 2
    made = Program(__file__)
    source = made.input(as_volumes(volume))
    out = made.output(source.shape)
    made.finish(lambda found: found.reshape(volume.shape))
    # No offset past the volume's far side has a voxel: the loops end there, whatever the width.
    reach = [min(math.ceil(truncate * w), n - 1) for w, n in zip(widths, source.shape[1:], strict=True)]
    near = [half / w**2 if w > 0 else 0.0 for w in widths]
    numbers = (out.size, *source.shape[1:], *map(np.int32, reach), *near, half / spread**2)
    made.launch(_bilateral, blocks(out.size), out, source, *numbers, BLOCK=BLOCK)
    return made
