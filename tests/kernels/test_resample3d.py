"""resample3d and preprocess: by hand, and what they refuse."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from voxelrt.errors import ShapeError, UsageError, VoxelRTError
from voxelrt.kernels import preprocess, resample3d

ROW = np.array([0.0, 8.0], np.float32).reshape(1, 1, 1, 2)


@pytest.mark.parametrize(
    ("grid", "expected"),
    [("edges", [0, 2, 6, 8]), ("first_centre", [0, 4, 8, 8]), ("align_corners", [0, 8 / 3, 16 / 3, 8])],
)
def test_grids_lie_half_a_voxel_apart(grid: str, expected: list[float]) -> None:
    np.testing.assert_allclose(resample3d(ROW, (1, 1, 4), grid=grid)[0, 0, 0], expected, rtol=1e-6)


def test_whole_numbers_are_rounded_and_stay_in_range() -> None:
    steep = np.array([0, 0, 255, 255, 0, 0], np.uint8).reshape(1, 1, 1, 6)
    out = resample3d(steep, (1, 1, 17), order=3)
    assert out.dtype == np.uint8
    assert out.max() == 255  # the spline overshoots
    assert out.min() == 0


def test_labels_of_logits_are_those_of_resampled_logits() -> None:
    logits = np.random.default_rng(0).normal(size=(2, 300, 3, 4, 5)).astype(np.float32)
    labels = resample3d(logits, (5, 4, 9), argmax=True)
    assert labels.dtype == np.uint16
    np.testing.assert_array_equal(labels, resample3d(logits, (5, 4, 9)).argmax(axis=1))


@pytest.mark.parametrize(
    ("volume", "size", "options"),
    [
        (np.zeros((3, 4, 5), np.float32), (1, 1, 1), {}),
        (np.zeros((1, 0, 4, 5), np.float32), (1, 1, 1), {}),
        (ROW, (1, 1), {}),
        (ROW, (1, 0, 1), {}),
        (ROW, (1, 1, 4), {"order": 2}),
        (ROW, (1, 1, 4), {"grid": "corners"}),
        (ROW, (1, 1, 4), {"argmax": True, "order": 3}),
        (ROW.astype(np.float16), (1, 1, 4), {"argmax": True}),
    ],
)
def test_what_resample3d_refuses(volume: Any, size: Any, options: dict[str, Any]) -> None:
    with pytest.raises(VoxelRTError):
        resample3d(volume, size, **options)


def test_preprocess_by_hand() -> None:
    volume = np.array([[-1024, 0], [500, 3000]], np.int16).reshape(2, 1, 1, 2)
    out = preprocess(volume, slope=2.0, intercept=-10.0, low=-200, high=1000, mean=[0, 100], deviation=[10, 50])
    np.testing.assert_allclose(out.ravel(), [-20, -1, 17.8, 18], rtol=1e-6)


def test_preprocess_keeps_what_is_not_a_number_and_reads_views() -> None:
    volume = np.array([np.nan, -np.inf, np.inf, 2.0], np.float32).reshape(1, 1, 1, 4)
    out = preprocess(volume[..., ::-1], low=-1.0, high=3.0, dtype="bfloat16")
    assert out.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(out.astype(np.float32).ravel(), [2, 3, -1, np.nan])


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"mean": [1.0, 2.0]}, ShapeError),
        ({"deviation": [0.0]}, UsageError),
        ({"deviation": [np.nan]}, UsageError),
        ({"low": 2.0, "high": 1.0}, UsageError),
        ({"low": np.nan}, UsageError),
        ({"slope": np.inf}, UsageError),
        ({"dtype": "int8"}, UsageError),
    ],
)
def test_what_preprocess_refuses(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        preprocess(ROW, **options)
