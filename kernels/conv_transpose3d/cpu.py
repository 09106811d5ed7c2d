"""conv_transpose3d on the native library."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from voxelrt.kernels.common import native
from voxelrt.kernels.common.activation import KINDS
from voxelrt.kernels.common.kernel import Array


def run(
    x: Array,
    weights: Array,
    bias: Array | None = None,
    *,
    stride: Sequence[int] = (1, 1, 1),
    padding: Sequence[tuple[int, int]] = ((0, 0),) * 3,
    output_padding: Sequence[int] = (0, 0, 0),
    dilation: Sequence[int] = (1, 1, 1),
    groups: int = 1,
    activation: str = "none",
    alpha: float = 0.0,
    beta: float = 0.0,
) -> Array:
    size = [
        (n - 1) * s + d * (k - 1) + 1 - a - b + e
        for n, s, d, k, (a, b), e in zip(
            x.shape[2:], stride, dilation, weights.shape[2:], padding, output_padding, strict=True
        )
    ]
    shape = (x.shape[0], weights.shape[1] * groups, *size)
    params = {
        "kernel": weights.shape[2:],
        "stride": stride,
        "dilation": dilation,
        "pad_begin": [p[0] for p in padding],
        "pad_end": [p[1] for p in padding],
        "output_padding": output_padding,
        "groups": groups,
        "activation": KINDS[activation],
        "alpha": alpha,
        "beta": beta,
    }
    if x.dtype != np.float32 or groups != 1:
        out = native.aligned_empty(shape, x.dtype)
        inputs = [np.ascontiguousarray(x), np.ascontiguousarray(weights), bias]
        native.run_kernel("conv_transpose3d.grouped", inputs, [out], **params)
        return out
    blocked = native.aligned_empty((shape[0], -(-shape[1] // native.BLOCK), *size, native.BLOCK), np.float32)
    source = native.Operand(native.to_blocked(x), native.BLOCKED16, x.shape[1])
    packed = native.pack_weight("conv_transpose3d.direct", weights, **params)
    target = native.Operand(blocked, native.BLOCKED16, shape[1])
    native.run_kernel("conv_transpose3d.direct", [source, packed, bias], [target], **params)
    if shape[1] % native.BLOCK and blocked[:, -1, ..., shape[1] % native.BLOCK :].any():
        raise AssertionError("channels past the last are not zero")
    return native.from_blocked(blocked, shape[1])
