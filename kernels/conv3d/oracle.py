"""conv3d, obviously: in float64, one tap at a time; in a narrow precision of what rounding leaves of the operands.

As in every network framework it is a correlation: out[o, p] = bias[o] + sum over i, k of w[o, i, k] x[i, p stride + k
dilation - padding]. How a fast version computes it (``algorithm``, ``tile``) does not matter here.
"""

from __future__ import annotations

import itertools
from typing import Any

import ml_dtypes
import numpy as np

from voxelrt.kernels.common.activation import activate
from voxelrt.kernels.common.kernel import Array
from voxelrt.kernels.common.windows import Padding, Triple, pairs, triple

# What is still to be applied to the sources: scale and shift (N, C of both), and a leaky slope.
Pending = tuple[Array, Array, float]
# The norm that follows: gamma and beta (O,) or (N, O), and epsilon.
Statistics = tuple[Array, Array, float]


def _window(first: int, count: int, step: int) -> slice:
    """The inputs of one tap along one axis, for ``count`` outputs."""
    return slice(first, first + (count - 1) * step + 1 if count else 0, step)


def _rounded(source: Array, weights: Array, precision: str, source_scale: float) -> tuple[Array, Array]:
    """fp16, bf16: their mantissas. int8: whole multiples of a scale, for weights that of each output channel."""
    if precision in ("fp16", "bf16"):
        kind = np.float16 if precision == "fp16" else ml_dtypes.bfloat16
        near = [a.astype(np.float32).astype(kind).astype(np.float64) for a in (source, weights)]
        return near[0], near[1]
    codes = np.clip(np.rint(source / source_scale), -128, 127)
    rows = []
    for row in weights.astype(np.float64):
        scale = np.abs(row).max() / 127
        rows.append(np.rint(row / scale) * scale)
    return codes * source_scale, np.stack(rows)


def conv3d(
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
    precision: str = "fp32",
    source_scale: float = 0.0,
    pending: Pending | None = None,
    statistics: Statistics | None = None,
    **_how: Any,
) -> Any:
    source: Array = x.astype(np.float64)
    if second is not None:
        source = np.concatenate([source, second.astype(np.float64)], axis=1)
    if pending is not None:
        a, b = (np.asarray(p, np.float64)[:, :, None, None, None] for p in pending[:2])
        source = source * a + b
        source = np.where(source < 0, source * pending[2], source)
    if precision not in ("fp32", "tf32"):  # TF32 is between the two: its rounding is left to the tolerance
        source, weights = _rounded(source, weights, precision, source_scale)
    step, spread = triple(stride), triple(dilation)
    source = np.pad(source, [(0, 0), (0, 0), *pairs(padding)])
    n, _, *space = source.shape
    o, i_group, *kernel = weights.shape
    size = [max(0, (space[a] - spread[a] * (kernel[a] - 1) - 1) // step[a] + 1) for a in range(3)]
    out = np.zeros((n, groups, o // groups, *size))
    w: Array = weights.astype(np.float64).reshape(groups, o // groups, i_group, *kernel)
    for k in itertools.product(*(range(size) for size in kernel)):
        planes, rows, columns = (_window(k[a] * spread[a], size[a], step[a]) for a in range(3))
        part: Array = source[:, :, planes, rows, columns].reshape(n, groups, i_group, *size)
        out += np.einsum("ngizyx,goi->ngozyx", part, w[:, :, :, k[0], k[1], k[2]], optimize=True)
    result = out.reshape(n, o, *size)
    if bias is not None:
        result += bias.astype(np.float64)[:, None, None, None]
    if residual is not None:
        result += residual
    result = activate(activation, result, alpha, beta)
    if statistics is None:
        return result
    gamma, beta_of, epsilon = statistics
    scale = np.asarray(gamma, np.float64) / np.sqrt(result.var(axis=(2, 3, 4)) + epsilon)
    return result, scale, np.asarray(beta_of, np.float64) - result.mean(axis=(2, 3, 4)) * scale
