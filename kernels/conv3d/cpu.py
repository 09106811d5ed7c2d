"""conv3d on the native library: blocked volumes by the cheapest algorithm, a kernel for depth-wise ones, and
``conv3d.grouped`` for all else."""

from __future__ import annotations

from typing import Any

import numpy as np

from voxelrt.errors import ShapeError, UsageError
from voxelrt.kernels.common import native
from voxelrt.kernels.common.activation import activation_number
from voxelrt.kernels.common.kernel import Array
from voxelrt.kernels.common.native import BLOCK, BLOCKED16, Operand
from voxelrt.kernels.common.windows import Padding, Triple, pairs, triple
from voxelrt.kernels.conv3d import dot
from voxelrt.kernels.conv3d.algorithm import DIRECT, PRIVATE, SHARED, Algorithm, Problem, algorithms

MOST_PLANES = 4  # channels of a row-major source that the direct kernel takes
WAYS = {
    "direct": (DIRECT,),
    "winograd": (PRIVATE, SHARED),
    "winograd_private": (PRIVATE,),
    "winograd_shared": (SHARED,),
}


def direct_takes(channels: int, second: int, outputs: int, groups: int, kernel: tuple[int, ...], dtype: Any) -> bool:
    """Whether ``conv3d.direct`` computes a convolution of so many channels (of each source) and outputs."""
    channels_all = channels + second
    if np.dtype(dtype) != np.float32 or channels_all == 0 or max(kernel) > 128:
        return False
    return groups == 1 or (channels_all // groups % BLOCK == 0 and outputs // groups % BLOCK == 0)


def is_depthwise(channels: int, second: int, outputs: int, groups: int, dtype: Any) -> bool:
    """Whether ``conv3d.depthwise`` computes a convolution of so many channels (of each source) and outputs."""
    return np.dtype(dtype) == np.float32 and second == 0 and channels == outputs == groups > 1


def parameters(
    x: Array, kernel: tuple[int, ...], stride: Triple, padding: Padding, dilation: Triple, **rest: Any
) -> dict[str, Any]:
    """The kernels' parameters; ``rest`` holds groups, activation (its number), alpha and beta."""
    around = pairs(padding)
    return {
        "algorithm": 0,
        "kernel": kernel,
        "stride": triple(stride),
        "dilation": triple(dilation),
        "pad_begin": [a for a, _ in around],
        "pad_end": [b for _, b in around],
        "channels0": x.shape[1],
        "output_channel_offset": 0,
        "precision": 0,
        **rest,
    }


def output_size(shape: tuple[int, ...], values: dict[str, Any]) -> tuple[int, ...]:
    """(Z, Y, X) of the output of a source of this shape."""
    sizes = []
    for a in range(3):
        padded = shape[2 + a] + values["pad_begin"][a] + values["pad_end"][a]
        room = padded - values["dilation"][a] * (values["kernel"][a] - 1) - 1
        sizes.append(room // values["stride"][a] + 1 if room >= 0 else 0)
    return tuple(sizes)


def run(
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
    pool: native.Pool | None = None,
) -> Array:
    if precision not in dot.NUMBERS:
        raise UsageError(f"precision {precision!r} is unknown; choose from {', '.join(dot.NUMBERS)}")
    if x.ndim != 5 or weights.ndim != 5:
        raise ShapeError(f"x is (N, C, Z, Y, X) and weights (O, I, z, y, x), not {x.shape} and {weights.shape}")
    channels = x.shape[1] + (second.shape[1] if second is not None else 0)
    if groups < 1 or channels != weights.shape[1] * groups:
        raise ShapeError(f"{channels} channels in {groups} groups do not fit weights {weights.shape}")
    taps = tuple(weights.shape[2:])
    number = activation_number(activation)
    values = parameters(x, taps, stride, padding, dilation, groups=groups, activation=number, alpha=alpha, beta=beta)
    shape = (x.shape[0], weights.shape[0], *output_size(x.shape, values))
    if precision != "fp32":
        return dot.run(precision, x, second, weights, bias, residual, shape, values, algorithm, source_scale, pool)
    if algorithm == "depthwise" or (
        algorithm == "auto" and is_depthwise(x.shape[1], channels - x.shape[1], shape[1], groups, x.dtype)
    ):
        return _depthwise(x, weights, bias, residual, shape, values, pool)
    fits = direct_takes(x.shape[1], channels - x.shape[1], shape[1], groups, taps, x.dtype) and weights.size > 0
    if algorithm == "grouped" or (algorithm == "auto" and not fits):
        out = native.aligned_empty(shape, x.dtype)
        sources = [None if a is None else np.ascontiguousarray(a) for a in (x, second, weights, bias, residual)]
        native.run_kernel("conv3d.grouped", sources, [out], pool, **values)
        return out
    return _blocked(x, second, weights, bias, residual, shape, values, algorithm, tile, pool)


def problem(shape: tuple[int, ...], second: int, values: dict[str, Any], out: tuple[int, ...]) -> Problem:
    """A convolution as the cost model sees it; the first of two sources counts whole blocks."""
    channels = -(-shape[1] // BLOCK) * BLOCK + second if second else shape[1]
    kernel, stride, dilation = (tuple(values[name]) for name in ("kernel", "stride", "dilation"))
    return Problem(shape[0], channels, out[1], out[2:], kernel, stride, dilation, values["groups"])  # type: ignore[arg-type]


def _choose(p: Problem, algorithm: str, tile: Triple | None) -> Algorithm:
    """The cheapest algorithm of the wanted kind."""
    if algorithm != "auto" and algorithm not in WAYS:
        raise UsageError(f"algorithm {algorithm!r} is unknown; choose from auto, {', '.join(WAYS)}")
    for found in algorithms(p):
        if algorithm != "auto" and found.params["algorithm"] not in WAYS[algorithm]:
            continue
        if tile is None or found.params.get("tile") == triple(tile):
            return found
    raise UsageError(f"{algorithm} with tile {tile} does not compute a kernel of {p.kernel} with stride {p.stride}")


def _volume(array: Array) -> Operand:
    return Operand(native.to_blocked(array), BLOCKED16, array.shape[1])


def _empty(shape: tuple[int, ...]) -> Operand:
    blocks = (shape[0], -(-shape[1] // BLOCK), *shape[2:], BLOCK)
    return Operand(native.aligned_empty(blocks, np.float32), BLOCKED16, shape[1])


def _depthwise(
    x: Array,
    weights: Array,
    bias: Array | None,
    residual: Array | None,
    shape: tuple[int, ...],
    values: dict[str, Any],
    pool: native.Pool | None,
) -> Array:
    if not is_depthwise(x.shape[1], 0, shape[1], values["groups"], x.dtype):
        raise UsageError(f"depthwise takes float32 with a group for each channel, not {x.shape} in {values['groups']}")
    target = _empty(shape)
    inputs = [
        _volume(x),
        None,
        native.pack_weight("conv3d.depthwise", weights, **values),
        None if bias is None else np.ascontiguousarray(bias),
        None if residual is None else _volume(residual),
    ]
    native.run_kernel("conv3d.depthwise", inputs, [target], pool, **values)
    return native.from_blocked(target.array, shape[1])


def _blocked(
    x: Array,
    second: Array | None,
    weights: Array,
    bias: Array | None,
    residual: Array | None,
    shape: tuple[int, ...],
    values: dict[str, Any],
    algorithm: str,
    tile: Triple | None,
    pool: native.Pool | None,
) -> Array:
    """Few channels go in and come out as they are, many in blocks."""

    forced = algorithm.startswith("winograd")
    planes = x.shape[1] <= MOST_PLANES and second is None and values["groups"] == 1 and not forced
    few = shape[1] <= MOST_PLANES and not forced
    way = _choose(
        problem(x.shape, 0 if second is None else second.shape[1], values, shape),
        "direct" if planes or few else algorithm,
        tile,
    )
    values = {**values, **way.params}
    packed = native.pack_weight(way.kernel, weights, **values)
    if few:
        target = Operand(native.aligned_empty(shape, np.float32))
    else:
        target = _empty(shape)
    inputs = [
        Operand(x) if planes else _volume(x),
        None if second is None else _volume(second),
        packed,
        None if bias is None else np.ascontiguousarray(bias),
        None if residual is None else (Operand(residual) if few else _volume(residual)),
    ]
    native.run_kernel(way.kernel, inputs, [target], pool, **values)
    return target.array if few else native.from_blocked(target.array, shape[1])
