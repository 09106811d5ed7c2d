"""conv3d.bf16, conv3d.int8, conv_transpose3d.bf16, and the volumes in bfloat16 that other kernels take with them."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray

from voxelrt.errors import ShapeError
from voxelrt.kernels.common import native
from voxelrt.kernels.common.kernel import compare
from voxelrt.kernels.common.native import BLOCKED16, Operand, Pool
from voxelrt.kernels.conv3d import cpu
from voxelrt.kernels.conv3d.oracle import conv3d as oracle
from voxelrt.kernels.conv_transpose3d.oracle import conv_transpose3d as transposed_oracle

RNG = np.random.default_rng(11)
Array = NDArray[Any]
BF16 = ml_dtypes.bfloat16
EPSILON = 2.0**-8  # of bfloat16, rounded to nearest: half of the last of its eight bits


def normal(*shape: int) -> Array:
    return RNG.standard_normal(shape).astype(np.float32)


def near(array: Array) -> Array:
    """Rounded to bfloat16, as float32."""
    return array.astype(BF16).astype(np.float32)


def volume(array: Array, dtype: Any, pending: Any = None) -> Operand:
    return Operand(native.to_blocked(array.astype(dtype)), BLOCKED16, array.shape[1], pending)


def empty(shape: tuple[int, ...], dtype: Any) -> Operand:
    n, c, *space = shape
    return Operand(native.aligned_empty((n, -(-c // 16), *space, 16), dtype), BLOCKED16, c)


def answer(out: Operand) -> Array:
    spare = out.array.shape[1] * 16 - out.channels
    assert not spare or not out.array[:, -1, ..., 16 - spare :].astype(np.float32).any(), "spare channels hold zeros"
    return native.from_blocked(out.array, out.channels).astype(np.float32)


def values(x: Array, weights: Array, precision: int, **rest: Any) -> dict[str, Any]:
    asked = {"stride": 1, "padding": 1, "dilation": 1, "groups": 1, "activation": 0, "alpha": 0.0, "beta": 0.0, **rest}
    return {**cpu.parameters(x, tuple(weights.shape[2:]), **asked), "precision": precision}


def test_bfloat16_products_by_hand() -> None:
    x = np.array([1.0, 2.0, 3.0, 1.00390625], np.float32).reshape(1, 1, 1, 1, 4)  # the last one rounds to 1
    w = np.array([0.5, 4.0], np.float32).reshape(1, 1, 1, 1, 2)
    out = cpu.run(x, w, np.array([0.25], np.float32), precision="bf16")
    assert out.ravel().tolist() == [8.75, 13.25, 5.75]


def test_integers_by_hand_with_a_zero_point_and_padding() -> None:
    # x / 0.5 + 3: codes 5, 3, 1 (and 3 outside); weights are 2 and -1 codes of 0.25.
    x = np.array([1.0, 0.0, -1.0], np.float32).reshape(1, 1, 1, 1, 3)
    raw = np.array([2, -1], np.int8).reshape(1, 1, 1, 1, 2)
    given = values(x, raw, 2, padding=((0, 0), (0, 0), (1, 0)))
    given |= {"source_scale": 0.5, "source_zero": 3, "source_signed": 0}
    out = native.aligned_empty((1, 1, 1, 1, 3), np.float32)
    packed = native.pack_weight("conv3d.int8", raw, **given)
    scales = np.array([0.25], np.float32)
    native.run_kernel("conv3d.int8", [Operand(x), None, packed, None, None, scales], [out], **given)
    # (0·2 − 1) · 0.25, (1·2 + 0) · 0.25, (0 + 1) · 0.25
    assert out.ravel().tolist() == [-0.25, 0.5, 0.25]


def test_the_largest_products_are_not_cut_off() -> None:
    x = np.full((1, 32, 3, 3, 3), 127.0, np.float32)
    w = np.full((16, 32, 3, 3, 3), -1.0, np.float32)
    for way in ("direct", "widened"):
        out = cpu.run(x, w, precision="int8", source_scale=1.0, algorithm=way)
        assert np.allclose(out, -127.0 * 32 * 27, rtol=1e-6)


@pytest.mark.parametrize("way", [0, 1])
@pytest.mark.parametrize("stored", [np.float32, BF16])
def test_pending_two_sources_statistics_and_a_narrow_result(way: int, stored: Any) -> None:
    first, second = near(normal(2, 21, 5, 6, 15)), near(normal(2, 19, 5, 6, 15))
    scale, shift, slope = normal(2, 21), normal(2, 21), 0.1
    w, bias = near(normal(40, 40, 3, 3, 3)), normal(40)
    given = {**values(first, w, 1), "algorithm": way}
    out, sums = empty((2, 40, 5, 6, 15), BF16), native.aligned_empty((2, 40, 2), np.float64)
    packed = native.pack_weight("conv3d.bf16", w, **given)
    sources = [volume(first, stored, (scale, shift, slope)), volume(second, stored)]
    native.run_kernel("conv3d.bf16", [*sources, packed, bias], [out, sums], **given)
    normed = (first.astype(np.float64) * scale[..., None, None, None] + shift[..., None, None, None]).astype(np.float32)
    normed = near(np.where(normed < 0, normed * np.float32(slope), normed).astype(np.float32))
    expected = oracle(normed, w, bias, second=second, padding=1)
    assert compare(answer(out), expected).relative < EPSILON
    assert compare(sums[..., 0], expected.sum((2, 3, 4))).relative < 1e-3  # a norm on a tie may round either way
    assert compare(sums[..., 1], (expected**2).sum((2, 3, 4))).relative < 1e-3


def test_both_ways_agree() -> None:
    x, w, bias = normal(1, 37, 6, 9, 20), normal(50, 37, 3, 3, 3), normal(50)
    for precision, most in (("bf16", 1e-6), ("int8", 0.0)):
        best, widened = (
            cpu.run(x, w, bias, padding=1, precision=precision, source_scale=0.03, algorithm=way)
            for way in ("direct", "widened")
        )
        assert compare(best, widened).relative <= most


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_any_number_of_threads_gives_the_same_bits(precision: str) -> None:
    x, w = normal(1, 24, 9, 17, 18), normal(33, 24, 3, 3, 3)
    answers = [
        cpu.run(x, w, stride=2, padding=1, precision=precision, source_scale=0.03, pool=Pool(n)) for n in (1, 2, 5, 8)
    ]
    assert all(np.array_equal(answers[0], other) for other in answers[1:])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"source_zero": 300}, "zero point"),
        ({"source_scale": 0.0}, "scale of the source"),
        ({"source_scale": float("nan")}, "scale of the source"),
        ({"precision": 1}, "precision 1"),
        ({"algorithm": 2}, "algorithm 2"),
    ],
)
def test_what_integers_refuse(change: dict[str, Any], says: str) -> None:
    x, raw = normal(1, 16, 2, 2, 2), np.ones((16, 16, 1, 1, 1), np.int8)
    given = {**values(x, raw, 2, padding=0), "source_scale": 1.0, "source_zero": 0, "source_signed": 1}
    packed = native.pack_weight("conv3d.int8", raw, **given)
    operands = [volume(x, np.float32), None, packed, None, None, np.ones(16, np.float32)]
    with pytest.raises(ShapeError, match=says):
        native.run_kernel("conv3d.int8", operands, [empty((1, 16, 2, 2, 2), np.float32)], **{**given, **change})


def test_weights_that_are_too_short_are_refused() -> None:
    x, w = normal(1, 16, 2, 2, 2), normal(16, 16, 1, 1, 1)
    given = values(x, w, 1, padding=0)
    packed = native.pack_weight("conv3d.bf16", w, **given)[:-1].copy()
    with pytest.raises(ShapeError, match="too short"):
        native.run_kernel("conv3d.bf16", [volume(x, BF16), None, packed], [empty((1, 16, 2, 2, 2), BF16)], **given)


def test_an_empty_volume() -> None:
    x, w = normal(0, 16, 2, 2, 2), normal(16, 16, 1, 1, 1)
    given = values(x, w, 1, padding=0)
    packed = native.pack_weight("conv3d.bf16", w, **given)
    native.run_kernel("conv3d.bf16", [volume(x, BF16), None, packed], [empty((0, 16, 2, 2, 2), BF16)], **given)


@pytest.mark.parametrize("way", [0, 1])
@pytest.mark.parametrize("stored", [np.float32, BF16])
@pytest.mark.parametrize(
    ("stride", "channels", "outputs", "size"),
    [
        ((2, 2, 2), 37, 40, (3, 4, 17)),
        ((1, 2, 2), 16, 7, (1, 5, 1)),
        ((2, 1, 3), 5, 64, (2, 300, 3)),
    ],
)
def test_transposed(
    way: int, stored: Any, stride: tuple[int, ...], channels: int, outputs: int, size: tuple[int, ...]
) -> None:
    x, w, bias = near(normal(2, channels, *size)), near(normal(channels, outputs, *stride)), normal(outputs)
    zeros = [0, 0, 0]
    given = {
        "algorithm": way, "precision": 1, "kernel": stride, "stride": stride, "dilation": [1, 1, 1],
        "pad_begin": zeros, "pad_end": zeros, "output_padding": zeros, "groups": 1,
        "activation": 2, "alpha": 0.25, "beta": 0.0,
    }  # fmt: skip
    out = empty((2, outputs, *(n * s for n, s in zip(size, stride, strict=True))), stored)
    packed = native.pack_weight("conv_transpose3d.bf16", w, **given)
    native.run_kernel("conv_transpose3d.bf16", [volume(x, stored), packed, bias], [out], **given)
    expected = transposed_oracle(x, w, bias, stride=stride, activation="leaky_relu", alpha=0.25)
    assert compare(answer(out), expected).relative < (EPSILON if stored is BF16 else 1e-6)


@pytest.mark.parametrize("algorithm", [1, 2])
def test_winograd_of_volumes_in_bfloat16(algorithm: int) -> None:
    x, w, bias = near(normal(1, 37, 9, 10, 13)), normal(24, 37, 3, 3, 3), normal(24)
    given = {**values(x, w, 0), "algorithm": algorithm, "tile": (4, 4, 4), "block": (1, 2, 2)}
    packed = native.pack_weight("conv3d.winograd", w, **{**given, "algorithm": 1, "block": (1, 1, 1)})
    scale, shift = normal(1, 37), normal(1, 37)
    made = []
    for stored in (np.float32, BF16):
        out, sums = empty((1, 24, 9, 10, 13), stored), native.aligned_empty((1, 24, 2), np.float64)
        native.run_kernel(
            "conv3d.winograd", [volume(x, stored, (scale, shift, 0.1)), None, packed, bias], [out, sums], **given
        )
        made.append((answer(out), sums))
    assert np.array_equal(near(made[0][0]), made[1][0])  # the same arithmetic, rounded once
    assert np.array_equal(made[0][1], made[1][1])


def test_copies_round_as_bfloat16_does() -> None:
    x = RNG.integers(0, 2**32, (1, 40, 3, 5, 7), dtype=np.uint32).view(np.float32).copy()
    x.ravel()[:4] = [np.nan, np.inf, -np.inf, 1e-40]
    x[np.isnan(x)] = np.nan
    narrow, wide = empty(x.shape, BF16), empty(x.shape, np.float32)
    native.run_kernel("copy", [x], [narrow], reserved=0)
    assert np.array_equal(answer(narrow), near(x), equal_nan=True)
    native.run_kernel("copy", [narrow], [wide], reserved=0)
    assert np.array_equal(answer(wide), near(x), equal_nan=True)
    other, linear = empty(x.shape, BF16), native.aligned_empty(x.shape, np.float32)
    native.run_kernel("copy", [wide], [other], reserved=0)
    assert np.array_equal(answer(other), near(x), equal_nan=True)
    native.run_kernel("copy", [other], [linear], reserved=0)
    assert np.array_equal(linear, near(x), equal_nan=True)


def test_elementwise_of_volumes_in_bfloat16() -> None:
    x, y = near(normal(2, 21, 3, 4, 5)), near(normal(2, 21, 3, 4, 5))
    scale, shift = normal(2, 21), normal(2, 21)
    out = empty(x.shape, BF16)
    options = {"op": 0, "post": 0, "alpha": 0.0, "beta": 0.0}
    native.run_kernel("elementwise.binary", [volume(x, BF16, (scale, shift, 0.5)), volume(y, BF16)], [out], **options)
    normed = x * scale[..., None, None, None] + shift[..., None, None, None]
    expected = np.where(normed < 0, 0.5 * normed, normed) + y
    assert compare(answer(out), expected).relative < EPSILON
