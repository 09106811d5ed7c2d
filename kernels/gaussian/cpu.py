"""gaussian on the native library."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from voxelrt.kernels.common import native
from voxelrt.kernels.common.kernel import Array
from voxelrt.kernels.common.volumes import as_volumes, spatial_values
from voxelrt.kernels.gaussian.weights import gaussian_weights


def run(volume: Array, sigma: float | Sequence[float], *, truncate: float = 4.0) -> Array:
    sigmas = spatial_values(sigma, "sigma")
    if volume.ndim == 2:
        sigmas = (0.0, *sigmas[1:])
    weights = [gaussian_weights(s, truncate).astype(np.float32) for s in sigmas]
    given = as_volumes(volume)
    out = native.aligned_empty(given.shape, np.float32)
    native.run_kernel("gaussian", [given, *weights], [out], radius=[w.size // 2 for w in weights])
    return out.reshape(volume.shape)
