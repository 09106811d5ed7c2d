"""norm3d in Triton: instance and group norm, and per-channel affines, channels last."""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

from voxelrt.kernels.common.gpu.program import Program, Tensor
from voxelrt.kernels.common.gpu.triton_activation import activate
from voxelrt.kernels.common.kernel import Array
from voxelrt.kernels.norm3d.device_arguments import CHUNK, Volume, group_size, options_only, volume


@triton.jit
def _moments(means, squares, x, voxels, channels, CHUNK: tl.constexpr, WIDTH: tl.constexpr):
    chunk, n = tl.program_id(0).to(tl.int64), tl.program_id(2).to(tl.int64)
    c = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    voxel = chunk * CHUNK + tl.arange(0, CHUNK)
    inside = (voxel[:, None] < voxels) & (c[None, :] < channels)
    values = tl.load(x + (n * voxels + voxel[:, None]) * channels + c[None, :], mask=inside, other=0.0).to(tl.float32)
    count = tl.minimum(voxels - chunk * CHUNK, CHUNK).to(tl.float32)
    mean = tl.sum(values, 0) / count
    away = tl.where(inside, values - mean[None, :], 0.0)
    place = (n * tl.num_programs(0) + chunk) * channels + c
    tl.store(means + place, mean, mask=c < channels)
    tl.store(squares + place, tl.sum(away * away, 0), mask=c < channels)


@triton.jit
def _merge(
    scale,
    shift,
    means,
    squares,
    gamma,
    beta,
    voxels,
    channels,
    chunks,
    group,
    gamma_n,
    gamma_c,
    beta_n,
    beta_c,
    epsilon,
    CHUNK: tl.constexpr,
    BLOCK: tl.constexpr,
):
    first, n = tl.program_id(0).to(tl.int64) * group, tl.program_id(1).to(tl.int64)
    lanes = tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.float64)
    for start in range(0, chunks * group, BLOCK):
        i = start + lanes
        which = i // group
        inside = i < chunks * group
        mean = tl.load(means + (n * chunks + which) * channels + first + i % group, mask=inside, other=0.0)
        count = tl.where(which + 1 < chunks, CHUNK, voxels - which * CHUNK)
        total += tl.where(inside, mean.to(tl.float64) * count.to(tl.float64), 0.0)
    whole = (voxels * group).to(tl.float64)
    center = tl.sum(total, 0) / whole
    spread = tl.zeros((BLOCK,), tl.float64)
    for start in range(0, chunks * group, BLOCK):
        i = start + lanes
        which = i // group
        inside = i < chunks * group
        place = (n * chunks + which) * channels + first + i % group
        away = tl.load(means + place, mask=inside, other=0.0).to(tl.float64) - center
        count = tl.where(which + 1 < chunks, CHUNK, voxels - which * CHUNK).to(tl.float64)
        inner = tl.load(squares + place, mask=inside, other=0.0).to(tl.float64)
        spread += tl.where(inside, inner + away * away * count, 0.0)
    inverse = 1.0 / tl.sqrt((tl.sum(spread, 0) / whole + epsilon).to(tl.float64))
    for start in range(0, group, BLOCK):
        c = first + start + lanes
        own = start + lanes < group
        factor = inverse * tl.load(gamma + n * gamma_n + c * gamma_c, mask=own, other=0.0).to(tl.float64)
        offset = tl.load(beta + n * beta_n + c * beta_c, mask=own, other=0.0).to(tl.float64) - center * factor
        tl.store(scale + n * channels + c, factor.to(tl.float32), mask=own)
        tl.store(shift + n * channels + c, offset.to(tl.float32), mask=own)


@triton.jit
def _apply(
    out,
    x,
    scale,
    shift,
    voxels,
    channels,
    scale_n,
    scale_c,
    shift_n,
    shift_c,
    alpha,
    beta,
    NUMBER: tl.constexpr,
    CHUNK: tl.constexpr,
    WIDTH: tl.constexpr,
):
    chunk, n = tl.program_id(0).to(tl.int64), tl.program_id(2).to(tl.int64)
    c = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    voxel = chunk * CHUNK + tl.arange(0, CHUNK)
    inside = (voxel[:, None] < voxels) & (c[None, :] < channels)
    a = tl.load(scale + n * scale_n + c * scale_c, mask=c < channels, other=0.0)
    b = tl.load(shift + n * shift_n + c * shift_c, mask=c < channels, other=0.0)
    place = (n * voxels + voxel[:, None]) * channels + c[None, :]
    values = tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
    y = activate(
        tl.fma(values, a[None, :] + tl.zeros_like(values), b[None, :] + tl.zeros_like(values)), alpha, beta, NUMBER
    )
    tl.store(out + place, y.to(out.dtype.element_ty), mask=inside)


def program(
    x: Array,
    gamma: Array | None = None,
    beta: Array | None = None,
    *,
    kind: str = "instance",
    groups: int = 0,
    epsilon: float = 1e-5,
    activation: tuple[str, float, float] = ("none", 0.0, 0.0),
    **others: Any,
) -> Program:
    options_only(others)
    made = Program(__file__)
    on = volume(made, x, kind, activation)
    out = on.output(x.shape)
    if out.size == 0:
        return made
    scale, shift = on.vector(gamma, 1.0), on.vector(beta, 0.0)
    if kind == "instance":
        scale, shift = _statistics(on, scale, shift, group_size(on.channels, groups), epsilon)
    number, low, high = on.activation
    made.launch(
        _apply,
        (-(-on.voxels // CHUNK), -(-on.channels // 32), on.batch),
        *(out, on.x, scale, shift, on.voxels, on.channels, *scale.strides, *shift.strides, low, high),
        NUMBER=number,
        CHUNK=CHUNK,
        WIDTH=32,
    )
    return made


def _statistics(on: Volume, gamma: Tensor, beta: Tensor, group: int, epsilon: float) -> tuple[Tensor, Tensor]:
    """The pending scale and shift (N, C) of a norm."""
    made, chunks = on.program, -(-on.voxels // CHUNK)
    means, squares = (made.scratch((on.batch, chunks, on.channels)) for _ in range(2))
    scale, shift = (made.scratch((on.batch, on.channels)) for _ in range(2))
    grid = (chunks, -(-on.channels // 32), on.batch)
    made.launch(_moments, grid, means, squares, on.x, on.voxels, on.channels, CHUNK=CHUNK, WIDTH=32)
    merge(made, scale, shift, means, squares, gamma, beta, on.voxels, CHUNK, group, epsilon)
    return scale, shift


def merge(
    made: Program,
    scale: Tensor,
    shift: Tensor,
    means: Tensor,
    squares: Tensor,
    gamma: Tensor,
    beta: Tensor,
    voxels: int,
    chunk: int,
    group: int,
    epsilon: float,
) -> None:
    """Launch what makes the scale and shift (N, C) of a norm from the moments (N, chunks, C) of chunks of voxels."""
    batch, chunks, channels = means.shape
    made.launch(
        _merge,
        (channels // group, batch),
        *(scale, shift, means, squares, gamma, beta, voxels, channels, chunks, group),
        *(*gamma.strides, *beta.strides, float(epsilon)),
        CHUNK=chunk,
        BLOCK=256,
    )
