"""Resizing: each grid convention against the half-voxel it could be wrong by, and the low-pass against a plain sum."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from voxelrt.errors import InputError, UsageError
from voxelrt.preprocess.intensity import divide_by_maximum
from voxelrt.preprocess.spatial import (
    BOUNDARIES,
    GRIDS,
    Boundary,
    Grid,
    axis_matrix,
    resize,
    resize_mask,
    resized_affine,
    sample_positions,
)  # fmt: skip

RNG = np.random.default_rng(5)


def outside(values: NDArray[Any], index: int, boundary: Boundary) -> float:
    """The value at any index, by numpy.pad."""
    pad = abs(index) + 3 * len(values)
    return float(np.pad(values, pad, mode=boundary)[index + pad])


def resize_line_oracle(
    values: NDArray[Any], target: int, grid: Grid, boundary: Boundary, anti_aliasing: bool
) -> NDArray[np.float64]:
    """One line, obvious loops: low-pass by a plain sum, then linear interpolation."""
    source = len(values)
    sigma = (source / target - 1) / 2
    if anti_aliasing and sigma > 0:
        radius = int(4 * sigma + 0.5)
        weights = [np.exp(-(o**2) / (2 * sigma**2)) for o in range(-radius, radius + 1)]
        values = np.array([
            sum(w * outside(values, i + o, boundary) for w, o in zip(weights, range(-radius, radius + 1), strict=True))
            / sum(weights)
            for i in range(source)
        ])  # fmt: skip
    result = []
    for i in range(target):
        if grid == "edges":
            at = (i + 0.5) * source / target - 0.5
        elif grid == "first_centre":
            at = i * source / target
        else:
            at = i * (source - 1) / (target - 1) if target > 1 else 0.0
        low = int(np.floor(at))
        result.append(
            (1 - (at - low)) * outside(values, low, boundary) + (at - low) * outside(values, low + 1, boundary)
        )
    return np.array(result)


@pytest.mark.parametrize("anti_aliasing", [False, True])
@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize(("source", "target"), [(1, 1), (1, 5), (5, 1), (7, 7), (9, 4), (4, 9), (20, 3), (2, 3)])
def test_one_axis_is_the_oracle(source: int, target: int, grid: Grid, boundary: Boundary, anti_aliasing: bool) -> None:
    values = RNG.normal(size=source)
    matrix = axis_matrix(source, target, grid=grid, boundary=boundary, anti_aliasing=anti_aliasing)
    np.testing.assert_allclose(
        matrix @ values, resize_line_oracle(values, target, grid, boundary, anti_aliasing), atol=1e-13
    )


@pytest.mark.parametrize(
    ("grid", "wanted"),
    [
        ("edges", [-0.25, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3.25]),
        ("first_centre", [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5]),
        ("align_corners", [3 * i / 7 for i in range(8)]),
    ],
)
def test_half_voxel_of_each_grid(grid: Grid, wanted: list[float]) -> None:
    """Doubling four voxels: hand-checked places, and a ramp that shows them in the values."""
    np.testing.assert_allclose(sample_positions(4, 8, grid), wanted, atol=1e-15)
    ramp = np.broadcast_to(np.arange(4.0), (2, 3, 4))
    np.testing.assert_allclose(resize(ramp, (2, 3, 8), grid=grid)[1, 2], np.clip(wanted, 0, 3), atol=1e-14)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("axis", range(3))
def test_each_axis_is_resized_by_itself(grid: Grid, axis: int) -> None:
    array = RNG.normal(size=(5, 6, 7))
    shape = [5, 6, 7]
    shape[axis] = 9
    matrix = axis_matrix(array.shape[axis], 9, grid=grid)
    wanted = np.moveaxis(np.tensordot(matrix, array, (1, axis)), 0, axis)
    np.testing.assert_allclose(resize(array, shape, grid=grid), wanted, atol=1e-13)


@pytest.mark.parametrize("grid", GRIDS)
def test_the_affine_of_the_new_grid_keeps_the_world(grid: Grid) -> None:
    """A volume whose values are its world coordinates still is that after resizing (inside, where nothing is cut)."""
    affine = np.array([[0.8, 0.1, 0.0, 5.0], [-0.1, 1.2, 0.2, -7.0], [0.0, 0.0, 2.5, 11.0], [0, 0, 0, 1]])
    source, target = (6, 8, 10), (11, 5, 13)
    z, y, x = np.indices(source, dtype=np.float64)
    world = np.einsum("ij,jzyx->izyx", affine, np.stack([x, y, z, np.ones_like(x)]))[:3]
    stretched = resize(world, target, grid=grid)
    new = resized_affine(affine, source, target, grid=grid)
    inside = [[i for i, p in enumerate(sample_positions(s, t, grid)) if 0 <= p <= s - 1]
              for s, t in zip(source, target, strict=True)]  # fmt: skip
    for k, j, i in product(*inside):
        np.testing.assert_allclose(stretched[:, k, j, i], (new @ [i, j, k, 1])[:3], atol=1e-10)


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_it_is_what_scikit_image_does(boundary: Boundary) -> None:
    transform = pytest.importorskip("skimage.transform", reason="scikit-image, the peer of this test, is not installed")
    array = RNG.uniform(size=(20, 31, 7))
    for shape in ((13, 40, 7), (8, 8, 8), (40, 62, 14)):
        theirs = transform.resize(array, shape, mode=boundary, anti_aliasing=True)
        np.testing.assert_allclose(resize(array, shape, boundary=boundary, anti_aliasing=True), theirs, atol=1e-12)


def test_lead_axes_and_types() -> None:
    array = RNG.integers(0, 100, (2, 3, 4, 5, 6)).astype(np.int16)
    result = resize(array, (3, 4, 5))
    assert result.shape == (2, 3, 3, 4, 5)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result[1, 2], resize(array[1, 2].astype(np.float64), (3, 4, 5)), rtol=1e-5)
    assert (resize(array, (4, 5, 6)) == array).all()


def test_non_contiguous_input_is_not_changed() -> None:
    array = np.asfortranarray(RNG.normal(size=(5, 6, 7)))[::-1]
    before = array.copy()
    np.testing.assert_allclose(resize(array, (5, 9, 3)), resize(before, (5, 9, 3)), atol=1e-13)
    assert (array == before).all()
    same = resize(array, array.shape)
    same[:] = 0
    assert (array == before).all()


@pytest.mark.parametrize("grid", GRIDS)
def test_a_mask_goes_back_in_slabs_as_in_one_piece(grid: Grid, monkeypatch: pytest.MonkeyPatch) -> None:
    probability = RNG.uniform(size=(8, 9, 10)).astype(np.float32)
    shape = (21, 2050, 4)
    mask = resize_mask(probability, shape, grid=grid, threshold=0.4)
    assert mask.dtype == np.uint8
    whole = resize(probability, shape, grid=grid)
    clear = np.abs(whole - 0.4) > 1e-5
    assert (mask == (whole > 0.4))[clear].all()


@pytest.mark.parametrize(
    "call",
    [
        lambda: resize(np.zeros((2, 2)), (1, 1, 1)),
        lambda: resize(np.zeros((2, 2, 2)), (1, 1)),
        lambda: resize(np.zeros((2, 2, 2)), (0, 1, 1)),
        lambda: resize(np.zeros((0, 2, 2)), (1, 1, 1)),
        lambda: resize(np.zeros((2, 2, 2)), (1, 1, 1), grid="corners"),  # type: ignore[arg-type]
        lambda: resize(np.zeros((2, 2, 2)), (1, 1, 1), boundary="wrap"),  # type: ignore[arg-type]
        lambda: resize_mask(np.zeros((1, 2, 2, 2)), (1, 1, 1)),
    ],
)
def test_wrong_arguments_are_usage_errors(call: Any) -> None:
    with pytest.raises(UsageError):
        call()


def test_dividing_by_the_maximum() -> None:
    assert divide_by_maximum(np.array([0, 50, 100], np.int16)).tolist() == [0.0, 0.5, 1.0]
    assert divide_by_maximum(np.array([1.0, 4.0])).dtype == np.float64
    for empty in (np.zeros(3), np.array([-1.0]), np.array([np.nan, 1.0]), np.zeros(0)):
        with pytest.raises(InputError, match="maximum"):
            divide_by_maximum(empty)
