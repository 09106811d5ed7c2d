"""The measures of bench.filters, by hand and on what must not be confused."""

from __future__ import annotations

import numpy as np
import pytest

from bench.filter_quality import add_noise, middle, psnr, scores, ssim


def test_psnr_by_hand() -> None:
    clean = np.zeros((2, 2, 2), np.float32)
    assert psnr(clean, clean + 10, 100.0) == pytest.approx(20.0)
    assert psnr(clean, clean, 100.0) == float("inf")


def test_ssim() -> None:
    image = np.random.default_rng(0).normal(100, 20, (12, 13, 14)).astype(np.float32)
    assert ssim(image, image, 100.0) == pytest.approx(1.0, abs=1e-6)
    # Another level changes only the first factor, which is nearly the same everywhere.
    shifted = (2 * 100 * 110 + 1) / (100**2 + 110**2 + 1)
    assert ssim(image, image + 10, 100.0) == pytest.approx(shifted, abs=1e-3)
    assert ssim(image, 200 - image, 100.0) < 0


def test_noise_has_the_asked_strength() -> None:
    clean = np.full((30, 30, 30), 500.0, np.float32)
    assert add_noise(clean, 20.0, "gaussian", 0).std() == pytest.approx(20, rel=0.02)
    magnitudes = add_noise(np.zeros_like(clean), 20.0, "rician", 0)
    assert magnitudes.mean() == pytest.approx(20 * np.sqrt(np.pi / 2), rel=0.02)


def test_middle() -> None:
    volume = np.arange(4 * 5 * 6).reshape(4, 5, 6)
    np.testing.assert_array_equal(middle(volume, 3), volume[0:3, 1:4, 1:4])
    np.testing.assert_array_equal(middle(volume, 9), volume)


def test_non_local_means_beats_the_noise_and_a_gaussian() -> None:
    z, y, x = np.mgrid[:28, :28, :28]
    clean = np.where((z - 14) ** 2 + (y - 14) ** 2 + (x - 14) ** 2 < 100, 100 + 20 * np.sin(x / 2), 0).astype(
        np.float32
    )
    found = {score.filter: score for score in scores(clean, 6.0, "rician", 1)}
    best = found["VoxelRT nlm"]
    assert best.psnr_db > found["Gaussian, best of 3 widths"].psnr_db + 1
    assert best.psnr_db > found["noisy image"].psnr_db + 3
    assert abs(best.background_bias) < 0.3 < found["noisy image"].background_bias
