"""denoise in float64, on the oracles of the filters."""

from __future__ import annotations

import numpy as np

from voxelrt.kernels.common.kernel import Array
from voxelrt.kernels.denoise.choice import Choice
from voxelrt.kernels.denoise.methods import method_of


def denoise(volume: Array, choice: Choice) -> Array:
    method = method_of(choice.method)
    spatial = volume.shape[-3:] if volume.ndim > 2 else (1, *volume.shape)
    stacked = volume.astype(np.float64).reshape(int(np.prod(volume.shape[:-3])), *spatial)
    made = np.empty_like(stacked)
    for index, one in enumerate(stacked):
        sigma = choice.sigmas[index] if method.uses_sigma else 1.0
        made[index] = method.call(method.kernel.oracle, one, sigma, choice.noise, choice.options) if sigma > 0 else one
    return made.reshape(volume.shape)
