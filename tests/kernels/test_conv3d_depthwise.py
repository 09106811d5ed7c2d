"""conv3d.depthwise: by hand, any shape against the oracle, any number of threads, both instruction sets, a pending
norm, the lanes past the last channel, and what must be refused."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from voxelrt.errors import ShapeError, UsageError
from voxelrt.kernels.common import capi, native
from voxelrt.kernels.common.activation import activate
from voxelrt.kernels.common.kernel import compare
from voxelrt.kernels.common.native import BLOCKED16, Operand
from voxelrt.kernels.conv3d import conv3d
from voxelrt.kernels.conv3d import cpu as conv
from voxelrt.kernels.conv3d import oracle as conv_oracle

SETTINGS = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
TOLERANCE = 2e-6


def _array(seed: int, *shape: int) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def _blocked(x: Any, pending: Any = None) -> Operand:
    return Operand(native.to_blocked(x), BLOCKED16, x.shape[1], pending=pending)


def _blank(channels: int, *space: int) -> Operand:
    return Operand(native.aligned_empty((1, -(-channels // 16), *space, 16), np.float32), BLOCKED16, channels)


def _values(x: Any, kernel: int, **changed: Any) -> dict[str, Any]:
    more = {"groups": x.shape[1], "activation": 0, "alpha": 0.0, "beta": 0.0}
    return {**conv.parameters(x, (kernel,) * 3, 1, kernel // 2, 1, **more), **changed}


def _close(out: Any, reference: Any) -> None:
    difference = compare(out, reference)
    assert difference.relative <= TOLERANCE, str(difference)


def test_by_hand() -> None:
    """Two channels of five positions: a running sum of three, and a difference of the neighbours, plus ten."""
    x = np.array([[1, 2, 3, 4, 5], [1, 4, 9, 16, 25]], np.float32).reshape(1, 2, 1, 1, 5)
    w = np.array([[1, 1, 1], [-1, 0, 1]], np.float32).reshape(2, 1, 1, 1, 3)
    out = conv3d(x, w, np.array([0, 10], np.float32), padding=(0, 0, 1), groups=2)
    assert out.reshape(2, 5).tolist() == [[3, 6, 9, 12, 9], [14, 18, 22, 26, -6]]
    every_second = conv3d(x, w, stride=(1, 1, 2), padding=(0, 0, 1), groups=2)
    assert every_second.reshape(2, 3).tolist() == [[3, 9, 9], [4, 12, -16]]


@st.composite
def _convolutions(draw: st.DrawFn) -> tuple[tuple[Any, ...], dict[str, Any]]:
    channels = draw(st.sampled_from([2, 3, 15, 16, 17, 32, 40]))
    kernel = (draw(st.integers(1, 4)), draw(st.integers(1, 5)), draw(st.sampled_from([1, 2, 3, 5, 7])))
    space = draw(st.tuples(st.integers(1, 5), st.integers(1, 8), st.integers(1, 34)))
    pad = st.tuples(st.integers(0, 4), st.integers(0, 4))
    options: dict[str, Any] = {
        "stride": draw(st.tuples(*[st.integers(1, 3)] * 3)),
        "padding": draw(st.tuples(pad, pad, pad)),
        "dilation": draw(st.sampled_from([(1, 1, 1), (1, 1, 1), (2, 2, 1), (1, 1, 2)])),
        "groups": channels,
        "activation": draw(st.sampled_from(["none", "relu", "silu", "gelu"])),
    }
    x = _array(draw(st.integers(0, 99)), draw(st.integers(1, 2)), channels, *space)
    if draw(st.booleans()):
        x = np.asfortranarray(x)
    return (x, _array(1, channels, 1, *kernel), _array(2, channels)), options


@SETTINGS
@given(_convolutions())
def test_any_shape(drawn: tuple[tuple[Any, ...], dict[str, Any]]) -> None:
    args, options = drawn
    reference = conv_oracle(*args, **options)
    out = conv3d(*args, algorithm="depthwise", **options)
    assert out.shape == reference.shape
    _close(out, reference)


@pytest.mark.parametrize("stride", [1, 2])
def test_any_number_of_threads(stride: int) -> None:
    x, w, b = _array(0, 2, 50, 5, 21, 33), _array(1, 50, 1, 3, 5, 7), _array(2, 50)
    how: dict[str, Any] = {"stride": stride, "padding": 2, "groups": 50, "activation": "silu"}
    outs = [conv.run(x, w, b, pool=native.Pool(threads), **how) for threads in (1, 2, 3, 5)]
    assert all(np.array_equal(outs[0], out) for out in outs[1:])


def test_tiles_and_taps_agree() -> None:
    """A kernel with tiles of its own, and the same one framed by zeros, which has none, sum in the same order."""
    x, w = _array(0, 1, 18, 4, 9, 30), _array(1, 18, 1, 3, 3, 7)
    framed = np.zeros((18, 1, 3, 3, 9), np.float32)
    framed[..., 1:8] = w
    tiles = conv3d(x, w, padding=(1, 1, 3), groups=18)
    assert np.array_equal(tiles, conv3d(x, framed, padding=(1, 1, 4), groups=18))


@pytest.mark.parametrize("kernel", [3, 4])
def test_pending_norm_is_applied_before_the_padding(kernel: int) -> None:
    x, w = _array(0, 1, 20, 4, 5, 9), _array(1, 20, 1, kernel, kernel, kernel)
    scale, shift = _array(2, 1, 20), _array(3, 1, 20)
    values = _values(x, kernel)
    size = conv.output_size(x.shape, values)
    target = _blank(20, *size)
    packed = native.pack_weight("conv3d.depthwise", w, **values)
    native.run_kernel("conv3d.depthwise", [_blocked(x, (scale, shift, 0.1)), None, packed], [target], **values)
    normed = activate("leaky_relu", x * scale[..., None, None, None] + shift[..., None, None, None], 0.1)
    _close(native.from_blocked(target.array, 20), conv_oracle(normed, w, padding=kernel // 2, groups=20))


@pytest.mark.parametrize("activation", [0, 3])
def test_channels_past_the_last_are_zero(activation: int) -> None:
    x, w = _array(0, 1, 21, 3, 4, 9), _array(1, 21, 1, 3, 3, 3)
    source, target, values = _blocked(x), _blank(21, 3, 4, 9), _values(x, 3, activation=activation)
    source.array[:, 1, ..., 5:] = np.nan
    target.array[...] = np.nan
    packed = native.pack_weight("conv3d.depthwise", w, **values)
    native.run_kernel("conv3d.depthwise", [source, None, packed], [target], **values)
    assert np.all(target.array[:, 1, ..., 5:] == 0)
    assert not np.isnan(target.array).any()


def test_a_nan_reaches_the_outputs_that_read_it() -> None:
    x, w = np.zeros((1, 17, 1, 6, 12), np.float32), np.ones((17, 1, 1, 3, 3), np.float32)
    x[0, 16, 0, 2, 7] = np.nan
    out = conv3d(x, w, padding=(0, 1, 1), groups=17, activation="silu")
    expected = np.zeros(out.shape, bool)
    expected[0, 16, 0, 1:4, 6:9] = True
    assert np.array_equal(np.isnan(out), expected)


def test_what_is_refused() -> None:
    x, w = _array(0, 1, 20, 4, 4, 8), _array(1, 20, 1, 3, 3, 3)
    values = _values(x, 3)
    packed, source, target = native.pack_weight("conv3d.depthwise", w, **values), _blocked(x), _blank(20, 4, 4, 8)

    def refused(message: str, inputs: list[Any], outputs: list[Any], **changed: Any) -> None:
        with pytest.raises(ShapeError, match=message):
            native.run_kernel("conv3d.depthwise", inputs, outputs, **{**values, **changed})

    refused("packed weights are too short", [source, None, packed[:-1]], [target])
    refused("takes one source", [source, _blocked(x), packed], [target], groups=1)
    refused("as many groups as there are channels", [source, None, packed], [target], groups=10)
    refused("blocked tensors", [Operand(x), None, packed], [target])
    refused("no statistics", [source, None, packed], [target, native.aligned_empty((1, 20, 2), np.float64)])
    refused("destination has", [source, None, packed], [target], stride=(1, 1, 2))
    with pytest.raises(ShapeError):
        native.pack_weight("conv3d.depthwise", w[:16], **values)
    with pytest.raises(UsageError, match="a group for each channel"):
        conv3d(x, _array(1, 40, 1, 3, 3, 3), groups=20, algorithm="depthwise")
    with pytest.raises(UsageError, match="takes float32"):
        conv3d(x.astype(np.float64), w.astype(np.float64), groups=20, algorithm="depthwise")


_SAME = """
import hashlib, numpy as np
from voxelrt.kernels.conv3d import conv3d
rng = np.random.default_rng(0)
x, w = (rng.standard_normal(s).astype(np.float32) for s in ((1, 40, 3, 11, 23), (40, 1, 3, 5, 5)))
print(hashlib.sha256(conv3d(x, w, padding=2, stride=(1, 2, 1), groups=40).tobytes()).hexdigest())
"""


@pytest.mark.skipif(capi.isa() != "avx512", reason="needs a processor with AVX-512 to test the other set too")
def test_both_instruction_sets_sum_in_the_same_order() -> None:
    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal(s).astype(np.float32) for s in ((1, 40, 3, 11, 23), (40, 1, 3, 5, 5)))
    here = conv3d(x, w, padding=2, stride=(1, 2, 1), groups=40)
    environment = {**os.environ, "VOXELRT_CPU_ISA": "avx2"}
    there = subprocess.run([sys.executable, "-c", _SAME], env=environment, capture_output=True, text=True, check=True)
    assert there.stdout.strip() == hashlib.sha256(here.tobytes()).hexdigest()
