"""conv_transpose3d, obviously: every input voxel adds its weights around its place, in float64."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from voxelrt.kernels.common.activation import activate
from voxelrt.kernels.common.kernel import Array


def conv_transpose3d(
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
    inputs, per_group, *kernel = weights.shape
    whole = [(n - 1) * s + d * (k - 1) + 1 for n, s, d, k in zip(x.shape[2:], stride, dilation, kernel, strict=True)]
    canvas = np.zeros((x.shape[0], per_group * groups, *(w + e for w, e in zip(whole, output_padding, strict=True))))
    for group in range(groups):
        c = slice(group * inputs // groups, (group + 1) * inputs // groups)
        o = slice(group * per_group, (group + 1) * per_group)
        for tap in np.ndindex(*kernel):
            z, y, u = (
                slice(i * d, i * d + s * (n - 1) + 1, s)
                for i, d, s, n in zip(tap, dilation, stride, x.shape[2:], strict=True)
            )
            w = weights[(c, slice(None), *tap)].astype(np.float64)
            canvas[:, o, z, y, u] += np.einsum("co,nczyx->nozyx", w, x[:, c].astype(np.float64))
    inside = tuple(slice(a, n - b) for (a, b), n in zip(padding, canvas.shape[2:], strict=True))
    out = canvas[(slice(None), slice(None), *inside)]
    if bias is not None:
        out = out + bias.astype(np.float64)[:, None, None, None]
    return activate(out, activation, alpha, beta)
