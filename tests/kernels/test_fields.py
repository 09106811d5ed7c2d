"""Fields: integration, composition, inverse, other grids, determinants and points, against what is known exactly."""

from __future__ import annotations

import numpy as np
import pytest

from voxelrt.errors import ShapeError, UsageError
from voxelrt.kernels import compose, integrate, invert, jacobian, resample_field, spline_prefilter, warp3d, warp_points
from voxelrt.kernels.common import native
from voxelrt.kernels.common.kernel import Array
from voxelrt.kernels.integrate import smooth_field


def _linear(matrix: Array, size: tuple[int, int, int]) -> Array:
    """The field of a linear map about the grid's middle."""
    grid = np.stack(np.meshgrid(*[np.arange(n) - (n - 1) / 2 for n in size], indexing="ij"))
    return np.asarray(np.einsum("ij,jzyx->izyx", matrix, grid)[None], np.float32)


def test_integration_by_hand() -> None:
    velocity = np.zeros((1, 3, 1, 1, 4), np.float32)
    velocity[0, 2, 0, 0] = [1, 1, 1, 1]
    # One step: u = 1/2 everywhere, then 1/2 + u(x + 1/2): the last voxel looks half-way into the zeros.
    np.testing.assert_array_equal(integrate(velocity, steps=1)[0, 2, 0, 0], [1, 1, 1, 0.75])
    np.testing.assert_array_equal(integrate(velocity, steps=1, padding="border")[0, 2, 0, 0], [1, 1, 1, 1])
    np.testing.assert_array_equal(integrate(velocity, steps=0), velocity)


def test_integration_of_a_linear_velocity_is_the_matrix_exponential() -> None:
    rate = np.array([[0.02, -0.05, 0.01], [0.04, -0.03, 0.02], [-0.01, 0.03, 0.02]])
    grown, term = np.eye(3), np.eye(3)
    for k in range(1, 12):
        term = term @ rate / k
        grown = grown + term
    size = (21, 19, 33)
    found = integrate(_linear(rate, size), steps=12, padding="border")
    inner = (..., slice(6, -6), slice(6, -6), slice(6, -6))  # the border bends what looks beyond it
    np.testing.assert_allclose(found[inner], _linear(grown - np.eye(3), size)[inner], atol=2e-4)


def test_integration_on_any_number_of_threads() -> None:
    velocity = smooth_field(np.random.default_rng(0), 1, (20, 21, 50), 5.0).astype(np.float32)
    answers = []
    for threads in (1, 2, 5):
        out = native.aligned_empty(velocity.shape, np.float32)
        native.run_kernel("integrate", [velocity], [out], native.Pool(threads), steps=7, padding=0)
        answers.append(out)
    np.testing.assert_array_equal(answers[0], answers[1])
    np.testing.assert_array_equal(answers[0], answers[2])


def test_a_vector_that_is_no_number_stays_one() -> None:
    velocity = np.zeros((1, 3, 5, 6, 20), np.float32)
    velocity[0, 1, 2, 3, 7], velocity[0, 0, 4, 4, 4] = np.nan, np.inf
    found = integrate(velocity, steps=2, padding="border")
    assert np.isnan(found[0, :, 2, 3, 7]).any()
    assert np.isfinite(found[0, :, 0, 0]).all()


def test_composition_and_inverse() -> None:
    field = smooth_field(np.random.default_rng(1), 2, (24, 20, 28), 2.0).astype(np.float32)
    inverse = invert(field, tolerance=1e-4)
    assert inverse.residual <= 1e-4
    np.testing.assert_allclose(compose(field, inverse.field), 0, atol=1.1e-4)
    a, b = field[:1], field[1:]
    values = np.random.default_rng(2).normal(size=(1, 1, 24, 20, 28)).astype(np.float32)
    shift = np.zeros_like(a)
    shift[:, 2] = 3  # whole voxels, so that warping twice interpolates once
    twice = warp3d(warp3d(values, b, padding="border"), shift, padding="border")
    once = warp3d(values, compose(b, shift), padding="border")
    # The last voxels look beyond the grid, where the image's border goes on in one case and the field's in the other.
    np.testing.assert_allclose(twice[..., :-3], once[..., :-3], atol=1e-5)
    noise = np.random.default_rng(3).normal(0, 3, (1, 3, 9, 9, 9)).astype(np.float32)
    folding = invert(noise, iterations=4)
    assert folding.iterations == 4
    assert folding.residual > 0.1


@pytest.mark.parametrize("grid", ["edges", "first_centre", "align_corners"])
def test_resampling_keeps_a_shift_in_space(grid: str) -> None:
    field = np.ones((1, 3, 4, 6, 10), np.float32)
    for shape in ((8, 12, 20), (2, 3, 5), (4, 6, 10), (7, 5, 1)):
        found = resample_field(field, shape, grid=grid)
        for k, (old, new) in enumerate(zip((4, 6, 10), shape, strict=True)):
            factor = new / old if grid != "align_corners" else (new - 1) / (old - 1) if new > 1 else 1
            np.testing.assert_allclose(found[0, k], factor, rtol=1e-6)


def test_the_halves_of_voxels_in_resampling() -> None:
    row = np.zeros((1, 2, 1, 4), np.float32)
    row[0, 1, 0] = [0, 1, 2, 3]
    answers = {
        "edges": np.array([0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3]) * 2,
        "first_centre": np.array([0, 0.5, 1, 1.5, 2, 2.5, 3, 3]) * 2,
        "align_corners": np.arange(8) * 3 / 7 * 7 / 3,
    }
    for grid, expected in answers.items():
        np.testing.assert_allclose(resample_field(row, (1, 8), grid=grid)[0, 1, 0], expected, rtol=1e-6)


def test_determinants_of_linear_maps() -> None:
    matrix = np.array([[0.1, 0.3, 0], [-0.2, 0.5, 0.1], [0, 0.2, -0.3]])
    determinant, folded = jacobian(_linear(matrix, (5, 6, 7)))
    np.testing.assert_allclose(determinant, np.linalg.det(np.eye(3) + matrix), rtol=1e-5)
    assert folded.tolist() == [0]
    mirrored = _linear(np.diag([0, 0, -2.0]), (5, 6, 7))
    assert jacobian(np.concatenate([mirrored, mirrored * 0]))[1].tolist() == [5 * 6 * 7, 0]


def test_points_follow_the_field() -> None:
    rng = np.random.default_rng(3)
    matrix, points = rng.normal(0, 0.1, (3, 3)), rng.uniform(1, 7, (11, 3))
    found = warp_points(points, _linear(matrix, (9, 9, 9)))
    np.testing.assert_allclose(found, points + (points - 4) @ matrix.T, atol=1e-5)
    affine = rng.normal(size=(3, 4))
    np.testing.assert_allclose(warp_points(points, affine=affine), points @ affine[:, :3].T + affine[:, 3])
    assert warp_points(points[:0], _linear(matrix, (9, 9, 9))).shape == (0, 3)


def test_the_spline_goes_through_the_voxels() -> None:
    volume = np.random.default_rng(4).normal(size=(1, 2, 9, 35, 40)).astype(np.float32)
    still = np.zeros((1, 3, 9, 35, 40), np.float32)
    for padding in ("zeros", "border", "reflect"):
        np.testing.assert_allclose(warp3d(volume, still, order=3, padding=padding), volume, atol=3e-6)
    whole = (volume * 1000).astype(np.int16)
    np.testing.assert_array_equal(warp3d(whole, still, order=3), whole)
    np.testing.assert_allclose(spline_prefilter(np.full((1, 1, 6, 7, 8), 5.0, np.float32)), 5, rtol=1e-6)


def test_refusals() -> None:
    field = np.zeros((1, 3, 4, 5, 6), np.float32)
    for steps in (-1, 31):
        with pytest.raises(UsageError, match="steps"):
            integrate(field, steps=steps)
    for bad in (lambda: integrate(field, padding="reflect"), lambda: resample_field(field, (1, 2, 3), grid="faces")):
        with pytest.raises(UsageError):
            bad()
    for wrong in (
        lambda: integrate(field[:, :2]),
        lambda: integrate(field.astype(np.float64)),
        lambda: jacobian(field[0]),
        lambda: compose(field, field[..., :3]),
        lambda: invert(field[:, 0]),
        lambda: resample_field(field, (1, 2)),
        lambda: warp_points(np.zeros((4, 5)), field),
        lambda: warp_points(np.zeros((4, 3)), field[:, :2]),
        lambda: spline_prefilter(np.zeros((1, 1, 4, 5), np.int64)),
    ):
        with pytest.raises(ShapeError):
            wrong()
