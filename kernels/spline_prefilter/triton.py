"""spline_prefilter in Triton: a launch an axis, a lane a line, forth and back along it."""

from __future__ import annotations

import numpy as np
import triton
import triton.language as tl

from voxelrt.errors import ShapeError, UnsupportedError
from voxelrt.kernels.common.gpu.program import Program
from voxelrt.kernels.common.gpu.triton_volume import BLOCK, blocks, copy, lanes, mirrored
from voxelrt.kernels.common.kernel import Array

_TYPES = ("float32", "float16", "bfloat16", "int16", "uint16", "int8", "uint8")


@triton.jit
def _along(out, volume, lines, size, stride, BLOCK: tl.constexpr):
    line = lanes(BLOCK)
    inside = line < lines
    start = line // stride * (stride * size) + line % stride
    pole = -0.2679491924311227  # the root of 3 less 2
    # The first coefficient of the way forth: the mirrored volume, as far as float32 sees.
    last = tl.zeros((BLOCK,), tl.float32)
    power = tl.full((BLOCK,), 6.0, tl.float32)
    for k in range(16):
        at = start + mirrored(k + tl.zeros((BLOCK,), tl.int64), size) * stride
        last += power * tl.load(volume + at, mask=inside, other=0).to(tl.float32)
        power *= pole
    tl.store(out + start, last, mask=inside)
    for k in range(1, size):
        value = tl.load(volume + start + k * stride, mask=inside, other=0).to(tl.float32)
        last = 6.0 * value + pole * last
        tl.store(out + start + k * stride, last, mask=inside)
    # Read back, not carried: Triton 3.9 folds a carried `before = last` to its first value.
    before = tl.load(out + start + (size - 2) * stride, mask=inside, other=0.0)
    last = (last + pole * before) * (pole / (pole * pole - 1.0))
    tl.store(out + start + (size - 1) * stride, last, mask=inside)
    for k in range(1, size):
        at = start + (size - 1 - k) * stride
        last = pole * (last - tl.load(out + at, mask=inside, other=0.0))
        tl.store(out + at, last, mask=inside)


def program(volume: Array, *, out: Array | None = None) -> Program:
    if out is not None:
        raise UnsupportedError("spline_prefilter on triton does not write to a given array: leave out away")
    if volume.ndim not in (4, 5):
        raise ShapeError(f"a volume is (N, C, Z, Y, X) or (N, C, Y, X), not {volume.shape}")
    if volume.dtype.name not in _TYPES:
        raise UnsupportedError(f"spline_prefilter on triton takes no {volume.dtype}: use backend='cpu'")
    made = Program(__file__)
    here = made.input(np.ascontiguousarray(volume))
    answer = made.output(volume.shape)
    if answer.size == 0:
        return made
    axes = [a for a in range(2, volume.ndim) if volume.shape[a] > 1]
    if not axes:
        made.launch(copy, blocks(answer.size), answer, here, answer.size, BLOCK=BLOCK)
    for index, axis in enumerate(axes):
        there = answer if index == len(axes) - 1 else made.scratch(volume.shape)
        lines = answer.size // volume.shape[axis]
        numbers = (lines, volume.shape[axis], answer.strides[axis])
        made.launch(_along, blocks(lines), there, here, *numbers, BLOCK=BLOCK)
        here = there
    return made
