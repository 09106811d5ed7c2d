"""conv_transpose3d on the native library: ``.direct`` on blocked volumes, ``.grouped`` for all else."""

from __future__ import annotations

from typing import Any

import numpy as np

from voxelrt.errors import ShapeError
from voxelrt.kernels.common import native
from voxelrt.kernels.common.activation import activation_number
from voxelrt.kernels.common.kernel import Array
from voxelrt.kernels.common.native import BLOCK, BLOCKED16, Operand
from voxelrt.kernels.common.windows import Padding, Triple, pairs, triple

MOST = 128  # taps along an axis, and stride, that the direct kernel takes


def direct_takes(channels: int, groups: int, kernel: tuple[int, ...], stride: tuple[int, ...], dtype: Any) -> bool:
    """Whether ``conv_transpose3d.direct`` computes such a convolution."""
    return np.dtype(dtype) == np.float32 and groups == 1 and channels > 0 and max(*kernel, *stride) <= MOST


def output_size(shape: tuple[int, ...], values: dict[str, Any]) -> tuple[int, ...]:
    """(Z, Y, X) of the output of a source of this shape."""
    sizes = []
    for a in range(3):
        reach = (shape[2 + a] - 1) * values["stride"][a] + values["dilation"][a] * (values["kernel"][a] - 1) + 1
        size = reach - values["pad_begin"][a] - values["pad_end"][a] + values["output_padding"][a]
        sizes.append(max(size, 0) if shape[2 + a] else 0)
    return tuple(sizes)


def run(
    x: Array,
    weights: Array,
    bias: Array | None = None,
    *,
    stride: Triple = 1,
    padding: Padding = 0,
    output_padding: Triple = 0,
    dilation: Triple = 1,
    groups: int = 1,
    activation: str = "none",
    alpha: float = 0.0,
    beta: float = 0.0,
    kernel: str = "auto",
    pool: native.Pool | None = None,
) -> Array:
    if x.ndim != 5 or weights.ndim != 5:
        raise ShapeError(f"x is (N, C, Z, Y, X) and weights (I, O, z, y, x), not {x.shape} and {weights.shape}")
    if x.shape[1] != weights.shape[0] or groups < 1:
        raise ShapeError(f"{x.shape[1]} channels in {groups} groups do not fit weights {weights.shape}")
    around = pairs(padding)
    values: dict[str, Any] = {
        "algorithm": 0,
        "kernel": tuple(weights.shape[2:]),
        "stride": triple(stride),
        "dilation": triple(dilation),
        "pad_begin": [a for a, _ in around],
        "pad_end": [b for _, b in around],
        "output_padding": triple(output_padding),
        "groups": groups,
        "activation": activation_number(activation),
        "alpha": alpha,
        "beta": beta,
        "precision": 0,
    }
    shape = (x.shape[0], weights.shape[1] * groups, *output_size(x.shape, values))
    if kernel == "auto":
        fits = direct_takes(x.shape[1], groups, values["kernel"], values["stride"], x.dtype) and weights.size > 0
        kernel = "conv_transpose3d.direct" if fits else "conv_transpose3d.grouped"
    offset = None if bias is None else np.ascontiguousarray(bias)
    if kernel == "conv_transpose3d.grouped":
        out = native.aligned_empty(shape, x.dtype)
        inputs = [np.ascontiguousarray(x), np.ascontiguousarray(weights), offset]
        native.run_kernel(kernel, inputs, [out], pool, **values)
        return out
    blocks = (shape[0], -(-shape[1] // BLOCK), *shape[2:], BLOCK)
    target = Operand(native.aligned_empty(blocks, np.float32), BLOCKED16, shape[1])
    source = Operand(native.to_blocked(x), BLOCKED16, x.shape[1])
    packed = native.pack_weight(kernel, weights, **values)
    native.run_kernel(kernel, [source, packed, offset], [target], pool, **values)
    return native.from_blocked(target.array, shape[1])
