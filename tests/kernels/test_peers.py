"""Warps, integration and filters beside other libraries as they are installed; each is skipped by name without its own.

The stored answers of ``denoise_peers.npz`` and ``warp_simpleitk`` hold where none is installed.
"""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest

from voxelrt.kernels import (
    anisotropic_diffusion,
    bilateral,
    curvature_flow,
    gaussian,
    grid_sample,
    integrate,
    median,
    non_local_means,
    total_variation,
    warp3d,
)
from voxelrt.kernels.common.kernel import Array, compare
from voxelrt.kernels.integrate import smooth_field

SIZE = (19, 22, 37)
SIGMA = 12.0


def _peer(name: str) -> Any:
    return pytest.importorskip(name, reason=f"{name.partition('.')[0]} is not installed")


@pytest.fixture
def volume() -> Array:
    return np.random.default_rng(0).normal(100, 30, SIZE).astype(np.float32)


@pytest.fixture
def field() -> Array:
    return smooth_field(np.random.default_rng(1), 1, SIZE, 4.0).astype(np.float32)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("mode", ["linear", "nearest"])
def test_grid_sample_of_torch(volume: Array, mode: str, padding: str, align_corners: bool) -> None:
    torch = _peer("torch")
    grid = np.random.default_rng(2).uniform(-1.4, 1.4, (1, 9, 8, 21, 3)).astype(np.float32)
    ours = grid_sample(volume[None, None], grid, mode=mode, padding=padding, align_corners=align_corners)
    options = {"mode": "bilinear" if mode == "linear" else mode, "padding_mode": padding}
    given = (torch.from_numpy(a) for a in (volume[None, None], grid))
    theirs = torch.nn.functional.grid_sample(*given, align_corners=align_corners, **options).numpy()
    if mode == "nearest":
        assert (ours != theirs).mean() < 1e-3  # halves of voxels fall to either side
    else:
        assert compare(ours, theirs).relative < 1e-5  # it adds whole numbers and rests in float32


@pytest.mark.parametrize(("order", "padding", "theirs"), [(1, "border", "nearest"), (3, "reflect", "mirror")])
def test_map_coordinates_of_scipy(volume: Array, field: Array, order: int, padding: str, theirs: str) -> None:
    ndimage = _peer("scipy.ndimage")
    places = np.stack(np.meshgrid(*[np.arange(n) for n in SIZE], indexing="ij")) + field[0].astype(np.float64)
    expected = ndimage.map_coordinates(volume.astype(np.float64), places, order=order, mode=theirs)
    found = warp3d(volume[None, None], field, order=order, padding=padding)[0, 0]
    assert compare(found, expected).relative < 1e-6


def test_warp_of_simpleitk(volume: Array, field: Array) -> None:
    sitk = _peer("SimpleITK")
    vectors = sitk.GetImageFromArray(np.ascontiguousarray(np.moveaxis(field[0, ::-1], 0, -1)), isVector=True)
    warper = sitk.WarpImageFilter()
    image = sitk.GetImageFromArray(volume)
    warper.SetOutputParameteresFromImage(image)
    expected = sitk.GetArrayFromImage(warper.Execute(image, vectors))
    assert 0.02 < (expected == 0).mean() < 0.5
    assert compare(warp3d(volume[None, None], field, padding="zeros_edges")[0, 0], expected).relative < 1e-6


@pytest.mark.parametrize("padding", ["zeros", "border"])
def test_integration_of_monai(field: Array, padding: str) -> None:
    torch = _peer("torch")
    blocks = _peer("monai.networks.blocks")
    expected = blocks.DVF2DDF(num_steps=7, padding_mode=padding)(torch.from_numpy(field)).numpy()
    assert compare(integrate(field, padding=padding), expected).relative < 1e-5


def test_integration_of_voxelmorph(field: Array, monkeypatch: pytest.MonkeyPatch) -> None:
    """Version 0.2: pip install --no-deps voxelmorph==0.2 neurite pystrum."""
    torch = _peer("torch")
    monkeypatch.setenv("VXM_BACKEND", "pytorch")
    monkeypatch.setenv("NEURITE_BACKEND", "pytorch")
    # It asks for a function that Python 3.11 has no more.
    monkeypatch.setattr(inspect, "getargspec", lambda f: inspect.getfullargspec(f)[:4], raising=False)
    layers = _peer("voxelmorph.torch.layers")
    expected = layers.VecInt(SIZE, 7)(torch.from_numpy(field)).numpy()
    assert compare(integrate(field), expected).relative < 1e-5


def test_filters_of_simpleitk(volume: Array) -> None:
    sitk = _peer("SimpleITK")
    image = sitk.GetImageFromArray(volume)
    inner = (slice(4, -4),) * 3
    rows = (
        (median(volume), sitk.Median(image, [1, 1, 1]), 0.0),
        (bilateral(volume, 1.0, 40.0), sitk.Bilateral(image, 1.0, 40.0, 20000), 1e-3),  # its weights are a table
        (curvature_flow(volume, step=0.05, iterations=4), sitk.CurvatureFlow(image, 0.05, 4), 1e-6),
        (
            anisotropic_diffusion(volume, step=0.05, conductance=1.5, iterations=4),
            sitk.GradientAnisotropicDiffusion(image, 0.05, 1.5, 1, 4),
            1e-6,
        ),
    )
    for ours, theirs, tolerance in rows:
        assert compare(ours[inner], sitk.GetArrayFromImage(theirs)[inner]).relative <= tolerance


def test_filters_of_scipy_and_scikit_image(volume: Array) -> None:
    ndimage = _peer("scipy.ndimage")
    restoration = _peer("skimage.restoration")
    assert compare(gaussian(volume, 1.2), ndimage.gaussian_filter(volume, 1.2, mode="nearest")).relative < 1e-6
    expected = restoration.denoise_tv_chambolle(volume.astype(np.float64), weight=15.0, eps=0.0, max_num_iter=20)
    assert compare(total_variation(volume, 15.0, tolerance=0.0, iterations=20), expected).relative < 1e-6


def test_non_local_means_of_dipy(volume: Array) -> None:
    nlmeans = _peer("dipy.denoise.nlmeans").nlmeans
    options = {"patch_radius": 1, "block_radius": 3, "rician": True, "method": "classic"}
    expected = nlmeans(volume.astype(np.float64), SIGMA, **options)
    # It mirrors the search window at the faces, where ours ends; its weights' strength is the fourth root of 2 in ours.
    found = non_local_means(volume, SIGMA, search=2, patch=1, strength=2**0.25, noise="rician")
    inner = (slice(3, -3),) * 3
    assert compare(found[inner], expected[inner]).relative < 1e-6
