"""conv_transpose3d, obviously: in float64, every input position scatters the kernel into the output."""

from __future__ import annotations

import itertools

import numpy as np

from voxelrt.kernels.common.activation import activate
from voxelrt.kernels.common.kernel import Array
from voxelrt.kernels.common.windows import Padding, Triple, pairs, triple


def conv_transpose3d(
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
) -> Array:
    n, c, *space = x.shape
    _, o_group, *kernel = weights.shape
    step, spread, extra, around = triple(stride), triple(dilation), triple(output_padding), pairs(padding)
    full = [(space[a] - 1) * step[a] + spread[a] * (kernel[a] - 1) + 1 + extra[a] for a in range(3)]
    out = np.zeros((n, groups, o_group, *full))
    source: Array = x.astype(np.float64).reshape(n, groups, c // groups, *space)
    w: Array = weights.astype(np.float64).reshape(groups, c // groups, o_group, *kernel)
    for k in itertools.product(*(range(size) for size in kernel)):
        planes, rows, columns = (
            slice(k[a] * spread[a], k[a] * spread[a] + (space[a] - 1) * step[a] + 1, step[a]) for a in range(3)
        )
        part: Array = np.einsum("ngizyx,gio->ngozyx", source, w[:, :, :, k[0], k[1], k[2]], optimize=True)
        out[:, :, :, planes, rows, columns] += part
    planes, rows, columns = (slice(around[a][0], max(around[a][0], full[a] - around[a][1])) for a in range(3))
    result = out[:, :, :, planes, rows, columns]
    result = result.reshape(n, groups * o_group, *result.shape[3:])
    if bias is not None:
        result = result + bias.astype(np.float64)[:, None, None, None]
    return activate(activation, result, alpha, beta)
