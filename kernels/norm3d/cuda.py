"""norm3d as a CUDA program: instance and group norm, and per-channel affines, channels last."""

from __future__ import annotations

from typing import Any

import numpy as np

from voxelrt.kernels.common.gpu.program import TYPE_NAMES, Program, Tensor
from voxelrt.kernels.common.kernel import Array
from voxelrt.kernels.norm3d.device_arguments import CHUNK, Volume, group_size, options_only, volume

_SUFFIXES = {"fp32": "f32", "fp16": "f16", "bf16": "bf16"}
ENTRIES = (
    *(f"voxelrt_norm3d_{what}_{suffix}" for what in ("moments", "apply") for suffix in _SUFFIXES.values()),
    "voxelrt_norm3d_merge",
)


def program(
    x: Array,
    gamma: Array | None = None,
    beta: Array | None = None,
    *,
    kind: str = "instance",
    groups: int = 0,
    epsilon: float = 1e-5,
    activation: tuple[str, float, float] = ("none", 0.0, 0.0),
    **others: Any,
) -> Program:
    options_only(others)
    made = Program(__file__)
    on = volume(made, x, kind, activation)
    suffix = _SUFFIXES[TYPE_NAMES[on.x.dtype]]
    out = on.output(x.shape)
    if out.size == 0:
        return made
    scale, shift = on.vector(gamma, 1.0), on.vector(beta, 0.0)
    if kind == "instance":
        scale, shift = _statistics(on, scale, shift, group_size(on.channels, groups), epsilon, suffix)
    number, low, high = on.activation
    made.launch(
        f"voxelrt_norm3d_apply_{suffix}",
        (-(-on.voxels // CHUNK), -(-on.channels // 32), on.batch),
        *(out, on.x, scale, shift, on.voxels, on.channels, *scale.strides, *shift.strides),
        *(np.int32(number), low, high),
        block=(32, 8),
    )
    return made


def _statistics(
    on: Volume, gamma: Tensor, beta: Tensor, group: int, epsilon: float, suffix: str
) -> tuple[Tensor, Tensor]:
    """The pending scale and shift (N, C) of a norm."""
    made, chunks = on.program, -(-on.voxels // CHUNK)
    means, squares = (made.scratch((on.batch, chunks, on.channels)) for _ in range(2))
    scale, shift = (made.scratch((on.batch, on.channels)) for _ in range(2))
    made.launch(
        f"voxelrt_norm3d_moments_{suffix}",
        (chunks, -(-on.channels // 32), on.batch),
        *(means, squares, on.x, on.voxels, on.channels),
        block=(32, 8),
    )
    merge(made, ENTRIES[-1], (scale, shift), (means, squares), (gamma, beta), on.voxels, CHUNK, group, epsilon)
    return scale, shift


def merge(
    made: Program,
    entry: str,
    answers: tuple[Tensor, Tensor],
    moments: tuple[Tensor, Tensor],
    vectors: tuple[Tensor, Tensor],
    voxels: int,
    chunk: int,
    group: int,
    epsilon: float,
) -> None:
    """Add a launch of an op's ``VOXELRT_MERGE_MOMENTS``.

    It makes scale and shift (N, C) of the means and squares (N, chunks, C) of chunks of voxels, and of gamma and beta
    (N, C).
    """
    batch, chunks, channels = moments[0].shape
    made.launch(
        entry,
        (channels // group, batch),
        *(*answers, *moments, *vectors, voxels, channels, chunk, chunks, group),
        *(*vectors[0].strides, *vectors[1].strides, float(epsilon)),
        block=128,
    )
