"""preprocess in Triton: a lane a value of the answer, read where it lies in a volume of any strides."""

from __future__ import annotations

from collections.abc import Sequence

import ml_dtypes
import numpy as np
import triton
import triton.language as tl

from voxelrt.kernels.common.gpu.program import Program
from voxelrt.kernels.common.gpu.triton_volume import BLOCK, blocks, lanes
from voxelrt.kernels.common.kernel import Array
from voxelrt.kernels.preprocess.tables import readable, scales


@triton.jit
def _preprocess(
    out,
    volume,
    table,
    count,
    channels,
    depth,
    rows,
    columns,
    volume_n,
    volume_c,
    volume_z,
    volume_y,
    volume_x,
    slope,
    intercept,
    low,
    high,
    BLOCK: tl.constexpr,
):
    i = lanes(BLOCK)
    inside = i < count
    x, y, z = i % columns, i // columns % rows, i // (columns * rows) % depth
    c, n = i // (columns * rows * depth) % channels, i // (columns * rows * depth * channels)
    at = n * volume_n + c * volume_c + z * volume_z + y * volume_y + x * volume_x
    value = tl.fma(tl.load(volume + at, mask=inside, other=0).to(tl.float32), slope, intercept)
    value = tl.where(value < low, low, value)  # a NaN is neither, and stays
    value = tl.where(value > high, high, value)
    mean = tl.load(table + 2 * c, mask=inside, other=0.0)
    share = tl.load(table + 2 * c + 1, mask=inside, other=0.0)
    tl.store(out + i, ((value - mean) * share).to(out.dtype.element_ty), mask=inside)


def program(
    volume: Array,
    *,
    slope: float = 1.0,
    intercept: float = 0.0,
    low: float = -np.inf,
    high: float = np.inf,
    mean: Sequence[float] = (0.0,),
    deviation: Sequence[float] = (1.0,),
    dtype: str = "float32",
) -> Program:
    batch = readable(volume)
    made = Program(__file__)
    answer = made.output(batch.shape, ml_dtypes.bfloat16 if dtype == "bfloat16" else np.dtype(dtype))
    made.finish(lambda found: found.reshape(volume.shape))
    if answer.size == 0:
        return made
    given = made.input(batch)
    numbers = (float(slope), float(intercept), float(low), float(high))
    sizes = (answer.size, *batch.shape[1:], *given.strides)
    table = made.input(scales(batch.shape[1], mean, deviation))
    made.launch(_preprocess, blocks(answer.size), answer, given, table, *sizes, *numbers, BLOCK=BLOCK)
    return made
