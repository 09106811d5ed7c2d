"""Trilinear interpolation's corners for Triton kernels: the same taps as ``interpolate.cuh``'s.

What lies outside is the volume going on: mirrored or clamped indices, with no arithmetic on the position at all.
"""

from __future__ import annotations

import triton
import triton.language as tl

FAR = tl.constexpr(4194304.0)  # no axis is longer, and twice that is exact in float32


@triton.jit
def within(value, limit):
    """-limit to limit; a NaN stays."""
    return tl.where(value > limit, limit, tl.where(value < -limit, -limit, value))


@triton.jit
def tap(at, size, PADDING: tl.constexpr):
    """The voxel of a tap, and whether there is one; ``PADDING`` as in ``warp3d/codes.py``."""
    if PADDING == 0:
        there = (at >= 0) & (at < size)
        index = tl.where(there, at, 0)
    elif PADDING == 1 or PADDING >= 4:
        there = at == at
        index = tl.minimum(tl.maximum(at, 0), size - 1)
    else:
        edge: tl.constexpr = 1 if PADDING == 3 else 0
        period = 2 * (size - 1 + edge)
        rest = at % tl.maximum(period, 1)
        along = tl.where(rest < 0, rest + period, rest)
        there = at == at
        index = tl.where(period == 0, 0, tl.where(along < size, along, period - edge - along))
    return index.to(tl.int64), there


@triton.jit
def corner(C: tl.constexpr, iz, iy, ix, rz, ry, rx, size_z, size_y, size_x, sz, sy, sx, PADDING: tl.constexpr):
    """Where corner C (z, y, x as bits) lies, how much it weighs, whether it is there. Positions: whole and rest."""
    tz, has_z = tap(iz + (C // 4), size_z, PADDING)
    ty, has_y = tap(iy + (C // 2 % 2), size_y, PADDING)
    tx, has_x = tap(ix + (C % 2), size_x, PADDING)
    weight_z = rz if C // 4 == 1 else 1.0 - rz
    weight_y = ry if C // 2 % 2 == 1 else 1.0 - ry
    weight_x = rx if C % 2 == 1 else 1.0 - rx
    return tz * sz + ty * sy + tx * sx, weight_z * weight_y * weight_x, has_z & has_y & has_x
