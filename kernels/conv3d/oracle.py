"""conv3d, obviously: every tap adds a shifted input times its weights, in float64."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from voxelrt.kernels.common.activation import activate
from voxelrt.kernels.common.kernel import Array


def conv3d(
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
    x = np.concatenate([x, second], axis=1) if second is not None else x
    padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), *padding))
    outputs, per_group, *kernel = weights.shape
    size = [
        max(0, (n - d * (k - 1) - 1) // s + 1)
        for n, k, s, d in zip(padded.shape[2:], kernel, stride, dilation, strict=True)
    ]
    out = np.zeros((x.shape[0], outputs, *size))
    for group in range(groups):
        o = slice(group * outputs // groups, (group + 1) * outputs // groups)
        c = slice(group * per_group, (group + 1) * per_group)
        for tap in np.ndindex(*kernel):
            z, y, u = (
                slice(i * d, i * d + s * (n - 1) + 1, s) if n else slice(0, 0)
                for i, d, s, n in zip(tap, dilation, stride, size, strict=True)
            )
            w = weights[(o, slice(None), *tap)].astype(np.float64)
            out[:, o] += np.einsum("oc,nczyx->nozyx", w, padded[:, c, z, y, u])
    if bias is not None:
        out += bias.astype(np.float64)[:, None, None, None]
    if residual is not None:
        out += residual
    return activate(out, activation, alpha, beta)
