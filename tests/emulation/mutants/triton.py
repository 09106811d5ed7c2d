"""A matrix product in Triton, with loads that run ahead of the tensor cores."""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

from voxelrt.kernels.common.gpu.program import Program


@triton.jit
def _product(a, b, c, M, N, K, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, PRECISION: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * BM + tl.arange(0, BM)
    column = tl.program_id(1).to(tl.int64) * BN + tl.arange(0, BN)
    sums = tl.zeros((BM, BN), tl.float32)
    for first in range(0, K, BK):
        k = first + tl.arange(0, BK)
        left = tl.load(a + row[:, None] * K + k[None, :], mask=(row[:, None] < M) & (k[None, :] < K), other=0.0)
        right = tl.load(b + k[:, None] * N + column[None, :], mask=(k[:, None] < K) & (column[None, :] < N), other=0.0)
        sums = tl.dot(left, right, sums, input_precision=PRECISION)
    tl.store(c + row[:, None] * N + column[None, :], sums, mask=(row[:, None] < M) & (column[None, :] < N))


def program(a: Any, b: Any, stages: int = 3) -> Program:
    """a (M, K) times b (K, N), half or float types -> (M, N) float32."""
    made = Program(__file__)
    left, right = made.input(a), made.input(b)
    (m, k), n = a.shape, b.shape[1]
    out = made.output((m, n))
    grid = (-(-m // 32), -(-n // 32))
    how = {"BM": 32, "BN": 32, "BK": 32, "PRECISION": "tf32"}
    made.launch(_product, grid, left, right, out, m, n, k, block=128, stages=stages, **how)
    return made
