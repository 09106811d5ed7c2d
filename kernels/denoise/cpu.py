"""denoise on the native kernels."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from voxelrt.kernels.common.kernel import Array
from voxelrt.kernels.common.volumes import as_volumes
from voxelrt.kernels.denoise.choice import Choice
from voxelrt.kernels.denoise.methods import method_of


def run(
    volume: Array, choice: Choice, backend: str = "cpu", progress: Callable[[int, int], None] | None = None
) -> Array:
    """Carry a choice out. The answer is float32. Methods that take long tell their progress as (steps done, of all)."""
    method = method_of(choice.method)
    function = method.kernel.backend(backend)
    if progress is not None and backend == "cpu" and method.slow:
        function = functools.partial(function, progress=progress)
    given = as_volumes(volume)
    if len(set(choice.sigmas)) <= 1:
        sigma = choice.sigmas[0] if choice.sigmas else 0.0
        if method.uses_sigma and sigma == 0:
            return np.array(given).reshape(volume.shape)
        return method.call(function, given, sigma, choice.noise, choice.options).reshape(volume.shape)
    made = [
        method.call(function, one[None], sigma, choice.noise, choice.options)[0] if sigma > 0 else one
        for one, sigma in zip(given, choice.sigmas, strict=True)
    ]
    return np.stack(made).reshape(volume.shape)
