"""Make ``data/denoise_peers.npz``: a small noisy volume and what other libraries make of it.

Run in an environment with dipy 1.12.1, SimpleITK 2.5.7, scikit-image 0.26.0 and scipy 1.17.1:
``python tests/kernels/make_denoise_peers.py``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK
from dipy.denoise.nlmeans import nlmeans
from scipy import ndimage
from skimage.restoration import denoise_tv_chambolle

TARGET = Path(__file__).parent / "data" / "denoise_peers.npz"
SIGMA = 12.0


def main() -> None:
    rng = np.random.default_rng(5)
    z, y, x = np.mgrid[:13, :15, :17]
    clean = np.where((z - 6) ** 2 + (y - 7) ** 2 + (x - 8) ** 2 < 30, 150.0, 60.0) + 10 * np.sin(x / 3)
    noisy = np.hypot(clean + rng.normal(0, SIGMA, clean.shape), rng.normal(0, SIGMA, clean.shape)).astype(np.float32)
    image = SimpleITK.GetImageFromArray(noisy)
    spaced = SimpleITK.GetImageFromArray(noisy)
    spaced.SetSpacing((1.0, 1.5, 2.5))
    array = SimpleITK.GetArrayFromImage
    doubles = noisy.astype(np.float64)
    answers = {
        "noisy": noisy,
        # Its block radius is search and patch together.
        "dipy_classic_rician": nlmeans(doubles, SIGMA, patch_radius=1, block_radius=3, rician=True, method="classic"),
        # Its patch radius is the search's here, its block radius the patch's.
        "dipy_blocks_rician": nlmeans(doubles, SIGMA, patch_radius=2, block_radius=1, rician=True),
        "itk_median": array(SimpleITK.Median(image, [2, 1, 1])),
        "itk_bilateral": array(SimpleITK.Bilateral(image, 1.2, 30.0, 20000)),
        "itk_curvature_flow": array(SimpleITK.CurvatureFlow(spaced, 0.05, 4)),
        "itk_gradient_diffusion": array(SimpleITK.GradientAnisotropicDiffusion(spaced, 0.05, 1.5, 1, 4)),
        "skimage_tv": denoise_tv_chambolle(doubles, weight=15.0, eps=2e-4, max_num_iter=30),
        "scipy_gaussian": ndimage.gaussian_filter(noisy, (0.7, 1.0, 1.6), mode="nearest"),
        "scipy_median": ndimage.median_filter(noisy, (3, 3, 5), mode="nearest"),
    }
    TARGET.parent.mkdir(exist_ok=True)
    np.savez_compressed(TARGET, **{name: np.asarray(value, np.float32) for name, value in answers.items()})


if __name__ == "__main__":
    main()
