"""conv3d: convolution of volumes, with bias, residual and activation as its epilogue; one or two sources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from voxelrt.kernels.common.kernel import Array, Case, Kernel
from voxelrt.kernels.conv3d.oracle import conv3d as oracle


def _case(
    name: str,
    size: Sequence[int],
    channels: tuple[int, int],
    kernel: tuple[int, int, int] = (3, 3, 3),
    *,
    batch: int = 1,
    second: int = 0,
    residual: bool = False,
    dtype: str = "float32",
    bench: bool = False,
    **options: Any,
) -> Case:
    """A case: input of ``size`` with channels (in, out); padding defaults to half the kernel."""
    options.setdefault("padding", tuple((k // 2, k // 2) for k in kernel))
    groups = options.get("groups", 1)

    def make(rng: np.random.Generator) -> tuple[Sequence[Any], Mapping[str, Any]]:
        x = rng.standard_normal((batch, channels[0], *size)).astype(dtype)
        w = rng.standard_normal((channels[1], (channels[0] + second) // groups, *kernel)).astype(dtype)
        more: dict[str, Any] = {}
        if second:
            more["second"] = rng.standard_normal((batch, second, *size)).astype(dtype)
        if residual:
            more["residual"] = rng.standard_normal((batch, channels[1], *size)).astype(dtype)
        return (x, w, rng.standard_normal(channels[1]).astype(dtype)), {**options, **more}

    voxels = float(np.prod(size)) * batch / float(np.prod(options.get("stride", (1, 1, 1))))
    flops = 2.0 * voxels * channels[1] * (channels[0] + second) / groups * float(np.prod(kernel))
    moved = 4.0 * float(np.prod(size)) * batch * (channels[0] + channels[1])
    return Case(name, make, 2e-3 if dtype == "float16" else 5e-6, flops, moved, bench)


KERNEL = Kernel(
    name="conv3d",
    oracle=oracle,
    cases=(
        _case("one-voxel", (1, 1, 1), (1, 1), (1, 1, 1)),
        _case("odd", (5, 7, 9), (3, 5), activation="relu"),
        _case("prime-wide", (2, 3, 29), (17, 33), activation="leaky_relu", alpha=0.01),
        _case("stride2", (8, 9, 10), (16, 32), stride=(2, 2, 2)),
        _case("dilated", (9, 9, 9), (16, 16), dilation=(2, 1, 3), padding=((2, 2), (1, 1), (3, 3))),
        _case("uneven-padding", (4, 5, 6), (8, 8), (2, 3, 4), padding=((0, 1), (2, 0), (1, 3))),
        _case("two-sources", (6, 6, 14), (8, 8), second=8, batch=2),
        _case("two-sources-blocks", (4, 5, 13), (32, 48), second=20, activation="sigmoid"),
        _case("residual", (4, 4, 12), (16, 20), residual=True, activation="elu", alpha=1.0),
        _case("depthwise", (5, 6, 19), (12, 12), groups=12),
        _case("grouped-blocks", (4, 5, 13), (64, 32), groups=2, activation="tanh"),
        _case("plane", (1, 33, 31), (4, 8), (1, 3, 3), activation="clip", alpha=-1.0, beta=1.0),
        _case("double", (4, 5, 6), (3, 4), dtype="float64"),
        _case("half", (4, 5, 6), (3, 4), dtype="float16"),
        _case("pointwise", (8, 8, 16), (48, 3), (1, 1, 1)),
        _case("32@32", (32, 32, 32), (32, 32), bench=True),
        _case("128@16", (16, 16, 16), (128, 128), bench=True),
        _case("320@8", (8, 8, 8), (320, 320), bench=True),
        _case("stride2-64@32", (32, 32, 32), (32, 64), stride=(2, 2, 2), bench=True),
    ),
)


def conv3d(
    x: Array,
    weights: Array,
    bias: Array | None = None,
    *,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] | Sequence[tuple[int, int]] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    activation: str = "none",
    alpha: float = 0.0,
    beta: float = 0.0,
    second: Array | None = None,
    residual: Array | None = None,
    backend: str = "auto",
) -> Array:
    """Convolve volumes: activation(conv(concat(x, second), weights) + bias + residual).

    Parameters
    ----------
    x : (N, C, Z, Y, X) float32, float64 or float16.
    weights : (O, C / groups, kz, ky, kx), same dtype. bias : (O).
    stride, padding, dilation : one number, or one an axis (z, y, x); a padding may be (before, after).
    activation : none, relu, leaky_relu (alpha: slope), sigmoid, tanh, elu (alpha), clip (alpha: low, beta: high).
    second : (N, C2, Z, Y, X): more channels behind those of ``x``, without a concat. residual : like the result.

    Returns
    -------
    (N, O, Z', Y', X') as in ONNX Conv.

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
        dilation=axes(dilation),
        groups=groups,
        activation=activation,
        alpha=alpha,
        beta=beta,
        second=second,
        residual=residual,
        backend=backend,
    )
    return result


def axes(value: int | Sequence[int]) -> tuple[int, int, int]:
    """One number, or one an axis, as (z, y, x)."""
    z, y, x = (value,) * 3 if isinstance(value, int) else value
    return (int(z), int(y), int(x))


def both_ends(value: int | Sequence[int] | Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """A padding as (before, after) for each axis."""
    given = (value,) * 3 if isinstance(value, int) else tuple(value)
    return tuple((int(p), int(p)) if isinstance(p, int) else (int(p[0]), int(p[1])) for p in given)
