"""warp3d in Triton: a program a piece of a row, a lane a voxel and all its channels.

The affine part of a position is worked out in float64 once for the piece's first voxel; along the row it goes on in
float32 as a whole number and a rest, which are never added. So is the displacement.
"""

from __future__ import annotations

from collections.abc import Sequence

import triton
import triton.language as tl

from voxelrt.kernels.common.gpu.program import Program
from voxelrt.kernels.common.gpu.triton_interpolate import FAR, corner, tap, within
from voxelrt.kernels.common.kernel import Array
from voxelrt.kernels.warp3d.codes import PADDINGS
from voxelrt.kernels.warp3d.device_arguments import check, nan_bits, operands

_BLOCK = 128


@triton.jit
def _affine(row, z, y, x, lane, BLOCK: tl.constexpr):
    """Whole part and rest along one axis, for voxels z, y, x to x + BLOCK - 1."""
    along = tl.load(row + 2)
    start = tl.load(row) * z + tl.load(row + 1) * y + along * x + tl.load(row + 3)
    start, slope = within(start, FAR), within(along, FAR / BLOCK)
    first, step = tl.floor(start), tl.floor(slope + 0.5)
    part = (slope - step).to(tl.float32)
    low = (slope - step - part.to(tl.float64)).to(tl.float32)
    whole = tl.floor(lane * part + 0.5)
    rest = (start - first).to(tl.float32) + (tl.fma(lane, part + tl.zeros_like(lane), -whole) + lane * low)
    return first.to(tl.float32) + lane * step.to(tl.float32) + whole, rest


@triton.jit
def _add_product(high, low, u, index, rest):
    """Add m·u to a place. The whole part is off before the product is rounded."""
    size = tl.abs(high)
    v = within(u, FAR / tl.maximum(size, 1.0))
    high = high + tl.zeros_like(u)
    whole = tl.floor(v * high + 0.5)
    return index + whole, rest + (tl.fma(v, high, -whole) + v * low)


@triton.jit
def _moved(matrix, k, uz, uy, ux, index, rest, MATRIX: tl.constexpr, own):
    """A place with its displacement along axis k."""
    if MATRIX:
        high, low = tl.load(matrix + 3 * k), tl.load(matrix + 9 + 3 * k)
        if high != 0.0:
            index, rest = _add_product(high, low, uz, index, rest)
        high, low = tl.load(matrix + 3 * k + 1), tl.load(matrix + 9 + 3 * k + 1)
        if high != 0.0:
            index, rest = _add_product(high, low, uy, index, rest)
        high, low = tl.load(matrix + 3 * k + 2), tl.load(matrix + 9 + 3 * k + 2)
        if high != 0.0:
            index, rest = _add_product(high, low, ux, index, rest)
    else:
        index, rest = _add_product(1.0, 0.0, own, index, rest)
    return index, rest


@triton.jit
def _settled(index, rest):
    """The rest from 0 to 1 behind the whole part."""
    down = tl.floor(rest)
    return index + down, rest - down


@triton.jit
def _near(index, rest, PADDING: tl.constexpr):
    """The nearest voxel, of two equally near ones the even one or, as ITK has it, the upper one."""
    if PADDING == 5:
        up = rest >= 0.5
    else:
        up = (rest > 0.5) | ((rest == 0.5) & (index % 2 != 0))
    return index + up.to(tl.int32)


@triton.jit
def _before_faces(index, rest, size):
    """Whether a place lies within half a voxel of an axis; the upper face no longer does."""
    low = (index >= 0) | ((index == -1) & (rest >= 0.5))
    return low & ((index < size - 1) | ((index == size - 1) & (rest < 0.5)))


@triton.jit
def _warp(
    out,
    volume,
    field,
    affine,
    matrix,
    channels,
    depth,
    rows,
    columns,
    size_z,
    size_y,
    size_x,
    batch_stride,
    channel_stride,
    stride_z,
    stride_y,
    stride_x,
    field_n,
    field_c,
    field_z,
    field_y,
    field_x,
    affine_n,
    nothing,
    FIELD: tl.constexpr,
    FIRST: tl.constexpr,
    MATRIX: tl.constexpr,
    NEAREST: tl.constexpr,
    PADDING: tl.constexpr,
    BLOCK: tl.constexpr,
):
    piece, n = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    pieces = (columns + BLOCK - 1) // BLOCK
    line = piece // pieces
    z, y, x0 = line // rows, line % rows, piece % pieces * BLOCK
    x = x0 + tl.arange(0, BLOCK)
    inside = x < columns
    lane = tl.arange(0, BLOCK).to(tl.float32)
    row = affine + n * affine_n
    iz, rz = _affine(row, z, y, x0, lane, BLOCK)
    iy, ry = _affine(row + 4, z, y, x0, lane, BLOCK)
    ix, rx = _affine(row + 8, z, y, x0, lane, BLOCK)
    if FIELD:
        moved = field + n * field_n + z * field_z + y * field_y + x * field_x
        uz = tl.zeros((BLOCK,), tl.float32)
        if FIRST == 0:
            uz = tl.load(moved, mask=inside, other=0.0).to(tl.float32)
        uy = tl.load(moved + (1 - FIRST) * field_c, mask=inside, other=0.0).to(tl.float32)
        ux = tl.load(moved + (2 - FIRST) * field_c, mask=inside, other=0.0).to(tl.float32)
        iz, rz = _moved(matrix, 0, uz, uy, ux, iz, rz, MATRIX, uz)
        iy, ry = _moved(matrix, 1, uz, uy, ux, iy, ry, MATRIX, uy)
        ix, rx = _moved(matrix, 2, uz, uy, ux, ix, rx, MATRIX, ux)
    iz, rz = _settled(iz, rz)
    iy, ry = _settled(iy, ry)
    ix, rx = _settled(ix, rx)
    gone = rz + ry + rx + (iz + iy + ix) * 0.0
    lost = gone != gone
    wz, wy, wx = (
        tl.where(lost, 0.0, iz).to(tl.int32),
        tl.where(lost, 0.0, iy).to(tl.int32),
        tl.where(lost, 0.0, ix).to(tl.int32),
    )
    known = inside & (lost == 0)
    if PADDING == 5 and not NEAREST:
        known = known & _before_faces(wz, rz, size_z) & _before_faces(wy, ry, size_y) & _before_faces(wx, rx, size_x)
    source = volume + n * batch_stride
    target = out + ((n * channels * depth + z) * rows + y) * columns + x
    plane = depth * rows * columns
    if NEAREST:
        beyond: tl.constexpr = 0 if PADDING == 5 else PADDING
        tz, has_z = tap(_near(wz, rz, PADDING), size_z, beyond)
        ty, has_y = tap(_near(wy, ry, PADDING), size_y, beyond)
        tx, has_x = tap(_near(wx, rx, PADDING), size_x, beyond)
        at = tz * stride_z + ty * stride_y + tx * stride_x
        there = known & has_z & has_y & has_x
        for c in range(channels):
            value = tl.load(source + c * channel_stride + at, mask=there, other=0)
            value = tl.where(lost, nothing.to(out.dtype.element_ty), value)
            tl.store(target + c * plane, value, mask=inside)
    else:
        for c in range(channels):
            total = tl.where(lost, gone, 0.0)
            for k in tl.static_range(8):
                at, weight, there = corner(
                    k, wz, wy, wx, rz, ry, rx, size_z, size_y, size_x, stride_z, stride_y, stride_x, PADDING
                )
                value = tl.load(source + c * channel_stride + at, mask=known & there, other=0.0).to(tl.float32)
                total = tl.where(lost, total, tl.fma(weight, value, total))
            tl.store(target + c * plane, total.to(out.dtype.element_ty), mask=inside)


def program(
    volume: Array,
    displacement: Array | None = None,
    *,
    affine: Array | None = None,
    matrix: Array | None = None,
    shape: Sequence[int] | None = None,
    mode: str = "linear",
    padding: str = "zeros",
    out: Array | None = None,
) -> Program:
    check(volume, displacement, mode, padding, out, "triton")
    made = Program(__file__)
    on = operands(made, volume, displacement, affine, matrix, shape, mode)
    if on.answer.size == 0:
        return made
    depth, lines, columns = on.size
    made.launch(
        _warp,
        (-(-columns // _BLOCK) * depth * lines, on.batch),
        *(*on.tensors, *on.numbers, nan_bits(volume.dtype)),
        FIELD=displacement is not None,
        FIRST=5 - volume.ndim,
        MATRIX=matrix is not None,
        NEAREST=mode == "nearest",
        PADDING=PADDINGS.index(padding),
        BLOCK=_BLOCK,
    )
    return made
