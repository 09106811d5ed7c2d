"""How much of a known noise each filter takes out of real images, and what it costs the image."""

from __future__ import annotations

import plistlib
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxelrt.io import read_image
from voxelrt.kernels import denoise, gaussian, non_local_means, non_local_means_blocks
from voxelrt.models.fetch import fetch_demo
from voxelrt.models.recipe import load_recipe

Array = NDArray[Any]
LEVELS = (0.03, 0.05, 0.09)
SEARCH, PATCH = 5, 1
# Coupé's and scikit-image's customs: the Gaussian window of SSIM, its constants, and what counts as background.
SSIM_WIDTH, SSIM_K1, SSIM_K2 = 1.5, 0.01, 0.03
BACKGROUND = 0.02


@dataclass(frozen=True)
class Score:
    """One filter on one noisy image."""

    filter: str
    psnr_db: float
    ssim: float
    background_bias: float  # mean of answer less truth where there is nothing, in units of sigma


def t1(path: Path | None) -> Array:
    """A whole head (Z, Y, X): the file, or the demo's MNI152 T1 of 2 mm."""
    found = path or fetch_demo(load_recipe("brain-extraction"))[0]
    return read_image(found).volume.array[0].astype(np.float32)


def ct(path: Path) -> Array:
    """A CT in HU (Z, Y, X): any image that is read, or an InVesalius project (invesalius-examples' Cranium.inv3)."""
    if path.suffix != ".inv3":
        return read_image(path).volume.array[0].astype(np.float32)
    with tarfile.open(path) as project:
        parts = {Path(member.name).name: member for member in project.getmembers() if member.isfile()}
        main = project.extractfile(parts["main.plist"])
        assert main is not None
        shape = plistlib.load(main)["matrix"]["shape"]
        voxels = project.extractfile(parts["matrix.dat"])
        assert voxels is not None
        return np.frombuffer(voxels.read(), np.int16).reshape(shape).astype(np.float32)


def middle(volume: Array, edge: int) -> Array:
    """At most `edge` voxels along each axis, from the middle."""
    cut = tuple(slice(max(0, (n - edge) // 2), max(0, (n - edge) // 2) + edge) for n in volume.shape)
    return np.ascontiguousarray(volume[cut])


def add_noise(clean: Array, sigma: float, noise: str, seed: int) -> Array:
    """Gaussian noise, or that of magnitudes of two noisy channels."""
    rng = np.random.default_rng(seed)
    noisy = clean + rng.normal(0, sigma, clean.shape)
    if noise == "rician":
        noisy = np.hypot(noisy, rng.normal(0, sigma, clean.shape))
    return noisy.astype(np.float32)


def filters(noise: str, sigma: float) -> Iterator[tuple[str, Callable[[Array], Array]]]:
    """What is compared. DIPY's rows come where it is installed."""
    yield "noisy image", lambda v: v
    yield "Gaussian, best of 3 widths", lambda v: v  # chosen by the caller, who knows the truth
    equal: dict[str, Any] = {"search": SEARCH, "patch": PATCH, "strength": 2**0.25, "noise": noise}
    yield "VoxelRT non-local means, DIPY's parameters", lambda v: non_local_means(v, sigma, **equal)
    yield (
        "VoxelRT non-local means of blocks, DIPY's parameters",
        lambda v: non_local_means_blocks(v, sigma, search=SEARCH, patch=PATCH, noise=noise, own=False),
    )
    yield "VoxelRT nlm-blocks", lambda v: denoise(v, "nlm-blocks", noise=noise, sigma=sigma)
    yield "VoxelRT nlm", lambda v: denoise(v, "nlm", noise=noise, sigma=sigma)
    yield "VoxelRT nlm, sigma estimated", lambda v: denoise(v, "nlm", noise=noise)
    for method in ("bilateral", "tv"):
        yield f"VoxelRT {method}", lambda v, m=method: denoise(v, m, sigma=sigma)  # type: ignore[misc]
    for method in ("median", "diffusion", "curvature-flow"):
        yield f"VoxelRT {method}", lambda v, m=method: denoise(v, m)  # type: ignore[misc]
    try:
        from dipy.denoise.nlmeans import nlmeans
    except ImportError:
        return
    yield (
        "DIPY classic",
        lambda v: nlmeans(
            v.astype(np.float64),
            sigma,
            patch_radius=PATCH,
            block_radius=SEARCH + PATCH,
            rician=noise == "rician",
            method="classic",
        ),
    )
    yield (
        "DIPY block-wise",
        lambda v: nlmeans(
            v.astype(np.float64), sigma, patch_radius=SEARCH, block_radius=PATCH, rician=noise == "rician"
        ),
    )


def scores(clean: Array, sigma: float, noise: str, seed: int) -> list[Score]:
    """Every filter on `clean` with noise. For CT values are moved so that air is 0, as DIPY's squares need it."""
    noisy = add_noise(clean, sigma, noise, seed)
    peak = float(np.percentile(clean, 99.9) - np.percentile(clean, 0.1))
    empty = clean <= float(clean.min()) + BACKGROUND * peak
    made = []
    for name, function in filters(noise, sigma):
        if name.startswith("Gaussian"):
            answers = [gaussian(noisy, width) for width in (0.5, 0.75, 1.0)]
            answer = max(answers, key=lambda a: psnr(clean, a, peak))
        else:
            answer = function(noisy)
        bias = float((answer[empty] - clean[empty]).mean() / sigma) if empty.any() else float("nan")
        made.append(Score(name, psnr(clean, answer, peak), ssim(clean, answer, peak), bias))
    return made


def psnr(clean: Array, answer: Array, peak: float) -> float:
    """Peak signal-to-noise ratio in dB."""
    error = float(np.mean((clean.astype(np.float64) - answer) ** 2))
    return float("inf") if error == 0 else 10 * float(np.log10(peak**2 / error))


def ssim(clean: Array, answer: Array, peak: float) -> float:
    """Mean structural similarity with a Gaussian window (Wang et al., IEEE TIP 13:600, 2004, equation 13)."""
    a, b = clean.astype(np.float32), answer.astype(np.float32)
    # Around a common level, so that float32 keeps the digits of small variances.
    level = np.float32(a.mean())
    a, b = a - level, b - level
    mean_a, mean_b = gaussian(a, SSIM_WIDTH), gaussian(b, SSIM_WIDTH)
    var_a = gaussian(a * a, SSIM_WIDTH) - mean_a**2
    var_b = gaussian(b * b, SSIM_WIDTH) - mean_b**2
    both = gaussian(a * b, SSIM_WIDTH) - mean_a * mean_b
    mean_a, mean_b = mean_a + level, mean_b + level
    c1, c2 = (SSIM_K1 * peak) ** 2, (SSIM_K2 * peak) ** 2
    map_ = (2 * mean_a * mean_b + c1) * (2 * both + c2) / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
    return float(map_.mean(dtype=np.float64))
