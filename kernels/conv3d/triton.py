"""conv3d in Triton: an implicit matrix product over channels-last volumes, on tensor cores; depth-wise without them.

Rows are output positions, columns output channels, the depth taps and channels of one or two sources. No patch matrix
is written: each tile of it is loaded from the volume where the tap looks. With a prologue (a pending norm and leaky
activation of what is loaded) and an epilogue (bias, residual, activation; or moments of each channel for a norm).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import triton
import triton.language as tl

from voxelrt.errors import UnsupportedError
from voxelrt.kernels.common.gpu.program import Program, Tensor
from voxelrt.kernels.common.gpu.triton_activation import activate
from voxelrt.kernels.common.kernel import Array
from voxelrt.kernels.common.windows import Padding, Triple
from voxelrt.kernels.conv3d.device_arguments import PRECISIONS, Problem, Source, first, problem
from voxelrt.kernels.conv3d.oracle import Pending, Statistics
from voxelrt.kernels.conv3d.triton_products import few_channels, many_channels, operand, window_start, within
from voxelrt.kernels.norm3d.triton import merge

_PLAIN = [
    *("positions", "slope", "size_z", "size_y", "size_x", "out_y", "out_x"),
    *("groups", "taps_z", "taps_y", "taps_x", "stride_z", "stride_y", "stride_x"),
    *("dilation_z", "dilation_y", "dilation_x", "pad_z", "pad_y", "pad_x", "alpha", "beta"),
]


@triton.jit(do_not_specialize=_PLAIN)
def _convolve(
    out,
    x0,
    weights0,
    scale0,
    shift0,
    x1,
    weights1,
    scale1,
    shift1,
    bias,
    residual,
    means,
    squares,
    rows0,
    rows1,
    outputs_all,
    outputs,
    channels0,
    channels1,
    positions,
    slope,
    size_z,
    size_y,
    size_x,
    out_y,
    out_x,
    groups,
    taps_z,
    taps_y,
    taps_x,
    stride_z,
    stride_y,
    stride_x,
    dilation_z,
    dilation_y,
    dilation_x,
    pad_z,
    pad_y,
    pad_x,
    alpha,
    beta,
    FEW0: tl.constexpr,
    FEW1: tl.constexpr,
    SECOND: tl.constexpr,
    PENDING: tl.constexpr,
    BIAS: tl.constexpr,
    RESIDUAL: tl.constexpr,
    MOMENTS: tl.constexpr,
    NUMBER: tl.constexpr,
    PRECISION: tl.constexpr,
    AS: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
):
    tile, which = tl.program_id(0).to(tl.int64), tl.program_id(2)
    group = which % groups
    item = (which // groups).to(tl.int64)
    position = tile * BM + tl.arange(0, BM)
    valid = position < positions
    column = tl.program_id(1) * BN + tl.arange(0, BN)
    first_x = (position % out_x).to(tl.int32) * stride_x - pad_x
    first_y = (position // out_x % out_y).to(tl.int32) * stride_y - pad_y
    first_z = (position // (out_x * out_y)).to(tl.int32) * stride_z - pad_z
    sums = tl.zeros((BM, BN), tl.float32)
    own = weights0 + group.to(tl.int64) * taps_z * taps_y * taps_x * channels0 * outputs
    place = (item, first_z, first_y, first_x, valid)
    window = (size_z, size_y, size_x, taps_z, taps_y, taps_x, dilation_z, dilation_y, dilation_x)
    source = (x0, own, scale0, shift0, slope, channels0, rows0, group * channels0)
    if FEW0:
        sums = few_channels(sums, source, place, window, column, outputs, PENDING, AS, PRECISION, BK)
    else:
        sums = many_channels(sums, source, place, window, column, outputs, PENDING, AS, PRECISION, BK)
    if SECOND:
        other = (x1, weights1, scale1, shift1, slope, channels1, rows1, 0)
        if FEW1:
            sums = few_channels(sums, other, place, window, column, outputs, PENDING, AS, PRECISION, BK)
        else:
            sums = many_channels(sums, other, place, window, column, outputs, PENDING, AS, PRECISION, BK)
    held = column < outputs
    channel = group * outputs + column
    inside = valid[:, None] & held[None, :]
    at = (item * positions + position[:, None]) * outputs_all + channel[None, :]
    if BIAS:
        sums += tl.load(bias + channel, mask=held, other=0.0)[None, :]
    if RESIDUAL:
        sums += tl.load(residual + at, mask=inside, other=0.0).to(tl.float32)
    made = activate(sums, alpha, beta, NUMBER).to(out.dtype.element_ty)
    tl.store(out + at, made, mask=inside)
    if MOMENTS:
        # Of what was stored, exact about the tile's own means, as norm3d's merge wants them.
        kept = tl.where(inside, made.to(tl.float32), 0.0)
        count = tl.minimum(positions - tile * BM, BM).to(tl.float32)
        mean = tl.sum(kept, 0) / count
        away = tl.where(inside, kept - mean[None, :], 0.0)
        chunk = (item * tl.num_programs(0) + tile) * outputs_all + channel
        tl.store(means + chunk, mean, mask=held)
        tl.store(squares + chunk, tl.sum(away * away, 0), mask=held)


_PLAIN_DEPTHWISE = [name for name in _PLAIN if name != "groups"]


@triton.jit(do_not_specialize=_PLAIN_DEPTHWISE)
def _depthwise(
    out,
    x,
    weights,
    scale,
    shift,
    bias,
    residual,
    channels,
    positions,
    slope,
    size_z,
    size_y,
    size_x,
    out_y,
    out_x,
    taps_z,
    taps_y,
    taps_x,
    stride_z,
    stride_y,
    stride_x,
    dilation_z,
    dilation_y,
    dilation_x,
    pad_z,
    pad_y,
    pad_x,
    alpha,
    beta,
    PENDING: tl.constexpr,
    BIAS: tl.constexpr,
    RESIDUAL: tl.constexpr,
    NUMBER: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
):
    """A product a tap and channel; neighbours along X find each other's loads in the cache."""
    item = tl.program_id(2).to(tl.int64)
    position = tl.program_id(0).to(tl.int64) * BM + tl.arange(0, BM)
    c = tl.program_id(1) * BN + tl.arange(0, BN)
    valid, held = position < positions, c < channels
    x0 = (position % out_x).to(tl.int32) * stride_x - pad_x
    y0 = (position // out_x % out_y).to(tl.int32) * stride_y - pad_y
    z0 = (position // (out_x * out_y)).to(tl.int32) * stride_z - pad_z
    origin = window_start(item, z0, y0, x0, size_z, size_y, size_x) * channels
    a = tl.zeros((BN,), tl.float32)
    b = tl.zeros((BN,), tl.float32)
    if PENDING:
        a = tl.load(scale + item * channels + c, mask=held, other=0.0)
        b = tl.load(shift + item * channels + c, mask=held, other=0.0)
    sums = tl.zeros((BM, BN), tl.float32)
    for tap in range(taps_z * taps_y * taps_x):
        kz = tap // (taps_y * taps_x) * dilation_z
        ky = tap // taps_x % taps_y * dilation_y
        kx = tap % taps_x * dilation_x
        there = valid & within(z0 + kz, size_z) & within(y0 + ky, size_y) & within(x0 + kx, size_x)
        inside = there[:, None] & held[None, :]
        place = origin + ((kz.to(tl.int64) * size_y + ky) * size_x + kx) * channels
        values = tl.load(x + place[:, None] + c[None, :], mask=inside, other=0.0)
        values = operand(values, a[None, :], b[None, :], slope, inside, PENDING, tl.float32)
        # The weights are (groups, taps, 1, 1): a channel's taps lie together.
        weight = tl.load(weights + c.to(tl.int64) * (taps_z * taps_y * taps_x) + tap, mask=held, other=0.0)
        sums += values * weight.to(tl.float32)[None, :]
    inside = valid[:, None] & held[None, :]
    place = (item * positions + position[:, None]) * channels + c[None, :]
    if BIAS:
        sums += tl.load(bias + c, mask=held, other=0.0)[None, :]
    if RESIDUAL:
        sums += tl.load(residual + place, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + place, activate(sums, alpha, beta, NUMBER).to(out.dtype.element_ty), mask=inside)


@dataclass(frozen=True)
class Tile:
    """Positions, channels and depth of one block's product, its warps, and how many loads run ahead."""

    rows: int
    columns: int
    depth: int
    warps: int
    stages: int


def choose_tile(positions: int, outputs: int, channels: tuple[int, ...], item: int, wide: bool, pending: bool) -> Tile:
    """The tile for a convolution, by what a thread's registers hold of it; not by timings.

    ``item`` : bytes of a source's element; ``wide``: products of float32 in three tensor-core passes, whose operands
    take twice the registers. Channels that are no multiple of 16 are loaded one by one, with an address each.
    """
    together = all(c % 16 == 0 for c in channels)
    rows, columns, depth = (128, 128, 64) if item == 2 else (64, 64, 32)
    if not together:
        rows, columns, depth = 32 if wide else 64, 64, 16
    if wide or not all(c >= 64 for c in channels):
        depth = min(depth, 32)
    if pending:  # its vectors and products want registers too
        columns, depth = min(columns, 64 if item == 2 else 32), min(depth, 32)
        rows = 16 if wide and not together else rows
    columns = min(columns, max(16, 1 << max(0, outputs - 1).bit_length()))
    rows = min(rows, max(16, 1 << max(0, positions - 1).bit_length()))
    stages = 1 if not together else 3 if item == 2 else 2
    return Tile(rows, columns, depth, 8 if rows * columns >= 128 * 128 else 4, stages)


FEW = 16  # channels below which taps and channels share the depth


def _how(precision: str, dtype: Any) -> tuple[str, Any, bool]:
    """Triton's word for the products' precision, the type of their operands, and whether three passes are needed."""
    if precision not in PRECISIONS:
        raise UnsupportedError(f"conv3d on triton has no precision {precision!r}; it has {', '.join(PRECISIONS)}")
    if dtype != np.float32:
        return "ieee", {"float16": tl.float16}.get(np.dtype(dtype).name, tl.bfloat16), False
    if precision in ("fp16", "bf16"):
        return "ieee", tl.float16 if precision == "fp16" else tl.bfloat16, False
    return ("tf32", tl.float32, False) if precision == "tf32" else ("tf32x3", tl.float32, True)


def program(
    x: Array,
    weights: Array,
    bias: Array | None = None,
    *,
    stride: Triple = 1,
    padding: Padding = 0,
    dilation: Triple = 1,
    groups: int = 1,
    activation: str = "none",
    alpha: float = 0.0,
    beta: float = 0.0,
    second: Array | None = None,
    residual: Array | None = None,
    algorithm: str = "auto",
    tile: Triple | None = None,
    precision: str = "fp32",
    source_scale: float = 0.0,
    pending: Pending | None = None,
    statistics: Statistics | None = None,
) -> Program:
    made = Program(__file__)
    if algorithm not in ("auto", "direct", "depthwise"):
        raise UnsupportedError(f"conv3d on triton has no algorithm {algorithm!r}: use backend='cpu'")
    word, kind, wide = _how(precision, x.dtype)
    window = (stride, padding, dilation)
    on = problem(made, x, weights, bias, second, residual, groups, window, (activation, alpha, beta), pending)
    out = on.output()
    if statistics is not None:
        return _with_statistics(on, out, statistics, word, kind, wide)
    made.finish(first)
    if out.size:
        if on.depthwise and precision == "fp32":
            _launch_depthwise(on, out)
        else:
            _launch(on, out, word, kind, wide, None)
    return made


def _with_statistics(on: Problem, out: Tensor, norm: Statistics, word: str, kind: Any, wide: bool) -> Program:
    """The convolution and, from its tiles' moments, the scale and shift of the norm that follows."""
    made = on.program
    if on.activation[0] != 0 or on.depthwise or out.size == 0:
        raise UnsupportedError("statistics are of a convolution without an activation that is not depth-wise")
    gamma, beta = (np.broadcast_to(np.asarray(v, np.float32), (on.batch, on.outputs)) for v in norm[:2])
    scale, shift = made.output((on.batch, on.outputs)), made.output((on.batch, on.outputs))
    rows = _tile_of(on, wide).rows
    means, squares = (made.scratch((on.batch, -(-on.positions // rows), on.outputs)) for _ in range(2))
    _launch(on, out, word, kind, wide, (means, squares))
    merge(made, scale, shift, means, squares, made.input(gamma), made.input(beta), on.positions, rows, 1, norm[2])
    made.finish(lambda y, a, b: (first(y), a, b))
    return made


def _tile_of(on: Problem, wide: bool) -> Tile:
    channels = tuple(source.channels // on.groups for source in on.sources)
    pending = on.sources[0].scale is not None
    return choose_tile(on.positions, on.outputs // on.groups, channels, np.dtype(on.dtype).itemsize, wide, pending)


def _geometry(on: Problem) -> tuple[list[Any], list[Any]]:
    """The sizes that both kernels take alike, in the order of their signatures: of volumes, and of windows."""
    small = [np.int32(v) for v in (*on.kernel, *on.stride, *on.dilation, *on.before)]
    return [np.int32(v) for v in (*on.size, *on.out_size[1:])], [*small, *on.activation[1:]]


def _launch(on: Problem, out: Tensor, word: str, kind: Any, wide: bool, moments: tuple[Tensor, Tensor] | None) -> None:
    how, outputs = _tile_of(on, wide), on.outputs // on.groups
    one, other = on.sources[0], on.sources[-1]
    pending = one.scale is not None
    sizes, rest = _geometry(on)

    def channels(source: Source) -> int:
        return source.channels // on.groups

    on.program.launch(
        _convolve,
        (-(-on.positions // how.rows), -(-outputs // how.columns), on.batch * on.groups),
        *(out, one.x, one.weights, one.scale or out, one.shift or out),
        *(other.x, other.weights, other.scale or out, other.shift or out),
        *(on.bias or out, on.residual or out, *(moments or (out, out))),
        *(one.channels, other.channels, on.outputs, outputs),
        *(np.int32(channels(one)), np.int32(channels(other)), on.positions, on.slope),
        *(*sizes, np.int32(on.groups), *rest),
        block=32 * how.warps,
        stages=how.stages,
        FEW0=channels(one) < FEW,
        FEW1=channels(other) < FEW,
        SECOND=len(on.sources) > 1,
        PENDING=pending,
        BIAS=on.bias is not None,
        RESIDUAL=on.residual is not None,
        MOMENTS=moments is not None,
        NUMBER=on.activation[0],
        PRECISION=word,
        AS=kind,
        BM=how.rows,
        BN=how.columns,
        BK=how.depth,
    )


def _launch_depthwise(on: Problem, out: Tensor) -> None:
    (source,) = on.sources
    sizes, rest = _geometry(on)
    columns = min(64, max(16, 1 << max(0, on.outputs - 1).bit_length()))
    on.program.launch(
        _depthwise,
        (-(-on.positions // 32), -(-on.outputs // columns), on.batch),
        *(out, source.x, source.weights, source.scale or out, source.shift or out, on.bias or out, on.residual or out),
        *(on.outputs, on.positions, on.slope, *sizes, *rest),
        block=128,
        stages=1,
        PENDING=source.scale is not None,
        BIAS=on.bias is not None,
        RESIDUAL=on.residual is not None,
        NUMBER=on.activation[0],
        BM=32,
        BN=columns,
    )
