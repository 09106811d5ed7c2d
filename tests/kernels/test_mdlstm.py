"""Multi-dimensional LSTM layers: worked by hand, as plain LSTMs along one axis, and symmetric under reflection."""

from __future__ import annotations

import math

import numpy as np
import pytest

from voxelrt.errors import ShapeError
from voxelrt.kernels import lstm, mdlstm
from voxelrt.kernels.common import native
from voxelrt.kernels.mdlstm.layer import GridLayer


def _sigmoid(v: float) -> float:
    return 1 / (1 + math.exp(-v))


def test_two_cells_by_hand() -> None:
    """A grid of 1 by 2, one unit, x = 1; direction 0. All weights of the input are 1, those of the states 0.5 and 2."""
    w, r = np.ones((4, 5, 1), np.float32), np.tile(np.array([0.5, 2], np.float32), (4, 5, 1))
    y = mdlstm(np.ones((1, 2, 1, 1), np.float32), w, r)
    c1 = _sigmoid(1) * math.tanh(1)
    h1 = _sigmoid(1) * math.tanh(c1)
    v = 1 + 2 * h1  # the predecessor lies along the second axis
    c2 = _sigmoid(v) * math.tanh(v) + _sigmoid(v) * c1
    np.testing.assert_allclose(y[0, :, 0, 0, 0], [h1, _sigmoid(v) * math.tanh(c2)], rtol=3e-7)
    np.testing.assert_allclose(y[0, :, 2, 0, 0], y[0, ::-1, 0, 0, 0], rtol=0)  # direction 2 goes back along that axis


def test_one_axis_is_a_bidirectional_lstm() -> None:
    """The same gates (there i, o, f, c; here i, o, f, g) and the same sums."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(9, 3, 5)).astype(np.float32)
    w, r = (rng.normal(0, 0.3, (2, 4 * 21, n)).astype(np.float32) for n in (5, 21))
    np.testing.assert_allclose(mdlstm(x, w, r), lstm(x, w, r, direction="bidirectional")[0], atol=3e-7)


def test_a_mirrored_grid_gives_mirrored_directions() -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(size=(4, 3, 5, 2, 6)).astype(np.float32)
    w, r = (np.repeat(rng.normal(0, 0.3, (1, 6 * 9, n)), 8, 0).astype(np.float32) for n in (6, 27))
    y, mirrored = mdlstm(x, w, r), mdlstm(np.ascontiguousarray(x[:, :, ::-1]), w, r)
    for k in range(8):
        np.testing.assert_array_equal(mirrored[:, :, ::-1, k], y[:, :, :, k ^ 4])


def test_results_do_not_depend_on_the_threads() -> None:
    rng = np.random.default_rng(3)
    sums = rng.normal(size=(7, 9, 2, 4 * 5 * 32)).astype(np.float32)
    r = rng.normal(0, 0.2, (4, 5 * 20, 40)).astype(np.float32)
    assert GridLayer(2, 20).columns == sums.shape[-1]
    packed = native.pack_weight("mdlstm", r, axes=2, hidden=20)
    answers = []
    for threads in (1, 2, 5):
        y = native.aligned_empty((7, 9, 4, 2, 20), np.float32)
        native.run_kernel("mdlstm", [sums, packed], [y], pool=native.Pool(threads), axes=2, hidden=20)
        answers.append(y)
    assert np.isfinite(answers[0]).all()
    for other in answers[1:]:
        np.testing.assert_array_equal(other, answers[0])


def test_what_is_refused() -> None:
    x, w, r = np.zeros((2, 3, 1, 4), np.float32), np.zeros((4, 25, 4), np.float32), np.zeros((4, 25, 10), np.float32)
    with pytest.raises(ShapeError, match="one to three axes"):
        mdlstm(x[0, 0], w, r)
    with pytest.raises(ShapeError, match=r"W has the shape \(4, 20, 4\)"):
        mdlstm(x, w[:, :20], r)
    with pytest.raises(ShapeError, match="float64"):
        mdlstm(x.astype(np.float64), w, r)
