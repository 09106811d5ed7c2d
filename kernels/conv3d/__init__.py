"""conv3d: convolution (as networks call the correlation) of volumes, with what usually follows it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import ml_dtypes  # noqa: F401  # NumPy knows bfloat16 by it
import numpy as np

from voxelrt.kernels.common.kernel import Array, Case, Kernel
from voxelrt.kernels.common.windows import Padding, Triple, pairs, triple
from voxelrt.kernels.conv3d.oracle import conv3d as oracle


def _case(
    name: str,
    source: tuple[int, ...],
    outputs: int,
    kernel: Triple,
    *,
    second: int = 0,
    residual: bool = False,
    dtype: str = "float32",
    tolerance: float = 5e-6,
    strided: bool = False,
    bench: bool = False,
    **options: Any,
) -> Case:
    taps, step = triple(kernel), triple(options.get("stride", 1))
    channels = (source[1] + second) // options.get("groups", 1)
    around, apart = pairs(options.get("padding", 0)), triple(options.get("dilation", 1))
    size = [(source[2 + a] + sum(around[a]) - apart[a] * (taps[a] - 1) - 1) // step[a] + 1 for a in range(3)]
    positions = float(source[0] * np.prod(size))

    def make(rng: np.random.Generator) -> tuple[Sequence[Any], Mapping[str, Any]]:
        def array(*shape: int) -> Array:
            return rng.standard_normal(shape).astype(dtype)

        x = array(*source)
        if strided:
            x = np.asfortranarray(x)
        given = dict(options)
        if second:
            given["second"] = array(source[0], second, *source[2:])
        if residual:
            given["residual"] = array(source[0], outputs, *size)
        return (x, array(outputs, channels, *taps), array(outputs)), given

    flops = 2.0 * positions * outputs * channels * float(np.prod(taps))
    moved = 4.0 * (float(np.prod(source)) + positions * outputs)
    return Case(name, make, tolerance, flops, moved, bench)


_KINDS = (
    (3, 1, (4, 4, 4)),
    (3, 1, (2, 4, 4)),
    (3, 1, (2, 2, 2)),
    ((1, 3, 3), 1, (1, 4, 4)),
    ((1, 3, 3), 1, (1, 2, 2)),
    ((3, 1, 1), 1, (4, 1, 1)),
    ((3, 1, 1), 1, (2, 1, 1)),
    (3, 2, (2, 4, 4)),
    (3, 2, (2, 2, 2)),
    (3, (1, 2, 2), (4, 4, 4)),
    (3, (1, 2, 2), (2, 2, 2)),
    ((1, 3, 3), (1, 2, 2), (1, 4, 4)),
    ((1, 3, 3), (1, 2, 2), (1, 2, 2)),
)


def _winograd_cases() -> tuple[Case, ...]:
    """Every kind of tile, private and shared: one tile at the border; odd sizes with all that an epilogue may do."""
    cases = []
    for kernel, stride, tile in _KINDS:
        words = [triple(kernel), triple(stride), tile]
        name = "winograd-" + "-".join("x".join(map(str, word)) for word in words)
        around = tuple(taps // 2 for taps in triple(kernel))
        same: dict[str, Any] = {"stride": stride, "padding": around, "tile": tile, "tolerance": 5e-6}
        cases += [
            _case(f"{name}-one", (1, 3, 1, 1, 1), 2, kernel, algorithm="winograd_private", **same),
            _case(
                f"{name}-shared",
                (2, 19, 5, 9, 11),
                33,
                kernel,
                second=5,
                residual=True,
                activation="silu",
                algorithm="winograd_shared",
                **same,
            ),
            _case(
                f"{name}-private",
                (1, 40, 9, 13, 18),
                24,
                kernel,
                activation="leaky_relu",
                alpha=0.01,
                algorithm="winograd_private",
                **same,
            ),
        ]
    return tuple(cases)


def _narrow_cases() -> tuple[Case, ...]:
    """Each precision with the processor's own instructions and without."""
    cases = []
    for precision, algorithm in itertools.product(("bf16", "int8"), ("direct", "widened")):
        how: dict[str, Any] = {"precision": precision, "algorithm": algorithm, "source_scale": 2.0**-5}
        name = f"{precision}-{algorithm}"
        leaky: dict[str, Any] = {"padding": 1, "activation": "leaky_relu", "alpha": 0.01}
        cases += [
            _case(f"{name}-one", (1, 1, 1, 1, 1), 1, 1, **how),
            _case(f"{name}-odd", (2, 5, 5, 7, 9), 7, 3, **leaky, **how),
            _case(f"{name}-blocks", (1, 40, 4, 9, 31), 72, 3, **leaky, **how),
            _case(f"{name}-narrow-volume", (1, 24, 5, 6, 3), 40, 3, **leaky, **how),
            _case(f"{name}-first", (1, 3, 6, 7, 38), 33, (1, 3, 5), strided=True, **how),
            _case(
                f"{name}-two-sources",
                (1, 21, 4, 6, 17),
                33,
                3,
                second=19,
                residual=True,
                padding=1,
                activation="silu",
                **how,
            ),
            _case(f"{name}-stride-2", (1, 18, 9, 10, 33), 32, 3, stride=2, padding=1, **how),
            _case(f"{name}-1x1x1", (2, 37, 5, 6, 7), 5, 1, **how),
        ]
    for precision in ("bf16", "int8"):
        named: dict[str, Any] = {"precision": precision, "source_scale": 2.0**-5, "padding": 1, "bench": True}
        cases += [
            _case(f"{precision}-volume-32", (1, 32, 16, 24, 64), 32, 3, **named),
            _case(f"{precision}-down-64", (1, 32, 16, 32, 32), 64, 3, stride=2, **named),
        ]
    return tuple(cases)


def _depthwise_cases() -> tuple[Case, ...]:
    """A group for each channel: the kernels that have tiles of their own, with both strides, and others."""

    def case(name: str, source: tuple[int, ...], kernel: Triple, **options: Any) -> Case:
        return _case(f"depthwise-{name}", source, source[1], kernel, groups=source[1], **options)

    cases = [
        case("one", (1, 2, 1, 1, 1), 3, padding=1, algorithm="depthwise"),
        case("residual", (2, 21, 3, 5, 11), (3, 1, 5), padding=(1, 0, 2), residual=True, activation="silu"),
        case("uneven-padding", (1, 17, 2, 6, 9), 3, padding=((0, 2), (1, 0), (0, 1)), activation="sigmoid"),
        case("dilated", (1, 20, 5, 9, 13), 3, padding=2, dilation=2),
        case("stride-3", (1, 18, 7, 8, 23), (2, 4, 4), stride=3, padding=1, activation="relu"),
        case("outside", (1, 16, 2, 3, 2), 3, padding=4),
        case("far-taps", (2, 3, 1, 4, 5), (1, 9, 9), padding=(0, 4, 4), strided=True),
    ]
    for taps, stride in itertools.product((3, 5, 7), (1, 2)):
        around, name = taps // 2, f"{taps}-stride-{stride}"
        same: dict[str, Any] = {"stride": stride, "activation": "hard_swish"}
        cases += [
            case(f"planes-{name}", (3, 33, 1, 13, 29), (1, taps, taps), padding=(0, around, around), **same),
            case(f"{name}", (2, 16, 5, 6, 19), taps, padding=around, **same),
        ]
    wide: dict[str, Any] = {"activation": "silu", "bench": True}
    return (
        *cases,
        case("planes-3", (8, 144, 1, 56, 56), (1, 3, 3), padding=(0, 1, 1), **wide),
        case("planes-5-stride-2", (8, 144, 1, 56, 56), (1, 5, 5), padding=(0, 2, 2), stride=(1, 2, 2), **wide),
        case("planes-5-small", (8, 1152, 1, 7, 7), (1, 5, 5), padding=(0, 2, 2), **wide),
        case("planes-7", (8, 96, 1, 56, 56), (1, 7, 7), padding=(0, 3, 3), bench=True),
        case("volume-3", (1, 32, 24, 48, 48), 3, padding=1, bench=True),
    )


def _gpu_cases() -> tuple[Case, ...]:
    """Fused norms before and after, and what tensor cores multiply in."""

    def fused(name: str, source: tuple[int, ...], outputs: int, after: bool, second: int = 0, **options: Any) -> Case:
        plain = _case(name, source, outputs, (1, 3, 3), padding=(0, 1, 1), second=second, **options)

        def make(rng: np.random.Generator) -> tuple[Sequence[Any], Mapping[str, Any]]:
            given, named = plain.make(rng)
            vectors = (source[0], source[1] + second)
            pending = (rng.normal(1, 0.3, vectors), rng.normal(0, 0.5, vectors), 0.01)
            norm = {"statistics": (rng.normal(1, 0.3, outputs), rng.normal(0, 0.5, outputs), 1e-5)} if after else {}
            return given, {**named, "pending": pending, **norm}

        return Case(f"pending-{name}", make, plain.tolerance)

    return (
        fused("few", (2, 3, 3, 5, 7), 5, after=True),
        fused("two-sources", (1, 20, 2, 5, 7), 19, after=True, second=18, tolerance=1e-5),
        fused("depthwise", (1, 5, 4, 5, 6), 5, after=False, groups=5),
        _case("tf32", (1, 20, 3, 3, 5), 18, (1, 3, 3), padding=(0, 1, 1), precision="tf32", tolerance=1e-3),
        _case("fp16-products", (1, 20, 3, 3, 5), 18, (1, 3, 3), padding=(0, 1, 1), precision="fp16"),
        _case("bfloat16", (1, 32, 2, 3, 5), 16, 3, padding=1, dtype="bfloat16", tolerance=4e-3),
        _case("float16-many", (1, 64, 2, 5, 7), 32, (1, 3, 3), padding=(0, 1, 1), dtype="float16", tolerance=5e-4),
        _case("float16-few", (1, 24, 2, 3, 5), 9, (1, 3, 3), padding=(0, 1, 1), dtype="float16", tolerance=5e-4),
        _case("bfloat16-few", (1, 16, 2, 3, 5), 18, (3, 1, 1), padding=(1, 0, 0), dtype="bfloat16", tolerance=4e-3),
        _case("float16-depthwise", (1, 9, 2, 5, 7), 9, 3, padding=1, groups=9, dtype="float16", tolerance=5e-4),
        _case("both", (2, 9, 2, 4, 5), 7, (1, 3, 1), padding=(0, 1, 0), second=12, residual=True, activation="silu"),
        _case("groups-of-4", (2, 12, 3, 4, 5), 6, (3, 1, 3), padding=(1, 0, 1), groups=3, stride=(1, 2, 1)),
        _case("many-outputs", (1, 4, 1, 5, 9), 70, (1, 3, 3), activation="gelu"),
        _case("dilated", (1, 17, 5, 6, 7), 9, (2, 3, 1), padding=((1, 0), (2, 1), (0, 0)), dilation=(1, 2, 3)),
    )


KERNEL = Kernel(
    name="conv3d",
    oracle=oracle,
    cases=(
        _case("one", (1, 1, 1, 1, 1), 1, 1),
        _case("odd", (2, 5, 5, 7, 9), 7, 3, padding=1, activation="leaky_relu", alpha=0.01),
        _case("blocks", (1, 40, 4, 9, 31), 72, 3, padding=1, activation="relu"),
        _case("strided-input", (1, 3, 6, 7, 8), 5, (1, 3, 5), strided=True),
        _case("two-sources-narrow", (1, 8, 5, 6, 19), 7, 3, second=4, padding=1),
        _case("two-sources", (1, 32, 4, 6, 17), 33, 3, second=19, residual=True, padding=1, activation="silu"),
        _case("stride-2", (1, 16, 9, 10, 33), 32, 3, stride=2, padding=1),
        _case("planes-stride-2", (1, 3, 1, 65, 66), 64, (1, 7, 7), stride=(1, 2, 2), activation="relu"),
        _case("groups-of-16", (1, 64, 3, 8, 9), 32, 3, groups=2, padding=1),
        _case("groups-of-2", (1, 24, 6, 10, 70), 24, 3, groups=12, padding=1, activation="hard_swish"),
        _case("float64", (1, 3, 4, 5, 6), 4, (2, 1, 3), dtype="float64", tolerance=1e-14),
        _case("float16", (1, 3, 4, 5, 6), 4, (2, 1, 3), dtype="float16", tolerance=1e-3),
        *_winograd_cases(),
        *_narrow_cases(),
        *_depthwise_cases(),
        _case("flow-head", (1, 16, 16, 24, 32), 3, 3, padding=1, bench=True),
        _case("first-layer", (1, 1, 32, 32, 64), 32, 3, padding=1, bench=True),
        _case("volume-32", (1, 32, 16, 24, 64), 32, 3, padding=1, activation="leaky_relu", alpha=0.01, bench=True),
        _case("down-64", (1, 32, 16, 32, 32), 64, 3, stride=2, padding=1, bench=True),
        _case("bottleneck-320", (1, 320, 4, 6, 8), 320, 3, padding=1, bench=True),
        _case("head-odd", (2, 21, 3, 5, 7), 3, 1, second=19, residual=True, activation="silu"),
        _case("head-1x1x1", (1, 32, 16, 32, 64), 5, 1, bench=True),
    ),
    backends=("cpu", "numba", "triton", "cuda"),
    gpu_cases=_gpu_cases(),
)


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
    algorithm: str = "auto",
    tile: Triple | None = None,
    precision: str = "fp32",
    source_scale: float = 0.0,
    backend: str = "auto",
) -> Array:
    """Convolve a batch of volumes: activation(conv(x and second) + bias + residual).

    Parameters
    ----------
    x : (N, C, Z, Y, X), float32; float64 and float16 are supported but slow. 1-D and 2-D have leading axes of size one.
    weights : (O, I / groups, kz, ky, kx), where I counts the channels of ``x`` and ``second``.
    bias : (O,)
    stride, dilation : one number, or one for each of z, y, x.
    padding : zeros around the volume: one number, three, or three pairs (before, after).
    groups : both I and O divide into so many groups, each connected to its own.
    activation : ``none``, ``relu``, ``leaky_relu`` (alpha), ``sigmoid``, ``tanh``, ``elu`` (alpha), ``clip`` (alpha to
        beta), ``silu``, ``gelu``, ``gelu_tanh``, ``hard_sigmoid`` (alpha x + beta), ``hard_swish``, ``mish``.
    second : (N, C', Z, Y, X), channels that follow those of ``x``, as if both were concatenated.
    residual : (N, O, Z', Y', X'), added before the activation.
    algorithm : ``auto`` (the cheapest by a cost model), ``direct``, ``depthwise`` (a group for each channel),
        ``grouped`` (any groups, slow), or ``winograd`` for kernels of three (and one) taps with stride 1 or 2;
        ``winograd_private`` and ``winograd_shared`` say who works on a block of tiles.
    tile : Winograd: outputs of a tile along z, y, x: 2 or 4 of a kernel's three taps, 1 of its one tap.
    precision : ``fp32``; ``bf16`` and ``int8`` round the sources and the weights and compute directly, with sums in
        float32 and int32 (``algorithm``: ``direct``, or ``widened`` as on processors without such instructions).
    source_scale : int8: the sources are rounded to multiples of it, from -128 to 127 times; weights to multiples of
        1/127 of the largest of their output channel.

    Returns
    -------
    (N, O, Z', Y', X') with Z' = (Z + padding - dilation (kz - 1) - 1) // stride + 1.

    Raises
    ------
    ShapeError : shapes, dtypes or groups do not fit together.
    UsageError : an unknown activation, algorithm or backend, or an algorithm that does not compute this convolution.
    """
    result: Array = KERNEL(
        x,
        weights,
        bias,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        activation=activation,
        alpha=alpha,
        beta=beta,
        second=second,
        residual=residual,
        algorithm=algorithm,
        tile=tile,
        precision=precision,
        source_scale=source_scale,
        backend=backend,
    )
    return result
