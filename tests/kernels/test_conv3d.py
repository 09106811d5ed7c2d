"""conv3d and conv_transpose3d: any shape against the oracle, any number of threads, both instruction sets, the operands
that the public functions do not show, and what must be refused."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from voxelrt.errors import ShapeError, UsageError
from voxelrt.kernels.common import capi, native
from voxelrt.kernels.common.activation import ACTIVATIONS, activate
from voxelrt.kernels.common.kernel import compare
from voxelrt.kernels.common.native import BLOCKED16, Operand
from voxelrt.kernels.conv3d import cpu as conv
from voxelrt.kernels.conv3d import oracle as conv_oracle
from voxelrt.kernels.conv_transpose3d import cpu as transpose
from voxelrt.kernels.conv_transpose3d import oracle as transpose_oracle

SETTINGS = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
CHANNELS = st.sampled_from([1, 2, 3, 4, 5, 8, 15, 16, 17, 24, 32, 33, 48, 70])
TRIPLE = st.tuples(*[st.integers(1, 3)] * 3)
PADS = st.tuples(*[st.tuples(st.integers(0, 3), st.integers(0, 3))] * 3)
SPACE = st.tuples(st.integers(1, 6), st.integers(1, 9), st.integers(1, 34))
TOLERANCE = 2e-6


def _array(seed: int, *shape: int) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def _close(out: Any, reference: Any) -> None:
    difference = compare(out, reference)
    assert difference.relative <= TOLERANCE, str(difference)


@st.composite
def _convolutions(draw: st.DrawFn) -> tuple[tuple[Any, ...], dict[str, Any]]:
    kernel, space = draw(st.tuples(*[st.integers(1, 5)] * 3)), draw(SPACE)
    groups = draw(st.sampled_from([1, 1, 1, 2, 3]))
    blocks = groups > 1 and draw(st.booleans())
    channels = draw(CHANNELS) * groups if not blocks else 16 * groups
    outputs = draw(CHANNELS) * groups if not blocks else 32 * groups
    options: dict[str, Any] = {
        "stride": draw(TRIPLE),
        "padding": draw(PADS),
        "dilation": draw(TRIPLE),
        "groups": groups,
        "activation": draw(st.sampled_from(sorted(ACTIVATIONS))),
        "alpha": 0.3,
        "beta": 0.7,
    }
    n = draw(st.integers(1, 2))
    if groups == 1 and draw(st.booleans()):
        options["second"] = _array(3, n, draw(CHANNELS), *space)
    total = channels + (options["second"].shape[1] if "second" in options else 0)
    x, weights = _array(0, n, channels, *space), _array(1, outputs, total // groups, *kernel)
    bias = _array(2, outputs) if draw(st.booleans()) else None
    if draw(st.booleans()):
        plain = {k: options[k] for k in ("stride", "padding", "dilation", "groups", "second") if k in options}
        options["residual"] = _array(4, *conv_oracle(x, weights, **plain).shape)
    return (x, weights, bias), options


@SETTINGS
@given(case=_convolutions())
def test_any_convolution(case: Any) -> None:
    arguments, options = case
    expected = conv_oracle(*arguments, **options)
    _close(conv.run(*arguments, **options), expected)
    _close(conv.run(*arguments, algorithm="grouped", **options), expected)


@st.composite
def _transposed(draw: st.DrawFn) -> tuple[tuple[Any, ...], dict[str, Any]]:
    kernel, stride, space = draw(st.tuples(*[st.integers(1, 4)] * 3)), draw(TRIPLE), draw(SPACE)
    space = (min(space[0], 4), min(space[1], 5), min(space[2], 20))
    groups = draw(st.sampled_from([1, 1, 2]))
    options: dict[str, Any] = {
        "stride": stride,
        "padding": draw(PADS),
        "output_padding": tuple(draw(st.integers(0, s)) for s in stride),
        "dilation": draw(TRIPLE),
        "groups": groups,
        "activation": draw(st.sampled_from(sorted(ACTIVATIONS))),
        "alpha": 0.3,
        "beta": 0.7,
    }
    channels, outputs = draw(CHANNELS) * groups, draw(CHANNELS)
    bias = _array(2, outputs * groups) if draw(st.booleans()) else None
    x = _array(0, draw(st.integers(1, 2)), channels, *space)
    return (x, _array(1, channels, outputs, *kernel), bias), options


@SETTINGS
@given(case=_transposed())
def test_any_transposed_convolution(case: Any) -> None:
    arguments, options = case
    expected = transpose_oracle(*arguments, **options)
    _close(transpose.run(*arguments, **options), expected)
    _close(transpose.run(*arguments, kernel="conv_transpose3d.grouped", **options), expected)


def test_by_hand() -> None:
    x = np.array([1, 2, 3, 4], np.float32).reshape(1, 1, 1, 1, 4)
    w = np.array([10, 1], np.float32).reshape(1, 1, 1, 1, 2)
    assert conv_oracle(x, w).ravel().tolist() == [12, 23, 34]
    assert transpose_oracle(x, w).ravel().tolist() == [10, 21, 32, 43, 4]


@pytest.mark.parametrize("algorithm", ["auto", "grouped", "direct", "winograd_private", "winograd_shared"])
def test_threads_do_not_change_a_bit(algorithm: str) -> None:
    x, w, b = _array(0, 1, 40, 6, 11, 19), _array(1, 72, 40, 3, 3, 3), _array(2, 72)
    answers = [
        conv.run(x, w, b, padding=1, activation="tanh", algorithm=algorithm, pool=native.Pool(t)) for t in (1, 2, 3, 4)
    ]
    assert all(np.array_equal(answers[0], a) for a in answers)
    up = [transpose.run(x, w[:40, :36], b[:36], stride=2, pool=native.Pool(t)) for t in (1, 2, 3, 4)]
    assert all(np.array_equal(up[0], a) for a in up)


@pytest.mark.skipif(capi.isa() != "avx512", reason="needs a processor with AVX-512 to test the other set too")
def test_the_other_instruction_set() -> None:
    here = Path(__file__)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-k",
        "conv or any or threads or pending",
    ]
    done = subprocess.run(
        [*command, str(here), str(here.with_name("test_cases.py"))],
        env={**os.environ, "VOXELRT_CPU_ISA": "avx2"},
        cwd=here.parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_activation_is_accurate(name: str) -> None:
    x = np.concatenate([np.linspace(-30, 30, 20001), [0.0, 1e-6, -1e-6, 80.0, -80.0, 1e4, -1e4, 1e30, -1e30]])
    x = x.astype(np.float32).reshape(1, 1, 1, 1, -1)
    out = conv.run(x, np.ones((1, 1, 1, 1, 1), np.float32), activation=name, alpha=0.2, beta=0.5)
    reference = activate(name, x.astype(np.float64), 0.2, 0.5)
    error, size = np.abs(out - reference), np.abs(reference)
    if name in (
        "gelu",
        "gelu_tanh",
        "hard_sigmoid",
        "hard_swish",
    ):  # differences of nearly equal numbers near their zeros
        size = np.maximum(np.abs(x), 1.0)
    seen = size > 1e-12
    assert np.all(error[seen] <= 1e-6 * size[seen]), float((error[seen] / size[seen]).max())
    assert compare(out[np.abs(x) < 50], reference[np.abs(x) < 50]).relative < 1e-6


def test_activation_keeps_nan() -> None:
    x = np.full((1, 1, 1, 1, 20), np.nan, np.float32)
    for name in ACTIVATIONS:
        assert np.isnan(conv.run(x, np.ones((1, 1, 1, 1, 1), np.float32), activation=name, beta=1.0)).all(), name


def _values(x: Any, kernel: tuple[int, ...], **changed: Any) -> dict[str, Any]:
    made = conv.parameters(x, kernel, 1, 1, 1, groups=1, activation=0, alpha=0.0, beta=0.0)
    return {**made, **changed}


def _blocked(array: Any, **rest: Any) -> Operand:
    return Operand(native.to_blocked(array), BLOCKED16, array.shape[1], **rest)


def _blank(channels: int, *space: int) -> Operand:
    array = native.aligned_empty((1, -(-channels // 16), *space, 16), np.float32)
    return Operand(array, BLOCKED16, channels)


@pytest.mark.parametrize("kernel", [(3, 3, 3), (1, 1, 1)])
@pytest.mark.parametrize("channels", [1, 3, 24])
def test_pending_norm_is_applied_before_the_padding(channels: int, kernel: tuple[int, int, int]) -> None:
    x, w = _array(0, 1, channels, 4, 5, 9), _array(1, 20, channels, *kernel)
    scale, shift = _array(2, 1, channels), _array(3, 1, channels)
    values = _values(x, kernel, pad_begin=[k // 2 for k in kernel], pad_end=[k // 2 for k in kernel])
    target, pending = _blank(20, 4, 5, 9), (scale, shift, 0.1)
    source = _blocked(x, pending=pending) if channels > 4 else Operand(x, pending=pending)
    packed = native.pack_weight("conv3d.direct", w, **values)
    native.run_kernel("conv3d.direct", [source, None, packed], [target], **values)
    normed = activate("leaky_relu", (x * scale[..., None, None, None] + shift[..., None, None, None]), 0.1)
    _close(native.from_blocked(target.array, 20), conv_oracle(normed, w, padding=tuple(k // 2 for k in kernel)))


@pytest.mark.parametrize(("stride", "tile"), [(1, (4, 4, 4)), (2, (2, 4, 4)), (1, (2, 2, 2))])
def test_blocks_of_tiles_do_not_change_a_bit(stride: int, tile: tuple[int, int, int]) -> None:
    x, w = _array(0, 1, 20, 19, 13, 22), _array(1, 36, 20, 3, 3, 3)
    scale, shift = _array(2, 1, 20), _array(3, 1, 20)
    values = _values(x, (3, 3, 3), stride=(stride,) * 3) | {"tile": tile, "algorithm": 1, "block": (1, 1, 1)}
    packed = native.pack_weight("conv3d.winograd", w, **values)
    normed = activate("leaky_relu", x * scale[..., None, None, None] + shift[..., None, None, None], 0.1)
    expected = conv_oracle(normed, w, padding=1, stride=stride)
    answers = []
    for algorithm, block in ((1, (1, 1, 1)), (1, (3, 2, 2)), (1, (2, 4, 8)), (2, (2, 2, 3)), (2, (8, 8, 8))):
        target = _blank(36, *expected.shape[2:])
        target.array[...] = np.nan
        source = _blocked(x, pending=(scale, shift, 0.1))
        given = {**values, "algorithm": algorithm, "block": block}
        native.run_kernel("conv3d.winograd", [source, None, packed], [target], **given)
        answers.append(native.from_blocked(target.array, 36))
    _close(answers[0], expected)
    assert all(np.array_equal(answers[0], a) for a in answers)


@pytest.mark.parametrize("outputs", [3, 40])
def test_statistics(outputs: int) -> None:
    x, w, b = _array(0, 1, 32, 7, 9, 20), _array(1, outputs, 32, 3, 3, 3), _array(2, outputs)
    values = _values(x, (3, 3, 3))
    packed = native.pack_weight("conv3d.direct", w, **values)
    found = []
    for threads in (1, 3):
        target = Operand(native.aligned_empty((1, 3, 7, 9, 20), np.float32)) if outputs == 3 else _blank(40, 7, 9, 20)
        sums = native.aligned_empty((1, outputs, 2), np.float64)
        native.run_kernel(
            "conv3d.direct", [_blocked(x), None, packed, b], [target, sums], native.Pool(threads), **values
        )
        found.append(sums)
    reference = conv_oracle(x, w, b, padding=1)
    _close(found[0][..., 0], reference.sum((2, 3, 4)))
    _close(found[0][..., 1], (reference**2).sum((2, 3, 4)))
    assert np.array_equal(found[0], found[1])


@pytest.mark.parametrize("gaps", [False, True])
@pytest.mark.parametrize(
    ("first", "second", "outputs"), [(16, 0, 1), (20, 0, 5), (32, 0, 8), (3, 16, 4), (20, 5, 7), (48, 32, 2)]
)
def test_heads(first: int, second: int, outputs: int, gaps: bool) -> None:
    """One tap into a few row-major channels, of sources whose spare channels hold anything at the end."""
    space, channels = (3, 5, 23), first + second
    arrays = [_array(7, 2, first, *space)] + ([_array(8, 2, second, *space)] if second else [])
    norms = [(_array(5, 2, a.shape[1]), _array(6, 2, a.shape[1]), 0.1) for a in arrays]
    sources = [_blocked(a, pending=norm) for a, norm in zip(arrays, norms, strict=True)]
    if arrays[-1].shape[1] % 16:
        sources[-1].array[:, -1, ..., arrays[-1].shape[1] % 16 :] = np.nan
    w, b = _array(1, outputs, channels, 1, 1, 1), _array(2, outputs)
    values = _values(arrays[0], (1, 1, 1)) | {"pad_begin": (0, 0, 0), "pad_end": (0, 0, 0)}
    residual = _array(9, 2, outputs, *space)
    whole = np.concatenate(
        [
            activate("leaky_relu", a * scale[..., None, None, None] + shift[..., None, None, None], 0.1)
            for a, (scale, shift, _) in zip(arrays, norms, strict=True)
        ],
        axis=1,
    )
    expected = conv_oracle(whole, w, b, residual=residual)
    inputs = [sources[0], sources[1] if second else None, native.pack_weight("conv3d.direct", w, **values), b, residual]
    sums = [native.aligned_empty((2, outputs, 2), np.float64) for _ in range(2)]

    def run(threads: int, *rest: Any, **options: Any) -> Any:
        target = np.full((2, outputs, *space[:2], space[2] + 3 * gaps), np.nan, np.float32)[..., : space[2]]
        native.run_kernel(
            "conv3d.direct", inputs, [Operand(target), *rest], native.Pool(threads), **{**values, **options}
        )
        return target

    answers = [run(threads, to) for threads, to in zip((1, 3), sums, strict=True)]
    _close(answers[0], expected)
    assert np.array_equal(*answers)
    _close(sums[0][..., 0], expected.sum((2, 3, 4)))
    _close(sums[0][..., 1], (expected**2).sum((2, 3, 4)))
    assert np.array_equal(*sums)
    _close(run(1, activation=ACTIVATIONS["leaky_relu"], alpha=0.2), activate("leaky_relu", expected, 0.2))


@pytest.mark.parametrize("outputs", [1, 5])
@pytest.mark.parametrize("channels", [1, 3, 20])
@pytest.mark.parametrize(("stride", "pad"), [(1, 0), (2, 0), (1, 1), (3, 1)])
def test_other_heads(channels: int, outputs: int, stride: int, pad: int) -> None:
    """One tap into row-major channels with a stride or padding, or from row-major ones."""
    x, w, b = _array(0, 2, channels, 5, 6, 21), _array(1, outputs, channels, 1, 1, 1), _array(2, outputs)
    values = _values(x, (1, 1, 1), stride=(stride,) * 3) | {"pad_begin": (pad,) * 3, "pad_end": (pad,) * 3}
    expected = conv_oracle(x, w, b, stride=stride, padding=pad)
    target, sums = np.full(expected.shape, np.nan, np.float32), native.aligned_empty((2, outputs, 2), np.float64)
    source = _blocked(x) if channels > 4 else Operand(x)
    packed = native.pack_weight("conv3d.direct", w, **values)
    native.run_kernel("conv3d.direct", [source, None, packed, b], [Operand(target), sums], **values)
    _close(target, expected)
    _close(sums[..., 0], expected.sum((2, 3, 4)))
    _close(sums[..., 1], (expected**2).sum((2, 3, 4)))


@pytest.mark.parametrize("activation", ["none", "sigmoid"])
def test_channels_past_the_last_are_zero(activation: str) -> None:
    x, w = _array(0, 1, 20, 3, 4, 9), _array(1, 21, 20, 3, 3, 3)
    x[0, 5, 1, 1, 1] = np.inf
    values = _values(x, (3, 3, 3), activation=ACTIVATIONS[activation])
    source, target = _blocked(x), _blank(21, 3, 4, 9)
    source.array[:, 1, ..., 4:] = np.nan  # nor are they read
    native.run_kernel(
        "conv3d.direct", [source, None, native.pack_weight("conv3d.direct", w, **values)], [target], **values
    )
    assert np.all(target.array[:, 1, ..., 5:] == 0)
    assert (
        compare(native.from_blocked(target.array, 21), conv_oracle(x, w, padding=1, activation=activation)).relative
        < 1e-5
    )


def test_what_is_refused() -> None:
    x, w = _array(0, 1, 16, 4, 4, 8), _array(1, 16, 16, 3, 3, 3)
    values = _values(x, (3, 3, 3))
    packed = native.pack_weight("conv3d.direct", w, **values)
    source, target = _blocked(x), _blank(16, 4, 4, 8)

    def refused(message: str, inputs: list[Any], outputs: list[Any], **changed: Any) -> None:
        with pytest.raises(ShapeError, match=message):
            native.run_kernel("conv3d.direct", inputs, outputs, **{**values, **changed})

    refused("packed weights are too short", [source, None, packed[:-16]], [target])
    refused("destination has", [source, None, packed], [_blank(16, 4, 4, 9)])
    refused("destination has", [source, None, packed], [target], stride=(1, 1, 2))
    refused("algorithm 7", [source, None, packed], [target], algorithm=7)
    refused("precision 1", [source, None, packed], [target], precision=1)
    refused("groups is 0", [source, None, packed], [target], groups=0)
    refused("stride 0", [source, None, packed], [target], stride=(1, 0, 1))
    refused("activation 99", [source, None, packed], [target], activation=99)
    refused("channels0", [source, None, packed], [target], channels0=15)
    refused("bias", [source, None, packed, np.zeros(15, np.float32)], [target])
    refused("residual", [source, None, packed, None, _blank(16, 4, 4, 7)], [target])
    refused("row-major source", [Operand(x), None, packed], [target])
    refused("statistics", [source, None, packed], [target, np.zeros((1, 16, 2), np.float32)])
    refused(
        "reaches too far",
        [source, None, packed],
        [target],
        dilation=(1 << 20,) * 3,
        pad_begin=(1 << 20,) * 3,
        pad_end=(1 << 20,) * 3,
    )
    with pytest.raises(UsageError, match="no activation 'swoosh'"):
        conv.run(x, w, activation="swoosh")
