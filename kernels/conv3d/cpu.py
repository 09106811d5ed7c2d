"""conv3d on the native library: blocked with packed weights where it fits, else the linear kernel."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from voxelrt.kernels.common import native
from voxelrt.kernels.common.activation import KINDS
from voxelrt.kernels.common.kernel import Array


def output_size(
    size: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[tuple[int, int]],
    dilation: Sequence[int],
) -> tuple[int, ...]:
    """The spatial size of a convolution's output."""
    return tuple(
        max(0, (n + a + b - d * (k - 1) - 1) // s + 1) if n + a + b >= d * (k - 1) + 1 else 0
        for n, k, s, (a, b), d in zip(size, kernel, stride, padding, dilation, strict=True)
    )


def run(
    x: Array,
    weights: Array,
    bias: Array | None = None,
    *,
    stride: Sequence[int] = (1, 1, 1),
    padding: Sequence[tuple[int, int]] = ((0, 0),) * 3,
    dilation: Sequence[int] = (1, 1, 1),
    groups: int = 1,
    activation: str = "none",
    alpha: float = 0.0,
    beta: float = 0.0,
    second: Array | None = None,
    residual: Array | None = None,
) -> Array:
    size = output_size(x.shape[2:], weights.shape[2:], stride, padding, dilation)
    shape = (x.shape[0], weights.shape[0], *size)
    params = {
        "algorithm": 0,
        "kernel": weights.shape[2:],
        "stride": stride,
        "dilation": dilation,
        "pad_begin": [p[0] for p in padding],
        "pad_end": [p[1] for p in padding],
        "groups": groups,
        "channels0": x.shape[1],
        "activation": KINDS[activation],
        "alpha": alpha,
        "beta": beta,
        "output_channel_offset": 0,
        "precision": 0,
    }
    whole = all(c // groups % native.BLOCK == 0 for c in (x.shape[1], weights.shape[0]))
    if x.dtype != np.float32 or not (groups == 1 or whole):
        if second is not None or residual is not None:
            x = np.concatenate([x, second], axis=1) if second is not None else x
            params["channels0"] = x.shape[1]
        out = native.aligned_empty(shape, x.dtype)
        inputs = [np.ascontiguousarray(x), np.ascontiguousarray(weights), bias]
        native.run_kernel("conv3d.grouped", inputs, [out], **params)
        return out
    packed = native.pack_weight("conv3d.direct", weights, **params)
    blocked = native.aligned_empty((shape[0], -(-shape[1] // native.BLOCK), *size, native.BLOCK), np.float32)
    native.run_kernel(
        "conv3d.direct",
        [
            native.Operand(native.to_blocked(x), native.BLOCKED16, x.shape[1]),
            native.Operand(native.to_blocked(second), native.BLOCKED16, second.shape[1])
            if second is not None
            else None,
            packed,
            bias,
            native.Operand(native.to_blocked(residual), native.BLOCKED16, shape[1]) if residual is not None else None,
        ],
        [native.Operand(blocked, native.BLOCKED16, shape[1])],
        **params,
    )
    if shape[1] % native.BLOCK and blocked[:, -1, ..., shape[1] % native.BLOCK :].any():
        raise AssertionError("channels past the last are not zero")
    return native.from_blocked(blocked, shape[1])
