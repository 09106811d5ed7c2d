"""integrate as a CUDA program: a scaling, then a launch for each squaring, between two buffers."""

from __future__ import annotations

import numpy as np

from voxelrt.kernels.common.gpu.program import TYPE_NAMES, Program
from voxelrt.kernels.common.kernel import Array
from voxelrt.kernels.integrate.codes import PADDINGS
from voxelrt.kernels.integrate.device_arguments import check

_SUFFIXES = {"fp32": "f32", "fp16": "f16", "bf16": "bf16"}
ENTRIES = (
    *(f"voxelrt_integrate_{what}_{suffix}" for what in ("scale", "finish") for suffix in _SUFFIXES.values()),
    "voxelrt_integrate_square",
)
_BLOCK = 256
_MOST_BLOCKS = 1 << 16


def program(velocity: Array, *, steps: int = 7, padding: str = "zeros", out: Array | None = None) -> Program:
    check(velocity, padding, out, "cuda")
    made = Program(__file__)
    answer = made.output(velocity.shape, velocity.dtype)
    if answer.size == 0:
        return made
    batch, axes, *size = velocity.shape
    sizes = (*(1,) * (3 - axes), *size)
    count = batch * int(np.prod(sizes))
    given, first = made.input(velocity), np.int32(3 - axes)
    strides = (*given.strides[:2], *(0,) * (3 - axes), *given.strides[2:])
    suffix, code = _SUFFIXES[TYPE_NAMES[velocity.dtype]], np.int32(PADDINGS.index(padding))
    here, there = (made.scratch((count, 4)) for _ in range(2))
    blocks = min(-(-count // _BLOCK), _MOST_BLOCKS)
    factor = 0.5**steps
    scaled = (here, given, count, *sizes, *strides, first, factor)
    made.launch(f"voxelrt_integrate_scale_{suffix}", blocks, *scaled, block=_BLOCK)
    for _ in range(steps - 1):
        made.launch("voxelrt_integrate_square", blocks, there, here, count, *sizes, code, block=_BLOCK)
        here, there = there, here
    last = (answer, here, count, *sizes, first, np.int32(steps), code)
    made.launch(f"voxelrt_integrate_finish_{suffix}", blocks, *last, block=_BLOCK)
    return made
