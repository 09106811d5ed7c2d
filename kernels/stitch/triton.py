"""stitch in Triton: a program a row of one channel of one plane."""

from __future__ import annotations

import triton
import triton.language as tl

from voxelrt.kernels.common.gpu.program import Program
from voxelrt.kernels.common.kernel import Array


@triton.jit
def _stitch(
    out,
    sums,
    logits,
    weights,
    channels,
    rows,
    columns,
    sums_z,
    sums_c,
    sums_y,
    sums_x,
    logits_c,
    logits_z,
    logits_y,
    logits_x,
    weights_z,
    weights_y,
    weights_x,
    share,
    HALF: tl.constexpr,
    BLOCK: tl.constexpr,
):
    line = tl.program_id(0).to(tl.int64)
    y = line % rows
    c = line // rows % channels
    z = line // (rows * channels)
    x = tl.program_id(1).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = x < columns
    weight = share * tl.load(weights + z * weights_z + y * weights_y + x * weights_x, mask=inside)
    logit = tl.load(logits + c * logits_c + z * logits_z + y * logits_y + x * logits_x, mask=inside)
    old = tl.load(sums + z * sums_z + c * sums_c + y * sums_y + x * sums_x, mask=inside)
    made = tl.fma(weight, logit, old)
    if HALF:
        made = made.to(tl.float16).to(tl.float32)
    tl.store(out + line * columns + x, made, mask=inside)


def program(sums: Array, logits: Array, weights: Array, *, share: float = 1.0, half: bool = False) -> Program:
    made = Program(__file__)
    z, c, y, x = sums.shape
    old, new, share_of = made.input(sums), made.input(logits), made.input(weights)
    out = made.output(sums.shape)
    strides = (*old.strides, *new.strides, *share_of.strides)
    block = 128
    grid = (z * c * y, -(-x // block))
    made.launch(_stitch, grid, out, old, new, share_of, c, y, x, *strides, float(share), HALF=half, BLOCK=block)
    return made
