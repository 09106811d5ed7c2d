"""jacobian in Triton: central differences by strides, the determinant, and folded voxels counted block by block."""

from __future__ import annotations

import numpy as np
import triton
import triton.language as tl

from voxelrt.errors import ShapeError, UnsupportedError
from voxelrt.kernels.common.gpu.program import Program
from voxelrt.kernels.common.gpu.triton_volume import BLOCK, blocks, lanes, place
from voxelrt.kernels.common.kernel import Array


@triton.jit
def _slope(field, i, at, size, stride, inside):
    """The difference along an axis, one-sided at its ends and none where it has one voxel."""
    up, down = (at + 1 < size).to(tl.int64), (at > 0).to(tl.int64)
    ahead = tl.load(field + i + up * stride, mask=inside, other=0.0)
    behind = tl.load(field + i - down * stride, mask=inside, other=0.0)
    return (ahead - behind) / tl.maximum(up + down, 1).to(tl.float32)


@triton.jit
def _determinant(out, partial, field, voxels, depth, rows, columns, AXES: tl.constexpr, BLOCK: tl.constexpr):
    v, item = lanes(BLOCK), tl.program_id(1).to(tl.int64)
    inside = v < voxels
    z, y, x = place(v, depth, rows, columns)
    plane = rows * columns
    first = field + item * AXES * voxels
    if AXES == 3:
        zz = 1.0 + _slope(first, v, z, depth, plane, inside)
        zy, zx = _slope(first, v, y, rows, columns, inside), _slope(first, v, x, columns, 1, inside)
        first += voxels
        yz = _slope(first, v, z, depth, plane, inside)
        xz = _slope(first + voxels, v, z, depth, plane, inside)
    yy, yx = 1.0 + _slope(first, v, y, rows, columns, inside), _slope(first, v, x, columns, 1, inside)
    xy = _slope(first + voxels, v, y, rows, columns, inside)
    xx = 1.0 + _slope(first + voxels, v, x, columns, 1, inside)
    made = yy * xx - yx * xy
    if AXES == 3:
        made = zz * made - zy * (yz * xx - yx * xz) + zx * (yz * xy - yy * xz)
    tl.store(out + item * voxels + v, made, mask=inside)
    folded = (inside & (made <= 0.0)).to(tl.int32)
    tl.store(partial + item * tl.num_programs(0) + tl.program_id(0), tl.sum(folded, 0))


@triton.jit
def _count(folded, partial, count, BLOCK: tl.constexpr):
    item = tl.program_id(0).to(tl.int64)
    total = tl.zeros((BLOCK,), tl.int64)
    for start in range(0, count, BLOCK):
        at = start + tl.arange(0, BLOCK)
        total += tl.load(partial + item * count + at, mask=at < count, other=0).to(tl.int64)
    tl.store(folded + item, tl.sum(total, 0))


def program(displacement: Array) -> Program:
    if displacement.ndim not in (4, 5) or displacement.shape[1] != displacement.ndim - 2:
        raise ShapeError(f"a field is (N, 3, Z, Y, X) or (N, 2, Y, X); this one has the shape {displacement.shape}")
    if displacement.dtype != np.float32:
        raise UnsupportedError(f"jacobian on triton takes float32, not {displacement.dtype}: use backend='cpu'")
    batch, axes, *size = displacement.shape
    made = Program(__file__)
    out, folded = made.output((batch, 1, *size)), made.output((batch,), np.int64)
    field = made.input(np.ascontiguousarray(displacement))
    sizes, voxels = (*(1,) * (3 - axes), *size), int(np.prod(size))
    partial = made.scratch((batch, blocks(voxels)), np.int32)
    made.launch(_determinant, (blocks(voxels), batch), out, partial, field, voxels, *sizes, AXES=axes, BLOCK=BLOCK)
    made.launch(_count, batch, folded, partial, blocks(voxels), BLOCK=BLOCK)
    return made
