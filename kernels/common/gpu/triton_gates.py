"""Products of a recurrent layer's gates for Triton kernels: all gates of some units as the columns of one product."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def sigmoid(x):
    return 1.0 / (1.0 + tl.exp(-x))


@triton.jit
def add_product(sums, left, valid, right, known, depth, BK: tl.constexpr):
    """Add rows (at ``left``, where ``valid``) times the rows at ``right`` (where ``known``), both of ``depth``."""
    for start in range(0, depth, BK):
        k = start + tl.arange(0, BK)
        a = tl.load(left[:, None] + k[None, :], mask=valid[:, None] & (k < depth)[None, :], other=0.0)
        b = tl.load(right[None, :] + k[:, None], mask=known[None, :] & (k < depth)[:, None], other=0.0)
        sums = tl.dot(a, b, sums, input_precision="tf32x3")
    return sums


@triton.jit
def gate(sums, NUMBER: tl.constexpr, WIDE: tl.constexpr, UNITS: tl.constexpr):
    """(rows, UNITS) of one gate; columns are gate by gate."""
    cube = tl.reshape(sums, (sums.shape[0], WIDE, UNITS))
    which = tl.arange(0, WIDE)[None, :, None]
    return tl.sum(tl.where(which == NUMBER, cube, 0.0), 1)
