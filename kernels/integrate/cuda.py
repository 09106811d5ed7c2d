"""integrate as a CUDA program: a scaling, then a launch for each squaring, between two buffers."""

from __future__ import annotations

import ml_dtypes
import numpy as np

from voxelrt.errors import ShapeError, UnsupportedError, UsageError
from voxelrt.kernels.common.gpu.program import TYPE_NAMES, Program
from voxelrt.kernels.common.kernel import Array
from voxelrt.kernels.integrate.codes import PADDINGS

_SUFFIXES = {"fp32": "f32", "fp16": "f16", "bf16": "bf16"}
ENTRIES = (
    *(f"voxelrt_integrate_{what}_{suffix}" for what in ("scale", "finish") for suffix in _SUFFIXES.values()),
    "voxelrt_integrate_square",
)
_DTYPES = (np.dtype(np.float32), np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16))
_BLOCK = 256
_MOST_BLOCKS = 1 << 16
_LONGEST = 1 << 22


def program(velocity: Array, *, steps: int = 7, padding: str = "zeros", out: Array | None = None) -> Program:
    _check(velocity, padding, out)
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


def _check(velocity: Array, padding: str, out: Array | None) -> None:
    advice = "use backend='cpu'"
    if padding not in PADDINGS:
        raise UsageError(f"padding is {padding!r}; it is one of {', '.join(PADDINGS)}")
    if velocity.ndim not in (4, 5) or velocity.shape[1] != velocity.ndim - 2:
        raise ShapeError(f"a velocity field is (N, 3, Z, Y, X) or (N, 2, Y, X), not {velocity.shape}")
    if out is not None:
        raise UnsupportedError(f"integrate on cuda does not write to a given array: leave out away or {advice}")
    if velocity.dtype not in _DTYPES:
        raise UnsupportedError(f"integrate on cuda takes no {velocity.dtype}, only floats to 32 bits: {advice}")
    if max(velocity.shape[2:]) > _LONGEST:
        raise UnsupportedError(f"integrate on cuda takes axes of up to {_LONGEST} voxels, not {velocity.shape}")
