"""norm3d against its oracle on what hypothesis chooses, its guarantees, and what its checks refuse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from voxelrt.errors import ShapeError, UsageError
from voxelrt.kernels.common import native
from voxelrt.kernels.common.activation import ACTIVATIONS
from voxelrt.kernels.common.kernel import Array, compare
from voxelrt.kernels.norm3d import KERNEL, layer_norm, norm3d
from voxelrt.kernels.norm3d.cpu import statistics
from voxelrt.kernels.norm3d.oracle import norm3d as oracle

PROPERTY = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def _random(shape: tuple[int, ...], seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(1, 2, shape).astype(np.float32)


@PROPERTY
@given(st.data())
def test_instance_and_group_norm(data: st.DataObject) -> None:
    groups = data.draw(st.sampled_from([0, 1, 2, 3]))
    channels = max(groups, 1) * data.draw(st.integers(1, 12))
    space = data.draw(st.lists(st.integers(1, 20), min_size=3, max_size=3))
    x = _random((data.draw(st.integers(1, 2)), channels, *space), data.draw(st.integers(0, 9)))
    if data.draw(st.booleans()):  # with gaps
        x = x.swapaxes(-1, 0).copy().swapaxes(-1, 0)
    options: dict[str, Any] = {
        "groups": groups,
        "activation": (data.draw(st.sampled_from(list(ACTIVATIONS))), 0.2, 0.7),
        "epsilon": 0.1,
    }
    layout = data.draw(st.sampled_from(["linear", "blocked"]))
    gamma, beta = _random((channels,), 1), _random((channels,), 2)
    out = KERNEL(x, gamma, beta, layout=layout, **options)
    assert compare(out, KERNEL.oracle(x, gamma, beta, **options)).relative <= 2e-6


@PROPERTY
@given(st.data())
def test_norms_over_axes(data: st.DataObject) -> None:
    shape = tuple(data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=5)))
    axes = data.draw(st.sets(st.integers(0, len(shape) - 1), min_size=1))
    kind = data.draw(st.sampled_from(["layer", "rms", "mean_variance", "lp"]))
    dtype = data.draw(st.sampled_from(["float32", "float64"]))
    x = _random(shape).astype(dtype)
    gamma = _random(tuple(n if data.draw(st.booleans()) else 1 for n in shape), 1).astype(dtype)
    p = data.draw(st.sampled_from([1, 2]))
    answers = layer_norm(x, gamma, None, kind=kind, axes=tuple(axes), epsilon=0.125, p=p, moments=True)
    expected = oracle(x, gamma, None, kind=kind, axes=tuple(axes), epsilon=0.125, p=p, moments=True)
    for answer, reference in zip(answers, expected, strict=True):
        assert compare(answer, reference).relative <= (1e-6 if dtype == "float32" else 1e-12)


@pytest.mark.parametrize("layout", ["linear", "blocked"])
def test_a_pending_affine_counts_as_applied(layout: str) -> None:
    x = _random((2, 19, 6, 7, 8))
    scale, shift = _random((2, 19), 1), _random((2, 19), 2)
    applied = x * scale[..., None, None, None] + shift[..., None, None, None]
    applied = np.where(applied >= 0, applied, applied * np.float32(0.1))
    expected = statistics(native.Operand(applied), None, None, groups=0, epsilon=1e-5)
    source = native.Operand(native.to_blocked(x), native.BLOCKED16, 19, (scale, shift, 0.1))
    if layout == "linear":
        with pytest.raises(ShapeError, match="blocked"):
            statistics(native.Operand(x, pending=(scale, shift, 0.1)), None, None, groups=0, epsilon=1e-5)
        return
    for out, reference in zip(statistics(source, None, None, groups=0, epsilon=1e-5), expected, strict=True):
        assert compare(out, reference).relative <= 1e-6


def test_statistics_of_a_large_mean_are_those_of_float64() -> None:
    x = np.random.default_rng(0).normal(4000, 1, (1, 16, 24, 24, 24)).astype(np.float32)
    variance = x.astype(np.float64).var(axis=(2, 3, 4))
    for operand in (native.Operand(x), native.Operand(native.to_blocked(x), native.BLOCKED16, 16)):
        scale, _ = statistics(operand, None, None, groups=0, epsilon=0.0)
        assert compare(scale, 1 / np.sqrt(variance)).relative <= 1e-7


def test_any_number_of_threads_gives_the_same_bits() -> None:
    x = _random((2, 2, 12, 30, 40, 16))
    wide = _random((3, 70000))
    answers = []
    for threads in (1, 2, 5):
        pool = native.Pool(threads)
        outs = [native.aligned_empty((2, 32), np.float32) for _ in range(2)]
        source = native.Operand(x, native.BLOCKED16, 32)
        native.run_kernel("norm3d.statistics", [source], outs, pool, groups=4, epsilon=1e-5)
        normed = native.aligned_empty(wide.shape, np.float32)
        native.run_kernel("norm3d.layer", [wide], [normed], pool, mode=0, axis=1, p=2, epsilon=1e-5)
        answers.append(b"".join(out.tobytes() for out in (*outs, normed)))
    assert len(set(answers)) == 1


def test_an_affine_keeps_zeros_past_the_last_channel() -> None:
    x = native.to_blocked(_random((1, 5, 2, 3, 4)))
    out = native.aligned_empty(x.shape, np.float32)
    vectors = [np.full(5, 2.0, np.float32)] * 2
    operands = [native.Operand(array, native.BLOCKED16, 5) for array in (x, out)]
    native.run_kernel("norm3d.apply", [operands[0], *vectors], [operands[1]], activation=3, alpha=0.0, beta=0.0)
    assert (out[..., 5:] == 0).all()


def test_fold_makes_a_batch_norm_an_affine() -> None:
    gamma, beta, mean = (_random((7,), seed) for seed in range(3))
    variance = np.abs(_random((7,), 3))
    scale, shift = (native.aligned_empty((7,), np.float32) for _ in range(2))
    native.run_kernel("norm3d.fold", [gamma, beta, mean, variance], [scale, shift], epsilon=1e-3)
    expected = gamma.astype(np.float64) / np.sqrt(variance.astype(np.float64) + 1e-3)
    assert compare(scale, expected).relative <= 1e-6
    assert compare(shift, beta - mean * expected).relative <= 1e-6


def test_a_nan_stays() -> None:
    x = _random((1, 2, 40))
    x[0, 1, 7] = np.nan
    assert np.isnan(norm3d(x)).sum() == 40
    assert np.isnan(layer_norm(x)).sum() == 40  # type: ignore[arg-type]


def test_what_is_refused() -> None:
    x = _random((1, 6, 4))
    with pytest.raises(UsageError, match="selu"):
        norm3d(x, activation="selu")
    with pytest.raises(UsageError, match="weight"):
        layer_norm(x, kind="weight")
    with pytest.raises(ShapeError, match="do not divide"):
        norm3d(x, groups=4)
    with pytest.raises(ShapeError, match="one float32 a channel"):
        norm3d(x, np.ones(5, np.float32))
    with pytest.raises(ShapeError, match="float64"):
        norm3d(x.astype(np.float64))
    with pytest.raises(ShapeError, match="p is 1 or 2"):
        layer_norm(x, kind="lp", p=3)
    with pytest.raises(ShapeError, match="one number a channel"):
        native.run_kernel(
            "norm3d.apply",
            [x, np.ones(4, np.float32), np.ones(4, np.float32)],
            [x.copy()],
            activation=0,
            alpha=0.0,
            beta=0.0,
        )
    with pytest.raises(ShapeError, match="axis"):
        native.run_kernel("norm3d.layer", [x], [x.copy()], mode=0, axis=3, p=2, epsilon=0.0)
    with pytest.raises(ShapeError, match="without gaps"):
        native.run_kernel("norm3d.lrn", [x[:, ::2]], [x[:, ::2].copy()], size=3, alpha=1.0, beta=1.0, bias=1.0)
