"""warp3d on CUDA where positions are no positions or far away, and what it refuses by name; under ASan and UBSan."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from tests.emulation import shim_runner
from voxelrt.errors import UnsupportedError
from voxelrt.kernels.common.kernel import Array
from voxelrt.kernels.warp3d import cuda
from voxelrt.kernels.warp3d.oracle import warp3d as oracle

RNG = np.random.default_rng(11)
FAR = (np.nan, np.inf, -np.inf, 1e30, -3e9, 100.25, -100.25)


def _field(shape: tuple[int, ...]) -> Array:
    field = np.round(RNG.normal(0, 2, shape) * 8) / 8
    field.ravel()[5 :: field.size // 40] = np.resize(FAR, field.ravel()[5 :: field.size // 40].size)
    return field.astype(np.float32)


def _ran(build_folder: Path, *given: Any, **options: Any) -> Array:
    answer: Array = shim_runner.run(cuda.program(*given, **options), 0, build_folder, cuda.ENTRIES)
    return answer


@pytest.mark.usefixtures("needs_cuda_headers")
@pytest.mark.parametrize("mode", ["linear", "nearest"])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflect"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_far_and_missing_positions(mode: str, padding: str, dtype: str, build_folder: Path) -> None:
    kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype
    volume = RNG.normal(size=(1, 2, 4, 5, 8)).astype(kind)
    field = _field((1, 3, 4, 6, 9))
    if padding == "reflect":  # a mirror image of a mirror image, but within what float32 counts exactly
        field = np.clip(field, -4e6, 4e6)
    answer = _ran(build_folder, volume, field, mode=mode, padding=padding)
    with np.errstate(invalid="ignore"):
        expected = oracle(volume, field, mode=mode, padding=padding)
    np.testing.assert_array_equal(np.isnan(answer), np.isnan(expected))
    assert np.isnan(expected).any()
    assert not np.isnan(expected).all()
    np.testing.assert_allclose(
        answer.astype(np.float32), expected.astype(np.float32), rtol=0, atol=2e-2 if dtype == "bfloat16" else 2e-6
    )


@pytest.mark.usefixtures("needs_cuda_headers")
def test_whole_numbers_hold_nothing_where_there_is_no_position(build_folder: Path) -> None:
    volume = RNG.integers(1, 100, (1, 1, 3, 4, 5)).astype(np.int16)
    field = np.zeros((1, 3, 3, 4, 5), np.float32)
    field[0, 1, 2, 3, 4] = np.nan
    expected = volume.copy()
    expected[..., 2, 3, 4] = 0
    np.testing.assert_array_equal(_ran(build_folder, volume, field, mode="nearest"), expected)


@pytest.mark.usefixtures("needs_cuda_headers")
def test_views_of_any_strides(build_folder: Path) -> None:
    volume = RNG.normal(size=(5, 12, 3, 4, 2)).astype(np.float32).transpose(4, 2, 3, 0, 1)[:, :, ::-1, :, ::2]
    field = np.moveaxis(_field((2, 4, 5, 6, 3)), -1, 1)[:, ::-1]
    field = np.nan_to_num(field, nan=0.5, posinf=9.0, neginf=-9.0)
    answer = _ran(build_folder, volume, field, padding="border")
    np.testing.assert_allclose(answer, oracle(volume, field, padding="border"), rtol=0, atol=2e-6)


@pytest.mark.usefixtures("needs_cuda_headers")
def test_zero_displacement_gives_the_volume_back(build_folder: Path) -> None:
    volume = RNG.normal(size=(1, 2, 3, 4, 35)).astype(np.float32)
    np.testing.assert_array_equal(_ran(build_folder, volume, np.zeros((1, 3, 3, 4, 35), np.float32)), volume)


@pytest.mark.parametrize(
    ("dtype", "options", "word"),
    [
        ("float32", {"mode": "bspline"}, "bspline"),
        ("float32", {"mode": "keys"}, "keys"),
        ("uint8", {"mode": "vote"}, "vote"),
        ("int16", {}, "int16"),
        ("float64", {"mode": "nearest"}, "float64"),
        ("float32", {"out": np.zeros((1, 1, 2, 3, 4), np.float32)}, "given array"),
    ],
)
def test_what_it_does_not_do_is_said_by_name(dtype: str, options: dict[str, Any], word: str) -> None:
    with pytest.raises(UnsupportedError, match=word):
        cuda.program(np.zeros((1, 1, 2, 3, 4), dtype), np.zeros((1, 3, 2, 3, 4), np.float32), **options)
