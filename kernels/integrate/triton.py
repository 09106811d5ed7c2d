"""integrate in Triton: a scaling, a launch for each squaring between two buffers of vectors, the planes of the answer.

A vector is z, y, x and a pad, so that a corner of a voxel is one load of 16 bytes.
"""

from __future__ import annotations

import numpy as np
import triton
import triton.language as tl

from voxelrt.kernels.common.gpu.program import Program
from voxelrt.kernels.common.gpu.triton_interpolate import FAR, corner, within
from voxelrt.kernels.common.gpu.triton_volume import BLOCK, blocks, lanes, place
from voxelrt.kernels.common.kernel import Array
from voxelrt.kernels.integrate.codes import PADDINGS
from voxelrt.kernels.integrate.device_arguments import check


@triton.jit
def _scale(
    out,
    velocity,
    count,
    depth,
    rows,
    columns,
    batch_stride,
    component_stride,
    stride_z,
    stride_y,
    stride_x,
    factor,
    FIRST: tl.constexpr,
    BLOCK: tl.constexpr,
):
    i = lanes(BLOCK)
    z, y, x = place(i, depth, rows, columns)
    at = i // (depth * rows * columns) * batch_stride + z * stride_z + y * stride_y + x * stride_x
    k = tl.arange(0, 4)
    given = (i < count)[:, None] & (k >= FIRST)[None, :] & (k < 3)[None, :]
    u = tl.load(velocity + at[:, None] + (k - FIRST)[None, :] * component_stride, mask=given, other=0.0)
    tl.store(out + i[:, None] * 4 + k[None, :], u.to(tl.float32) * factor, mask=(i < count)[:, None])


@triton.jit
def _component(vectors, k, K: tl.constexpr):
    return tl.sum(tl.where(k[None, :] == K, vectors, 0.0), 1)


@triton.jit
def _squared(field, i, count, depth, rows, columns, PADDING: tl.constexpr):
    """u(x) + u(x + u(x)); vectors that are not numbers give NaN."""
    k = tl.arange(0, 4)
    inside = i < count
    here = tl.load(field + i[:, None] * 4 + k[None, :], mask=inside[:, None], other=0.0)
    uz, uy, ux = _component(here, k, 0), _component(here, k, 1), _component(here, k, 2)
    lost = (uz != uz) | (uy != uy) | (ux != ux)
    uz, uy, ux = tl.where(lost, 0.0, uz), tl.where(lost, 0.0, uy), tl.where(lost, 0.0, ux)
    uz, uy, ux = within(uz, FAR), within(uy, FAR), within(ux, FAR)
    dz, dy, dx = tl.floor(uz), tl.floor(uy), tl.floor(ux)
    z, y, x = place(i, depth, rows, columns)
    iz, iy, ix = z.to(tl.int32) + dz.to(tl.int32), y.to(tl.int32) + dy.to(tl.int32), x.to(tl.int32) + dx.to(tl.int32)
    mine = field + i // (depth * rows * columns) * (depth * rows * columns) * 4
    found = tl.zeros_like(here)
    for c in tl.static_range(8):
        at, weight, there = corner(
            c, iz, iy, ix, uz - dz, uy - dy, ux - dx, depth, rows, columns, rows * columns, columns, 1, PADDING
        )
        u = tl.load(mine[:, None] + at[:, None] * 4 + k[None, :], mask=(there & inside)[:, None], other=0.0)
        found += weight[:, None] * u
    return tl.where(lost[:, None], float("nan"), here + found)


@triton.jit
def _square(out, field, count, depth, rows, columns, PADDING: tl.constexpr, BLOCK: tl.constexpr):
    i = lanes(BLOCK)
    made = _squared(field, i, count, depth, rows, columns, PADDING)
    tl.store(out + i[:, None] * 4 + tl.arange(0, 4)[None, :], made, mask=(i < count)[:, None])


@triton.jit
def _finish(
    out,
    field,
    count,
    depth,
    rows,
    columns,
    SQUARE: tl.constexpr,
    FIRST: tl.constexpr,
    PADDING: tl.constexpr,
    BLOCK: tl.constexpr,
):
    i = lanes(BLOCK)
    k = tl.arange(0, 4)
    inside = (i < count)[:, None]
    if SQUARE:
        made = _squared(field, i, count, depth, rows, columns, PADDING)
    else:
        made = tl.load(field + i[:, None] * 4 + k[None, :], mask=inside, other=0.0)
    voxels = depth * rows * columns
    at = i // voxels * (3 - FIRST) * voxels + i % voxels
    planes = inside & (k >= FIRST)[None, :] & (k < 3)[None, :]
    tl.store(out + at[:, None] + (k - FIRST)[None, :] * voxels, made.to(out.dtype.element_ty), mask=planes)


def program(velocity: Array, *, steps: int = 7, padding: str = "zeros", out: Array | None = None) -> Program:
    check(velocity, padding, out, "triton")
    made = Program(__file__)
    answer = made.output(velocity.shape, velocity.dtype)
    if answer.size == 0:
        return made
    batch, axes, *size = velocity.shape
    sizes = (*(1,) * (3 - axes), *size)
    count = batch * int(np.prod(sizes))
    given, first, code = made.input(velocity), 3 - axes, PADDINGS.index(padding)
    strides = (*given.strides[:2], *(0,) * first, *given.strides[2:])
    here, there = (made.scratch((count, 4)) for _ in range(2))
    numbers = (count, *sizes)
    made.launch(_scale, blocks(count), here, given, *numbers, *strides, 0.5**steps, FIRST=first, BLOCK=BLOCK)
    for _ in range(steps - 1):
        made.launch(_square, blocks(count), there, here, *numbers, PADDING=code, BLOCK=BLOCK)
        here, there = there, here
    made.launch(
        _finish, blocks(count), answer, here, *numbers, SQUARE=steps > 0, FIRST=first, PADDING=code, BLOCK=BLOCK
    )
    return made
