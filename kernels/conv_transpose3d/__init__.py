"""conv_transpose3d: transposed convolution of volumes (ONNX ConvTranspose), with bias and activation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from voxelrt.kernels.common.kernel import Array, Case, Kernel
from voxelrt.kernels.conv3d import axes, both_ends
from voxelrt.kernels.conv_transpose3d.oracle import conv_transpose3d as oracle


def _case(
    name: str,
    size: Sequence[int],
    channels: tuple[int, int],
    kernel: tuple[int, int, int],
    *,
    batch: int = 1,
    dtype: str = "float32",
    bench: bool = False,
    **options: Any,
) -> Case:
    groups = options.get("groups", 1)

    def make(rng: np.random.Generator) -> tuple[Sequence[Any], Mapping[str, Any]]:
        x = rng.standard_normal((batch, channels[0], *size)).astype(dtype)
        w = rng.standard_normal((channels[0], channels[1] // groups, *kernel)).astype(dtype)
        return (x, w, rng.standard_normal(channels[1]).astype(dtype)), options

    voxels = float(np.prod(size)) * batch
    flops = 2.0 * voxels * channels[0] * channels[1] / groups * float(np.prod(kernel))
    moved = 4.0 * voxels * (channels[0] + channels[1] * float(np.prod(options.get("stride", (1, 1, 1)))))
    return Case(name, make, 2e-3 if dtype == "float16" else 5e-6, flops, moved, bench)


KERNEL = Kernel(
    name="conv_transpose3d",
    oracle=oracle,
    cases=(
        _case("one-voxel", (1, 1, 1), (1, 1), (1, 1, 1)),
        _case("same-3-2", (3, 4, 5), (5, 7), (3, 3, 3), stride=(2, 2, 2), padding=((0, 1),) * 3, activation="relu"),
        _case("2-2", (4, 5, 13), (33, 20), (2, 2, 2), stride=(2, 2, 2), batch=2),
        _case("uneven", (3, 4, 5), (8, 8), (3, 4, 2), stride=(1, 3, 2), padding=((1, 0), (0, 2), (1, 1))),
        _case("dilated", (4, 4, 6), (3, 4), (3, 2, 3), stride=(2, 1, 2), dilation=(1, 3, 2), output_padding=(1, 0, 1)),
        _case("grouped", (3, 4, 5), (6, 9), (3, 3, 3), stride=(2, 2, 2), groups=3, activation="tanh"),
        _case("double", (3, 4, 5), (3, 4), (2, 3, 2), dtype="float64"),
        _case("half", (3, 4, 5), (3, 4), (2, 3, 2), dtype="float16"),
        _case("64-32@24", (24, 24, 24), (64, 32), (2, 2, 2), stride=(2, 2, 2), bench=True),
        _case("32-16@24", (24, 24, 24), (32, 16), (3, 3, 3), stride=(2, 2, 2), padding=((0, 1),) * 3, bench=True),
    ),
)


def conv_transpose3d(
    x: Array,
    weights: Array,
    bias: Array | None = None,
    *,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] | Sequence[tuple[int, int]] = 0,
    output_padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    activation: str = "none",
    alpha: float = 0.0,
    beta: float = 0.0,
    backend: str = "auto",
) -> Array:
    """Transposed convolution of volumes.

    Parameters
    ----------
    x : (N, C, Z, Y, X) float32, float64 or float16.
    weights : (C, O / groups, kz, ky, kx), same dtype. bias : (O).
    stride, padding, output_padding, dilation : one number, or one an axis (z, y, x); a padding may be (before, after).
    activation : as in ``conv3d``.

    Returns
    -------
    (N, O, Z', Y', X') as in ONNX ConvTranspose.

    Raises
    ------
    ShapeError : shapes that do not fit together.
    """
    result: Array = KERNEL(
        x,
        weights,
        bias,
        stride=axes(stride),
        padding=both_ends(padding),
        output_padding=axes(output_padding),
        dilation=axes(dilation),
        groups=groups,
        activation=activation,
        alpha=alpha,
        beta=beta,
        backend=backend,
    )
    return result
