"""conv_transpose3d: transposed convolution of volumes, the learned upsampling of decoders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from voxelrt.kernels.common.kernel import Array, Case, Kernel
from voxelrt.kernels.common.windows import Padding, Triple, triple
from voxelrt.kernels.conv_transpose3d.oracle import conv_transpose3d as oracle


def _case(
    name: str,
    source: tuple[int, ...],
    outputs: int,
    kernel: Triple,
    *,
    dtype: str = "float32",
    tolerance: float = 2e-6,
    strided: bool = False,
    bench: bool = False,
    **options: Any,
) -> Case:
    taps, step = triple(kernel), triple(options.get("stride", 1))

    def make(rng: np.random.Generator) -> tuple[Sequence[Any], Mapping[str, Any]]:
        x = rng.standard_normal(source).astype(dtype)
        weights = rng.standard_normal((source[1], outputs // options.get("groups", 1), *taps)).astype(dtype)
        bias = rng.standard_normal(outputs).astype(dtype)
        return (np.asfortranarray(x) if strided else x, weights, bias), options

    positions = float(source[0] * np.prod(source[2:]))
    flops = 2.0 * positions * source[1] * outputs / options.get("groups", 1) * float(np.prod(taps))
    moved = 4.0 * positions * (source[1] + outputs * float(np.prod(step)))
    return Case(name, make, tolerance, flops, moved, bench)


KERNEL = Kernel(
    name="conv_transpose3d",
    oracle=oracle,
    cases=(
        _case("one", (1, 1, 1, 1, 1), 1, 1),
        _case("odd", (2, 5, 3, 4, 7), 7, 3, stride=2, padding=1, output_padding=1, activation="leaky_relu", alpha=0.1),
        _case("stride-1", (1, 17, 3, 5, 20), 40, 3, padding=1, activation="sigmoid"),
        _case("strided-input", (1, 20, 4, 4, 5), 18, (1, 2, 3), stride=(1, 2, 3), strided=True),
        _case("dilated", (1, 16, 3, 4, 9), 16, 3, stride=2, dilation=2, padding=((0, 1), (2, 0), (1, 1))),
        _case("narrow", (1, 48, 4, 5, 3), 33, 2, stride=2, activation="relu"),
        _case("grouped", (1, 8, 3, 4, 9), 12, 3, stride=2, groups=4),
        _case("float64", (1, 3, 4, 2, 5), 4, 3, stride=2, dtype="float64", tolerance=1e-14),
        _case("float16", (1, 3, 4, 2, 5), 4, 2, stride=2, dtype="float16", tolerance=1e-3),
        _case("up-64-32", (1, 64, 8, 16, 32), 32, 2, stride=2, bench=True),
        _case("up-320", (1, 320, 4, 4, 6), 320, 2, stride=2, bench=True),
        _case("up-3x3x3", (1, 32, 8, 12, 16), 32, 3, stride=2, padding=1, output_padding=1, bench=True),
    ),
)


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
    backend: str = "auto",
) -> Array:
    """Convolve a batch of volumes transposed: the gradient of ``conv3d`` with respect to its input, plus bias.

    Parameters
    ----------
    x : (N, I, Z, Y, X), float32; float64 and float16 are supported but slow.
    weights : (I, O / groups, kz, ky, kx)
    bias : (O,)
    stride, dilation, output_padding : one number, or one for each of z, y, x.
    padding : positions cut from the output's borders: one number, three, or three pairs (before, after).
    groups : both I and O divide into so many groups, each connected to its own.
    activation, alpha, beta : as of ``conv3d``.

    Returns
    -------
    (N, O, Z', Y', X') with Z' = (Z - 1) stride + dilation (kz - 1) + 1 - padding + output_padding.

    Raises
    ------
    ShapeError : shapes, dtypes or groups do not fit together.
    UsageError : an unknown activation or backend.
    """
    result: Array = KERNEL(
        x,
        weights,
        bias,
        stride=stride,
        padding=padding,
        output_padding=output_padding,
        dilation=dilation,
        groups=groups,
        activation=activation,
        alpha=alpha,
        beta=beta,
        backend=backend,
    )
    return result
