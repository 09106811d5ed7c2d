"""What both GPU backends of conv3d do alike: which calls they take, and the channels-last form of their operands."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np

from voxelrt.errors import ShapeError, UnsupportedError
from voxelrt.kernels.common.activation import activation_number
from voxelrt.kernels.common.gpu.program import Program, Tensor
from voxelrt.kernels.common.kernel import Array
from voxelrt.kernels.common.windows import Padding, Triple, pairs, triple
from voxelrt.kernels.conv3d.oracle import Pending, Statistics

FLOATS = (np.dtype(np.float32), np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16))
PRECISIONS = ("fp32", "tf32", "fp16", "bf16")


@dataclass
class Source:
    """(N, C, Z, Y, X) as (N, Z, Y, X, C) on the device, with its part of the weights and what is pending for it.

    ``weights`` is (groups, taps, C / groups, O / groups), so that a row of the matrix is one tap of one channel.
    ``scale`` and ``shift`` are (N, C) float32.
    """

    x: Tensor
    weights: Tensor
    channels: int
    scale: Tensor | None = None
    shift: Tensor | None = None


@dataclass
class Problem:
    """A convolution with its operands on the device."""

    program: Program
    sources: list[Source]
    bias: Tensor | None
    residual: Tensor | None
    batch: int
    outputs: int
    groups: int
    size: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, int, int]
    dilation: tuple[int, int, int]
    before: tuple[int, ...]
    out_size: tuple[int, ...]
    activation: tuple[int, float, float]
    slope: float = 1.0
    dtype: Any = field(default=np.float32)

    @property
    def positions(self) -> int:
        return int(np.prod(self.out_size))

    @property
    def depthwise(self) -> bool:
        return self.groups == self.outputs == self.sources[0].channels and len(self.sources) == 1

    def output(self) -> Tensor:
        """(N, Z', Y', X', O), to be handed back as (N, O, Z', Y', X')."""
        return self.program.output((self.batch, *self.out_size, self.outputs), self.dtype)


def last(x: Array) -> Array:
    """Channels last, without gaps."""
    return np.ascontiguousarray(np.moveaxis(x, 1, -1))


def first(x: Array) -> Array:
    """Channels second again, as a view."""
    return np.moveaxis(x, -1, 1)


def _packed(weights: Array, groups: int, start: int, stop: int) -> Array:
    """(O, I / groups, z, y, x) -> (groups, taps, channels start to stop, O / groups)."""
    outputs = weights.shape[0]
    part = weights[:, start:stop].reshape(groups, outputs // groups, stop - start, -1)
    return np.ascontiguousarray(part.transpose(0, 3, 2, 1))


def problem(
    program: Program,
    x: Array,
    weights: Array,
    bias: Array | None,
    second: Array | None,
    residual: Array | None,
    groups: int,
    window: tuple[Triple, Padding, Triple],
    activation: tuple[str, float, float],
    pending: Pending | None,
) -> Problem:
    """Put a convolution's operands on the device.

    Raises
    ------
    UnsupportedError : a type, or groups of two sources, which the GPU backends do not have.
    ShapeError : channels that do not fit the weights.
    """
    if x.dtype not in FLOATS or (second is not None and second.dtype != x.dtype):
        raise UnsupportedError(f"conv3d on the GPU takes no {x.dtype}: use backend='cpu'")
    if second is not None and groups > 1:
        raise UnsupportedError("conv3d on the GPU takes no second source beside groups: use backend='cpu'")
    step, spread, around = triple(window[0]), triple(window[2]), pairs(window[1])
    space = tuple(x.shape[2:])
    padded = [space[a] + sum(around[a]) - spread[a] * (weights.shape[2 + a] - 1) - 1 for a in range(3)]
    size = tuple(max(0, padded[a] // step[a] + 1) for a in range(3))
    wide = [x] if second is None else [x, second]
    if sum(a.shape[1] for a in wide) != weights.shape[1] * groups or weights.shape[0] % groups:
        raise ShapeError(f"{[a.shape for a in wide]} in {groups} groups do not fit weights {weights.shape}")
    sources, start = [], 0
    for each in wide:
        count = each.shape[1]
        packed = _packed(weights.astype(x.dtype, copy=False), groups, start, start + count // groups)
        made = Source(program.input(last(each)), program.input(packed), count)
        if pending is not None:
            rows = [np.ascontiguousarray(p[:, start : start + count], np.float32) for p in pending[:2]]
            made.scale, made.shift = (program.input(row) for row in rows)
        sources.append(made)
        start += count // groups
    return Problem(
        program,
        sources,
        None if bias is None else program.input(np.asarray(bias, np.float32)),
        None if residual is None else program.input(last(residual)),
        x.shape[0],
        weights.shape[0],
        groups,
        space,
        tuple(weights.shape[2:]),
        step,
        spread,
        tuple(before for before, _ in around),
        size,
        (activation_number(activation[0]), float(activation[1]), float(activation[2])),
        1.0 if pending is None else float(pending[2]),
        x.dtype,
    )


__all__ = ["FLOATS", "PRECISIONS", "Pending", "Problem", "Source", "Statistics", "first", "last", "problem"]
