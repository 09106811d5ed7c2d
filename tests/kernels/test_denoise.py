"""denoise and its filters: by hand, against other libraries' stored answers, and what they refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from voxelrt.errors import ShapeError, UsageError
from voxelrt.kernels import (
    anisotropic_diffusion,
    bilateral,
    curvature_flow,
    denoise,
    gaussian,
    median,
    non_local_means,
    non_local_means_blocks,
    total_variation,
)
from voxelrt.kernels.common import native
from voxelrt.kernels.common.kernel import Array, compare
from voxelrt.kernels.denoise import METHODS, choose, estimate_noise
from voxelrt.kernels.denoise.noise import magnitude_factor
from voxelrt.kernels.non_local_means.cpu import run as non_local_means_cpu
from voxelrt.kernels.non_local_means_blocks.cpu import run as non_local_means_blocks_cpu

SIGMA = 12.0  # of the stored volume


@pytest.fixture(scope="module")
def peers() -> dict[str, Array]:
    with np.load(Path(__file__).parent / "data" / "denoise_peers.npz") as stored:
        return dict(stored)


# ---- by hand ----


def test_non_local_means_of_two_voxels() -> None:
    # One partner each, at squared distance 4: weight exp(-4 / (2 * 1)^2) = e^-1.
    weight = np.exp(-1.0)
    out = non_local_means(np.array([[[1.0, 3.0]]], np.float32), 2.0, search=1, patch=0)
    np.testing.assert_allclose(out[0, 0], [(1 + 3 * weight) / (1 + weight), (3 + weight) / (1 + weight)], rtol=1e-6)


def test_non_local_means_of_magnitudes() -> None:
    # Equal voxels: the root of 5^2 - 2 * 3^2; and nothing is left of less than the noise's own power.
    out = non_local_means(np.full((2, 2, 2), 5.0, np.float32), 3.0, search=1, noise="rician")
    np.testing.assert_allclose(out, np.sqrt(7.0), rtol=1e-6)
    assert not non_local_means(np.full((2, 2, 2), 4.0, np.float32), 3.0, search=1, noise="rician").any()


def test_blocks_of_two_voxels() -> None:
    # The blocks' mean squared difference is 4, so w = exp(-4 / 2^2); each counts itself as much as its only partner, so
    # both blocks are the plain mean. With partners that must be alike there is none.
    row = np.array([[[1.0, 3.0, 1.0]]], np.float32)
    apart = non_local_means_blocks(row, 2.0, search=1, patch=0, like_means=0.9)
    np.testing.assert_array_equal(apart, row)
    # Blocks lie around voxels 0 and 2, mirrored at the faces: (3, 1, 3) and (3, 1, 3); each meets the one of voxel 1.
    out = non_local_means_blocks(row, 2.0, search=1, patch=(0, 0, 1), like_means=0.0, like_variances=0.5)
    np.testing.assert_allclose(out[0, 0], [2.0, 2.0, 2.0], rtol=1e-6)


def test_blocks_of_magnitudes() -> None:
    # Nothing varies, so no block has partners: the root of 5^2 - 2 * 3^2, and nothing of less than the noise's power.
    out = non_local_means_blocks(np.full((2, 3, 4), 5.0, np.float32), 3.0, search=1, noise="rician")
    np.testing.assert_allclose(out, np.sqrt(7.0), rtol=1e-6)
    assert not non_local_means_blocks(np.full((2, 2, 2), 4.0, np.float32), 3.0, noise="rician").any()


def test_blocks_do_not_depend_on_threads_or_pieces(peers: dict[str, Array]) -> None:
    tall = np.tile(peers["noisy"], (5, 3, 1))
    whole = non_local_means_blocks(tall, SIGMA, search=2)
    said: list[tuple[int, int]] = []
    pieces = non_local_means_blocks_cpu(tall, SIGMA, search=2, progress=lambda *step: said.append(step))
    np.testing.assert_array_equal(whole, pieces)
    assert len(said) == 3


def test_median_and_gaussian_of_a_row() -> None:
    row = np.array([[[5.0, 1.0, 4.0, 2.0]]], np.float32)
    np.testing.assert_array_equal(median(row, radius=(0, 0, 1))[0, 0], [5, 4, 2, 2])
    side = np.exp(-0.5)
    total = 1 + 2 * side
    expected = [(5 + 6 * side) / total, (1 + 9 * side) / total, (4 + 3 * side) / total, (2 + 6 * side) / total]
    np.testing.assert_allclose(gaussian(row, (0, 0, 1), truncate=1)[0, 0], expected, rtol=1e-6)


def test_bilateral_of_two_voxels() -> None:
    weight = np.exp(-0.5 * (1 / 0.5**2 + (2 / 4.0) ** 2))
    out = bilateral(np.array([[[1.0, 3.0]]], np.float32), (0, 0, 0.5), 4.0)
    np.testing.assert_allclose(out[0, 0], [(1 + 3 * weight) / (1 + weight), (3 + weight) / (1 + weight)], rtol=1e-6)


def test_one_step_of_diffusion_of_two_voxels() -> None:
    # Slopes are 1 at both (half the difference of 2), so the mean is 1; the flux is 2 exp(-4 / 2).
    out = anisotropic_diffusion(np.array([[[1.0, 3.0]]], np.float32), step=0.1, iterations=1)
    np.testing.assert_allclose(out[0, 0], [1 + 0.2 * np.exp(-2), 3 - 0.2 * np.exp(-2)], rtol=1e-6)


def test_one_step_of_curvature_flow() -> None:
    # I = x² + y² + z²: its level surfaces are spheres, and curvature |grad I| is 2 / r · 2 r = 4 everywhere.
    z, y, x = np.mgrid[-4:5, -4:5, -4:5].astype(np.float32)
    volume = x**2 + y**2 + z**2
    out = curvature_flow(volume, step=0.1, iterations=1)
    moved = (out - volume)[1:-1, 1:-1, 1:-1]
    moved[3, 3, 3] = 0.4  # no direction there
    np.testing.assert_allclose(moved, 0.4, rtol=1e-5)


def test_total_variation_of_a_step() -> None:
    # Half the squares plus weight times the variation is least where each plateau of n voxels has moved by weight / n.
    row = np.repeat(np.float32([0.0, 10.0]), 8)[None, None]
    out = total_variation(row, 4.0, tolerance=0.0, iterations=4000)
    np.testing.assert_allclose(out[0, 0], np.repeat([0.5, 9.5], 8), atol=2e-3)


# ---- against others ----


def _inside(array: Array, border: int) -> Array:
    return array[(slice(border, -border),) * 3]


def test_non_local_means_agrees_with_dipy(peers: dict[str, Array]) -> None:
    # It mirrors the search window at the faces, where ours ends.
    ours = non_local_means(peers["noisy"], SIGMA, search=2, patch=1, strength=2**0.25, noise="rician")
    assert compare(_inside(ours, 3), _inside(peers["dipy_classic_rician"], 3)).relative < 1e-6


def test_blocks_agree_with_dipy(peers: dict[str, Array]) -> None:
    ours = non_local_means_blocks(peers["noisy"], SIGMA, search=2, noise="rician", own=False)
    assert compare(_inside(ours, 4), _inside(peers["dipy_blocks_rician"], 4)).relative < 1e-6


def test_median_agrees_with_itk_and_scipy(peers: dict[str, Array]) -> None:
    np.testing.assert_array_equal(median(peers["noisy"], radius=(1, 1, 2)), peers["itk_median"])
    np.testing.assert_array_equal(median(peers["noisy"], radius=(1, 1, 2)), peers["scipy_median"])


def test_gaussian_agrees_with_scipy(peers: dict[str, Array]) -> None:
    assert compare(gaussian(peers["noisy"], (0.7, 1.0, 1.6)), peers["scipy_gaussian"]).relative < 1e-6


def test_bilateral_agrees_with_itk(peers: dict[str, Array]) -> None:
    # It takes the weight of a difference from a table that ends at 4 spreads, and repeats voxels beyond the faces.
    ours = bilateral(peers["noisy"], 1.2, 30.0)
    assert compare(_inside(ours, 3), _inside(peers["itk_bilateral"], 3)).relative < 1e-4


SPACING = (2.5, 1.5, 1.0)  # of the stored volume, for schemes


def test_diffusion_agrees_with_itk(peers: dict[str, Array]) -> None:
    ours = anisotropic_diffusion(peers["noisy"], conductance=1.5, step=0.05, iterations=4, spacing=SPACING)
    assert compare(ours, peers["itk_gradient_diffusion"]).relative < 1e-6


def test_curvature_flow_agrees_with_itk(peers: dict[str, Array]) -> None:
    ours = curvature_flow(peers["noisy"], step=0.05, iterations=4, spacing=SPACING)
    assert compare(ours, peers["itk_curvature_flow"]).relative < 1e-6


def test_total_variation_agrees_with_scikit_image(peers: dict[str, Array]) -> None:
    ours = total_variation(peers["noisy"], 15.0, iterations=30)
    assert compare(ours, peers["skimage_tv"]).relative < 1e-6


# ---- the noise ----


def _phantom() -> Array:
    z, y, x = np.mgrid[:48, :48, :48]
    ball = (z - 24) ** 2 + (y - 24) ** 2 + (x - 24) ** 2 < 20**2
    return np.where(ball, 200 + 50 * np.sin(x / 6) * np.cos(y / 7), 0.0)


@pytest.mark.parametrize("sigma", [5.0, 15.0, 40.0])
def test_noise_is_estimated(sigma: float) -> None:
    rng, clean = np.random.default_rng(3), _phantom()
    noisy = clean + rng.normal(0, sigma, clean.shape)
    assert estimate_noise(noisy) == pytest.approx(sigma, rel=0.06)
    magnitude = np.hypot(noisy, rng.normal(0, sigma, clean.shape))
    assert estimate_noise(magnitude, "rician") == pytest.approx(sigma, rel=0.06)


def test_magnitude_factor() -> None:
    # No signal: a Rayleigh variable's variance, 2 - pi / 2 (Koay and Basser 2006); a strong one: a normal's.
    assert magnitude_factor(0.0) == pytest.approx(2 - np.pi / 2, rel=1e-12)
    assert magnitude_factor(19.9) == pytest.approx(1.0, abs=2e-3)
    real, imaginary = np.random.default_rng(0).normal(size=(2, 400_000))
    assert magnitude_factor(1.5) == pytest.approx(np.hypot(1.5 + real, imaginary).var(), rel=0.01)


def test_estimates_refuse_what_they_cannot_tell() -> None:
    assert estimate_noise(np.full((8, 8, 8), 3.0)) == 0.0
    with pytest.raises(UsageError, match="give its deviation"):
        estimate_noise(np.random.default_rng(0).normal(size=(2, 2, 2)))


# ---- the door ----


def _magnitudes(shape: tuple[int, ...] = (20, 20, 20)) -> Array:
    rng = np.random.default_rng(7)
    return np.hypot(100 + rng.normal(0, 10, shape), rng.normal(0, 10, shape)).astype(np.float32)


def test_auto_noise() -> None:
    volume = _magnitudes()
    assert choose(volume, "nlm", modality="MR").noise == "rician"
    assert choose(volume, "nlm", modality="CT").noise == "gaussian"
    assert choose(volume, "nlm").noise == "gaussian"
    assert choose(volume, "median", modality="MR").noise == "gaussian"
    centred = choose(volume - 100, "nlm", modality="MR")
    assert centred.noise == "gaussian"
    assert "negative" in centred.reasons[0]
    with pytest.raises(UsageError, match="negative"):
        denoise(volume - 100, noise="rician", sigma=3.0)
    with pytest.raises(UsageError, match="no form"):
        denoise(volume, "median", noise="rician")


def test_auto_sigma_is_each_volumes_own() -> None:
    rng = np.random.default_rng(1)
    both = np.stack([100 + rng.normal(0, s, (16, 16, 16)) for s in (2.0, 20.0)]).astype(np.float32)
    choice = choose(both, "nlm", options={"radius": 1})
    assert choice.sigmas == tuple(estimate_noise(one) for one in both)
    np.testing.assert_array_equal(denoise(both, radius=1)[1], denoise(both[1], radius=1))
    # A volume in which nothing varies stays as it is.
    both[0] = 5
    np.testing.assert_array_equal(denoise(both, radius=1)[0], both[0])


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float16", "float64", "int64"])
@pytest.mark.parametrize("method", METHODS)
def test_dtype_is_kept(method: str, dtype: str) -> None:
    volume = _magnitudes((4, 9, 10)).astype(dtype)
    sigma: Any = 8.0 if METHODS[method].uses_sigma else "auto"
    out = denoise(volume, method, sigma=sigma)
    assert out.dtype == volume.dtype
    assert out.shape == volume.shape
    exact = denoise(volume.astype(np.float32), method, sigma=sigma)
    expected = exact if dtype.startswith("float") else np.rint(exact)
    np.testing.assert_array_equal(out, expected.astype(dtype))


def test_integers_stay_in_range() -> None:
    volume = np.full((1, 1, 3), np.iinfo(np.int64).max, np.int64)
    assert (denoise(volume, "median") > 0).all()
    assert (denoise(np.full((1, 1, 3), 255, np.uint8), "gaussian", width=2) == 255).all()


def test_millimetres_honour_the_spacing() -> None:
    volume = _magnitudes((6, 12, 12))
    spacing = (5.0, 1.0, 2.0)
    choice = choose(volume, "nlm", unit="mm", spacing_mm=spacing, sigma=9.0, options={"radius": 4, "patch": 1})
    assert choice.options["radius"] == (0, 4, 2)
    assert choice.options["patch"] == (0, 1, 0)
    np.testing.assert_array_equal(
        denoise(volume, "gaussian", unit="mm", spacing_mm=spacing, width=2.0), gaussian(volume, (0.4, 2.0, 1.0))
    )
    with pytest.raises(UsageError, match="spacing"):
        denoise(volume, "median", unit="mm", radius=2)


def test_refusals() -> None:
    volume = _magnitudes((5, 6, 7))
    for wrong in (
        {"method": "wiener"},
        {"radios": 2},
        {"noise": "poisson"},
        {"sigma": 0.0},
        {"sigma": float("nan")},
        {"sigma": 1.0, "method": "median"},
        {"unit": "inch"},
        {"sigma": 1.0, "radius": -1},
        {"sigma": 1.0, "radius": (1, 2)},
        {"sigma": 1.0, "radius": 33},
        {"method": "diffusion", "step": 0.2},
        {"method": "diffusion", "conductance": 0.0},
        {"method": "curvature-flow", "iterations": -1},
        {"method": "curvature-flow", "spacing": (1.0, 0.0, 1.0)},
        {"method": "tv", "sigma": 1.0, "iterations": 0},
        {"method": "bilateral", "sigma": 1.0, "width": 20.0},
    ):
        with pytest.raises(UsageError):
            denoise(volume, **wrong)
    with pytest.raises(UsageError, match="did you mean radius"):
        denoise(volume, radios=2)
    for bad in (np.nan, np.inf):
        volume[1, 2, 3] = bad
        with pytest.raises(UsageError, match="1 of 210"):
            denoise(volume)
    with pytest.raises(UsageError, match="mask"):
        denoise(np.ones((3, 3, 3), bool))
    with pytest.raises(ShapeError):
        denoise(np.ones(3, np.float32))
    with pytest.raises(UsageError):
        denoise(np.ones((3, 3), np.complex64))


@pytest.mark.parametrize("method", METHODS)
def test_empty_volumes(method: str) -> None:
    for shape in ((0, 3, 3), (3, 0, 3), (3, 3, 0), (0, 2, 3, 3, 3)):
        out = denoise(np.empty(shape, np.float32), method, sigma=1.0 if METHODS[method].uses_sigma else "auto")
        assert out.shape == shape


def test_pieces_threads_and_progress_change_no_bit() -> None:
    volume = _magnitudes((70, 70, 21))
    whole = non_local_means(volume, 9.0, search=2, noise="rician")
    told: list[tuple[int, int]] = []
    pieces = non_local_means_cpu(volume, 9.0, search=2, noise="rician", progress=lambda i, n: told.append((i, n)))
    np.testing.assert_array_equal(pieces, whole)
    assert told == [(0, 3), (1, 3), (2, 3)]
    out = native.aligned_empty((1, *volume.shape), np.float32)
    for threads in (1, 3):
        with_pool = native.Pool(threads)
        native.run_kernel("median", [volume[None]], [out], with_pool, radius=[1, 1, 1])
        np.testing.assert_array_equal(out[0], median(volume))


def test_native_checks_are_a_border() -> None:
    volume, out = np.ones((1, 3, 4, 5), np.float32), np.ones((1, 3, 4, 5), np.float32)
    good: dict[str, Any] = {
        "search": (1, 1, 1), "patch": (1, 1, 1), "slope": 1.0, "offset": 0.0, "squares": 0, "noise": 0.0, "first": 0,
    }  # fmt: skip
    native.run_kernel("non_local_means", [volume], [out], **good)
    for name, value in (("first", -1), ("first", 1), ("search", (33, 0, 0)), ("patch", (0, -1, 0)), ("slope", np.nan)):
        with pytest.raises(ShapeError):
            native.run_kernel("non_local_means", [volume], [out], **{**good, name: value})
    with pytest.raises(ShapeError):
        native.run_kernel("non_local_means", [volume], [out[:, :, ::2]], **good)
    with pytest.raises(ShapeError):
        native.run_kernel("median", [volume], [out], radius=[7, 7, 7])
    with pytest.raises(ShapeError):
        native.run_kernel("median", [volume], [out], radius=[-1, 0, 0])
    with pytest.raises(ShapeError):
        native.run_kernel("gaussian", [volume, *[np.ones(2, np.float32)] * 3], [out], radius=[1, 1, 1])
