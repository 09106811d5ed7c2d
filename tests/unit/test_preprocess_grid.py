"""Interpolation matrices, intensities, layouts, and the way to the network's grid."""

from __future__ import annotations

import numpy as np
import pytest

from voxelrt.errors import InputError, ShapeError
from voxelrt.models.recipe_schema import Grid, Intensity
from voxelrt.preprocess.grid import map_grid
from voxelrt.preprocess.intensity import scale
from voxelrt.preprocess.interpolation import INTERPOLATIONS, interpolation_matrix
from voxelrt.preprocess.layout import from_layout, layout_shape, to_layout, zyx_of
from voxelrt.preprocess.spatial import resize
from voxelrt.volume import Volume

RNG = np.random.default_rng(3)


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_at_the_voxels_the_values_are_the_values(interpolation: object) -> None:
    matrix = interpolation_matrix(np.arange(9.0), 9, interpolation, zeros_outside=False)  # type: ignore[arg-type]
    np.testing.assert_allclose(matrix, np.eye(9), atol=1e-7)


def test_a_cubic_spline_gives_a_parabola_exactly_inside() -> None:
    at = np.array([14.25, 15.5, 17.9])
    matrix = interpolation_matrix(at, 33, "cubic", zeros_outside=False)
    np.testing.assert_allclose(matrix @ (np.arange(33.0) - 16) ** 2, (at - 16) ** 2, atol=1e-3)


def test_linear_and_nearest_by_hand() -> None:
    at = np.array([-0.5, 0.25, 1.5])
    linear = interpolation_matrix(at, 2, "linear", zeros_outside=True)
    np.testing.assert_allclose(linear, [[0.5, 0], [0.75, 0.25], [0, 0.5]])
    nearest = interpolation_matrix(np.array([-3.0, 0.4, 0.5, 7]), 2, "nearest", zeros_outside=False)
    np.testing.assert_array_equal(nearest, [[1, 0], [1, 0], [0, 1], [0, 1]])


@pytest.mark.parametrize("antialiasing", [False, True])
def test_stretching_is_the_resize_that_was_checked_against_scikit_image(antialiasing: bool) -> None:
    array = RNG.random((2, 9, 12, 7)).astype(np.float32)
    grid = Grid(shape_xyz=(8, 8, 8), antialiasing=antialiasing)
    way = map_grid(Volume(array, np.eye(4)), grid, (None, None, None))
    expected = resize(array, (8, 8, 8), boundary="constant", anti_aliasing=antialiasing)
    forward = way.forward(array)
    np.testing.assert_allclose(forward, expected, atol=1e-6)
    back = np.concatenate([slab for _, slab in way.backward(forward, zeros_outside=True)], axis=1)
    expected = resize(expected, (9, 12, 7), boundary="constant", anti_aliasing=antialiasing)
    np.testing.assert_allclose(back, expected, atol=1e-6)


def test_slabs_make_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    array = RNG.random((2, 9, 12, 7)).astype(np.float32)
    way = map_grid(Volume(array, np.eye(4)), Grid(shape_xyz=(5, 6, 8)), (None, None, None))
    answer = RNG.random((3, 8, 6, 5)).astype(np.float32)
    whole = np.concatenate([slab for _, slab in way.backward(answer)], axis=1)
    monkeypatch.setattr("voxelrt.preprocess.grid.SLAB_BYTES", 4 * 3 * 12 * 7 * 2)
    slabs = list(way.backward(answer))
    assert len(slabs) == 5
    np.testing.assert_array_equal(np.concatenate([slab for _, slab in slabs], axis=1), whole)


def test_paddings() -> None:
    volume = Volume(np.arange(3, 7).reshape(1, 1, 1, 4), np.eye(4))
    expected = {"zeros": [0, 3, 4, 5, 6, 0], "border": [3, 3, 4, 5, 6, 6], "minimum": [3, 3, 4, 5, 6, 3]}
    for padding, row in expected.items():
        grid = Grid(shape_xyz=(6, 1, 1), fit="pad", padding=padding)  # type: ignore[arg-type]
        np.testing.assert_array_equal(map_grid(volume, grid, (None,) * 3).forward(volume.array)[0, 0, 0], row)


def test_a_2d_grid_keeps_the_planes() -> None:
    volume = Volume(np.zeros((5, 6, 7)), np.eye(4))
    assert map_grid(volume, Grid(shape_xyz=(16, 12)), (None,) * 3).network_zyx == (5, 12, 16)


def test_scalings() -> None:
    array = np.array([0.0, 2, 4, 10]).reshape(1, 1, 1, 4)
    expected = {
        Intensity(): [0, 2, 4, 10],
        Intensity("divide-by-maximum"): [0, 0.2, 0.4, 1],
        Intensity("minimum-maximum"): [0, 0.2, 0.4, 1],
        Intensity("window", lower=2.0, upper=6.0): [0, 0, 0.5, 1],
        Intensity("z-score"): (np.array([0, 2, 4, 10]) - 4) / np.sqrt(14),
        Intensity("z-score-nonzero"): [0, *((np.array([2, 4, 10]) - 16 / 3) / np.std([2, 4, 10]))],
    }
    for intensity, row in expected.items():
        np.testing.assert_allclose(scale(array, intensity)[0, 0, 0], row, atol=1e-12)
    flat = np.full((1, 2, 2, 2), 3)
    for scaling in ("minimum-maximum", "z-score", "z-score-nonzero"):
        with pytest.raises(InputError, match="constant"):
            scale(flat, Intensity(scaling))  # type: ignore[arg-type]


@pytest.mark.parametrize("layout", ["NCZYX", "NCXYZ", "NZYXC", "NXYZC", "NCYX", "NYXC"])
def test_layouts_go_there_and_back(layout: str) -> None:
    array = RNG.random((2, 3, 4, 5))
    tensor = to_layout(array, layout)
    assert tensor.flags.c_contiguous
    np.testing.assert_array_equal(from_layout(tensor, layout), array)
    if "Z" in layout:
        assert tensor.shape == layout_shape(layout, 2, (3, 4, 5))
        assert zyx_of(tensor.shape, layout) == (3, 4, 5)


def test_a_tensor_of_another_rank_is_refused() -> None:
    with pytest.raises(ShapeError, match="4 axes"):
        from_layout(np.zeros((1, 2, 3, 4)), "NCZYX")
