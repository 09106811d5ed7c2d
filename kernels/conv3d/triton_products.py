"""The inner products of conv3d on Triton: a tile's sums over the taps and channels of one source.

Both take the same: a source (its volume, weights, pending scale, shift and slope, channels, elements of a voxel, and
the group's first channel), a place (item, the first voxel of each position's window, which positions there are), a
window (the volume's size, taps, dilation), and the tile's columns among the outputs.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def operand(values, a, b, slope, inside, PENDING: tl.constexpr, AS: tl.constexpr):
    """What is pending is applied to what lies in the volume; padding stays zero."""
    if PENDING:
        values = values.to(tl.float32) * a + b
        values = tl.where(values < 0, values * slope, values)
        values = tl.where(inside, values, 0.0)
    return values.to(AS)


@triton.jit
def within(index, size):
    return (index >= 0) & (index < size)


@triton.jit
def window_start(item, z, y, x, size_z, size_y, size_x):
    """Where a window begins, in voxels; perhaps before the volume, where nothing is loaded."""
    return ((item * size_z + z) * size_y + y) * size_x + x


@triton.jit
def few_channels(
    sums,
    source,
    place,
    window,
    column,
    outputs,
    PENDING: tl.constexpr,
    AS: tl.constexpr,
    PRECISION: tl.constexpr,
    BK: tl.constexpr,
):
    """Taps and channels together along the depth, so that a first layer of one channel wastes none of it."""
    x, weights, scale, shift, slope, channels, row_stride, begin = source
    item, z0, y0, x0, valid = place
    size_z, size_y, size_x, taps_z, taps_y, taps_x, dilation_z, dilation_y, dilation_x = window
    origin = window_start(item, z0, y0, x0, size_z, size_y, size_x) * row_stride + begin
    depth = taps_z * taps_y * taps_x * channels
    for start in range(0, depth, BK):
        row = start + tl.arange(0, BK)
        c = row % channels
        tap = row // channels
        kz = tap // (taps_x * taps_y) * dilation_z
        ky = tap // taps_x % taps_y * dilation_y
        kx = tap % taps_x * dilation_x
        inside = valid[:, None] & (row < depth)[None, :] & within(z0[:, None] + kz[None, :], size_z)
        inside = inside & within(y0[:, None] + ky[None, :], size_y) & within(x0[:, None] + kx[None, :], size_x)
        away = ((kz.to(tl.int64) * size_y + ky) * size_x + kx) * row_stride + c
        spot = origin[:, None] + away[None, :]
        left = tl.load(x + spot, mask=inside, other=0.0)
        a, b = 1.0, 0.0
        if PENDING:
            at = item * row_stride + begin + c
            a = tl.load(scale + at)[None, :]
            b = tl.load(shift + at)[None, :]
        left = operand(left, a, b, slope, inside, PENDING, AS)
        held = (row < depth)[:, None] & (column < outputs)[None, :]
        right = tl.load(weights + row.to(tl.int64)[:, None] * outputs + column[None, :], mask=held, other=0.0)
        sums = tl.dot(left, right.to(AS), sums, input_precision=PRECISION)
    return sums


@triton.jit
def many_channels(
    sums,
    source,
    place,
    window,
    column,
    outputs,
    PENDING: tl.constexpr,
    AS: tl.constexpr,
    PRECISION: tl.constexpr,
    BK: tl.constexpr,
):
    """One tap after another, BK channels at a time; counters instead of divisions, so that loads can run ahead."""
    x, weights, scale, shift, slope, channels, row_stride, begin = source
    item, z0, y0, x0, valid = place
    size_z, size_y, size_x, taps_z, taps_y, taps_x, dilation_z, dilation_y, dilation_x = window
    origin = window_start(item, z0, y0, x0, size_z, size_y, size_x) * row_stride + begin
    kz = tl.zeros((), tl.int32)
    ky = tl.zeros((), tl.int32)
    kx = tl.zeros((), tl.int32)
    c0 = tl.zeros((), tl.int32)
    row0 = tl.zeros((), tl.int32)  # the weight matrix's row of this tap's first channel
    for _ in range(taps_z * taps_y * taps_x * tl.cdiv(channels, BK)):
        c = c0 + tl.arange(0, BK)
        there = valid & within(z0 + kz * dilation_z, size_z)
        there = there & within(y0 + ky * dilation_y, size_y) & within(x0 + kx * dilation_x, size_x)
        away = ((kz.to(tl.int64) * dilation_z * size_y + ky * dilation_y) * size_x + kx * dilation_x) * row_stride
        spot = origin + away
        inside = there[:, None] & (c < channels)[None, :]
        left = tl.load(x + spot[:, None] + c[None, :], mask=inside, other=0.0)
        a, b = 1.0, 0.0
        if PENDING:
            at = item * row_stride + begin + c
            a = tl.load(scale + at, mask=c < channels, other=0.0)[None, :]
            b = tl.load(shift + at, mask=c < channels, other=0.0)[None, :]
        left = operand(left, a, b, slope, inside, PENDING, AS)
        held = (c < channels)[:, None] & (column < outputs)[None, :]
        right = tl.load(weights + (row0 + c).to(tl.int64)[:, None] * outputs + column[None, :], mask=held, other=0.0)
        sums = tl.dot(left, right.to(AS), sums, input_precision=PRECISION)
        c0 += BK
        over = (c0 >= channels).to(tl.int32)
        c0 = c0 * (1 - over)
        row0 += over * channels
        kx += over
        over = (kx == taps_x).to(tl.int32)
        kx = kx * (1 - over)
        ky += over
        over = (ky == taps_y).to(tl.int32)
        ky = ky * (1 - over)
        kz += over
    return sums


# Sizes of no interest to vector loads are not looked at for multiples of 16: each such form would be a kernel.
