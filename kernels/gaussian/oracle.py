"""A Gaussian in float64, one axis after the other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from voxelrt.kernels.common.kernel import Array
from voxelrt.kernels.common.volumes import each_volume, spatial_values


def gaussian(volume: Array, sigma: float | Sequence[float], *, truncate: float = 4.0) -> Array:
    sigmas = spatial_values(sigma, "sigma")
    if volume.ndim == 2:
        sigmas = (0.0, *sigmas[1:])

    def one(v: Array) -> Array:
        for axis, s in enumerate(sigmas):
            radius = int(truncate * s + 0.5)
            weights = [float(np.exp(-0.5 * (k / s) ** 2)) if k else 1.0 for k in range(-radius, radius + 1)]
            padded = np.pad(v, [(radius, radius) if a == axis else (0, 0) for a in range(3)], mode="edge")
            total = np.zeros_like(v)
            for k, weight in enumerate(weights):
                total += weight * np.take(padded, range(k, k + v.shape[axis]), axis=axis)
            v = total / sum(weights)
        return v

    return each_volume(one, volume)
