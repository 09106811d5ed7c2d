"""reduce in plans: blocked volumes, and results that depend on nothing but their own elements."""

from __future__ import annotations

import numpy as np
import pytest

from tests.kernels.blocked import answer, blocked, output
from voxelrt.errors import ShapeError
from voxelrt.kernels.common import native
from voxelrt.kernels.reduce import reduce
from voxelrt.kernels.reduce.codes import REDUCTIONS


@pytest.mark.parametrize("channels", [16, 19, 5])
@pytest.mark.parametrize("axes", [(2, 3, 4), (4,), (1,), (1, 4), (0,), (1, 2, 3, 4)])
@pytest.mark.parametrize("op", ["Sum", "Max", "LogSumExp"])
def test_blocked_volumes(op: str, axes: tuple[int, ...], channels: int) -> None:
    x = np.random.default_rng(0).normal(size=(2, channels, 3, 5, 7)).astype(np.float32)
    expected = reduce(op, x, axes)
    out = output(expected.shape)
    native.run_kernel("reduce", [blocked(x)], [out], op=REDUCTIONS.index(op))
    np.testing.assert_allclose(answer(out), expected, rtol=1e-6)
    if 1 in axes:
        flat = native.aligned_empty(expected.shape, np.float32)
        native.run_kernel("reduce", [blocked(x)], [flat], op=REDUCTIONS.index(op))
        np.testing.assert_allclose(flat, expected, rtol=1e-6)


@pytest.mark.parametrize("channels", [16, 19, 5])
def test_labels_of_a_blocked_volume(channels: int) -> None:
    x = np.random.default_rng(1).normal(size=(2, channels, 3, 5, 7)).astype(np.float32) - 5
    out = native.aligned_empty((2, 1, 3, 5, 7), np.int64)
    native.run_kernel("reduce.arg", [blocked(x)], [out], axis=1, smallest=0, last=0)
    np.testing.assert_array_equal(out, x.argmax(1, keepdims=True))


def test_extrema_of_nothing_but_nans_and_ties() -> None:
    x = np.array([[np.nan, 1, np.nan], [2, 2, 1], [-np.inf, -np.inf, -np.inf]], np.float32)
    for wide in (x, np.concatenate([x, *[x[:, -1:]] * 61], 1)):
        for axis, turned in ((1, wide), (0, np.ascontiguousarray(wide.T))):
            assert reduce("ArgMax", turned, (axis,), keepdims=False).tolist() == wide.argmax(1).tolist()
            assert reduce("ArgMin", turned, (axis,), keepdims=False).tolist() == wide.argmin(1).tolist()
            last = wide.shape[1] - 1 - wide[:, ::-1].argmax(1)
            assert reduce("ArgMax", turned, (axis,), keepdims=False, last=True).tolist() == last.tolist()


@pytest.mark.parametrize(("op", "axes"), [("Sum", (2, 3)), ("LogSumExp", (1, 2, 3)), ("Mean", (1,)), ("L2", (3,))])
def test_results_do_not_depend_on_threads_or_batch(op: str, axes: tuple[int, ...]) -> None:
    x = np.random.default_rng(2).normal(size=(4, 3, 300, 401)).astype(np.float32)
    whole = reduce(op, x, axes)
    for i in range(4):
        assert reduce(op, x[i : i + 1], axes).tobytes() == whole[i : i + 1].tobytes()
    single = native.aligned_empty(whole.shape, np.float32)
    native.run_kernel("reduce", [x], [single], native.Pool(1), op=REDUCTIONS.index(op))
    assert single.tobytes() == whole.tobytes()


def test_extrema_of_nothing() -> None:
    for dtype in (np.int8, np.uint16, np.int32, np.int64, np.uint64):
        info = np.iinfo(dtype)
        assert reduce("Max", np.zeros((2, 0), dtype), (1,)).tolist() == [[info.min]] * 2
        assert reduce("Min", np.zeros((2, 0), dtype), (1,)).tolist() == [[info.max]] * 2
    assert reduce("Max", np.zeros((2, 0), bool), (1,)).tolist() == [[False]] * 2
    assert reduce("Max", np.zeros((2, 0), np.float32), (1,)).tolist() == [[-np.inf]] * 2


def test_refusals() -> None:
    with pytest.raises(ShapeError):
        reduce("Sum", np.ones(3, bool))
    with pytest.raises(ShapeError):
        reduce("LogSum", np.ones(3, np.int32))
    with pytest.raises(ShapeError):
        reduce("ArgMax", np.ones((3, 0), np.float32), (1,))
