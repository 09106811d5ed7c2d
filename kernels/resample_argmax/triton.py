"""resample_argmax in Triton: a lane a voxel of the answer, all classes in turn; no resampled logit is stored."""

from __future__ import annotations

import numpy as np
import triton
import triton.language as tl

from voxelrt.kernels.common.gpu.program import Program
from voxelrt.kernels.common.gpu.triton_volume import BLOCK, blocks, lanes
from voxelrt.kernels.common.kernel import Array
from voxelrt.kernels.resample_argmax.device_arguments import problem
from voxelrt.kernels.resample_argmax.taps import Taps


@triton.jit
def _corner(sums, counts, c, sums_c, sums_y, counts_y, y, x, inside):
    """A class's mean at a voxel of a plane."""
    value = tl.load(sums + c * sums_c + y * sums_y + x, mask=inside, other=0.0)
    return value / tl.load(counts + y * counts_y + x, mask=inside, other=1.0)


@triton.jit
def _between(sums, counts, c, sums_c, sums_y, counts_y, y0, y1, x0, x1, along_y, along_x, inside):
    """A class's mean at a place of a plane; what has no weight is not looked at."""
    lower, upper = inside & (along_y < 1.0), inside & (along_y > 0.0)
    left, right = along_x < 1.0, along_x > 0.0
    here = _corner(sums, counts, c, sums_c, sums_y, counts_y, y0, x0, lower & left) * (1.0 - along_y)
    here = tl.where(lower, here, 0.0)
    below = _corner(sums, counts, c, sums_c, sums_y, counts_y, y1, x0, upper & left) * along_y
    start = here + tl.where(upper, below, 0.0)
    here = _corner(sums, counts, c, sums_c, sums_y, counts_y, y0, x1, lower & right) * (1.0 - along_y)
    here = tl.where(lower, here, 0.0)
    below = _corner(sums, counts, c, sums_c, sums_y, counts_y, y1, x1, upper & right) * along_y
    end = here + tl.where(upper, below, 0.0)
    return tl.where(left, start * (1.0 - along_x), 0.0) + tl.where(right, end * along_x, 0.0)


@triton.jit
def _decide(
    out,
    lower,
    upper,
    lower_counts,
    upper_counts,
    rows,
    row_weights,
    columns,
    column_weights,
    values,
    classes,
    count,
    width,
    rows_n,
    columns_n,
    lower_c,
    lower_y,
    lower_count_y,
    upper_c,
    upper_y,
    upper_count_y,
    weight,
    LOWER: tl.constexpr,
    UPPER: tl.constexpr,
    REGIONS: tl.constexpr,
    HALF: tl.constexpr,
    BLOCK: tl.constexpr,
):
    i = lanes(BLOCK)
    inside = i < count
    y, x = i // width, i % width
    y0 = tl.load(rows + y, mask=inside, other=0).to(tl.int64)
    y1 = tl.load(rows + rows_n + y, mask=inside, other=0).to(tl.int64)
    x0 = tl.load(columns + x, mask=inside, other=0).to(tl.int64)
    x1 = tl.load(columns + columns_n + x, mask=inside, other=0).to(tl.int64)
    along_y = tl.load(row_weights + y, mask=inside, other=0.0)
    along_x = tl.load(column_weights + x, mask=inside, other=0.0)
    best = tl.full((BLOCK,), float("-inf"), tl.float32)
    label = tl.zeros((BLOCK,), tl.int32)
    if not REGIONS:
        label += tl.load(values)
    for c in range(classes):
        logit = tl.zeros((BLOCK,), tl.float32)
        if LOWER:
            found = _between(lower, lower_counts, c, lower_c, lower_y, lower_count_y, y0, y1, x0, x1, along_y, along_x,
                             inside)  # fmt: skip
            logit += (1.0 - weight) * found
        if UPPER:
            found = _between(upper, upper_counts, c, upper_c, upper_y, upper_count_y, y0, y1, x0, x1, along_y, along_x,
                             inside)  # fmt: skip
            logit += weight * found
        if HALF:
            logit = logit.to(tl.float16).to(tl.float32)
        wins = logit > 0.0
        if not REGIONS:
            wins = logit > best
            best = tl.where(wins, logit, best)
        label = tl.where(wins, tl.load(values + c), label)
    tl.store(out + i, label.to(out.dtype.element_ty), mask=inside)


def program(
    lower: tuple[Array, Array],
    upper: tuple[Array, Array],
    weight: float,
    rows: Taps,
    columns: Taps,
    values: Array,
    *,
    regions: bool = False,
    half: bool = False,
    dtype: type = np.uint8,
    head: Array | None = None,
    out: Array | None = None,
) -> Program:
    on = problem(__file__, "triton", (lower, upper), rows, columns, values, dtype, head, out)
    height, width = on.out.shape
    strides = [stride for sums, counts in (on.lower, on.upper) for stride in (*sums.strides[:2], counts.strides[0])]
    numbers = (len(values), on.out.size, width, height, width, *strides, float(weight))
    tables = (on.tables.rows_at, on.tables.row_weights, on.tables.columns_at, on.tables.column_weights)
    on.program.launch(
        _decide,
        blocks(on.out.size),
        *(on.out, on.lower[0], on.upper[0], on.lower[1], on.upper[1], *tables, on.tables.values),
        *numbers,
        LOWER=weight < 1,
        UPPER=weight > 0,
        REGIONS=regions,
        HALF=half,
        BLOCK=BLOCK,
    )
    return on.program
