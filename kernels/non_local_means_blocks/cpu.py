"""non_local_means_blocks on the native library."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from voxelrt.kernels.common import native
from voxelrt.kernels.common.kernel import Array
from voxelrt.kernels.common.volumes import as_volumes
from voxelrt.kernels.common.windows import Triple
from voxelrt.kernels.non_local_means.cpu import in_pieces, weighing


def run(
    volume: Array,
    sigma: float,
    *,
    search: Triple = 5,
    patch: Triple = 1,
    strength: float = 1.0,
    noise: str = "gaussian",
    like_means: float = 0.95,
    like_variances: float = 0.5,
    own: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> Array:
    options = weighing(volume, sigma, search, patch, strength, noise)
    options |= {"like_means": like_means, "like_variances": like_variances, "own": own}
    given = as_volumes(volume)
    out = native.aligned_empty(given.shape, np.float32)
    for one, wanted in zip(given, out, strict=True):
        # Means are counted from zero for magnitudes, else from the volume's least value: a shift changes nothing then.
        options["level"] = 0.0 if noise == "rician" or not one.size else float(one.min())
        in_pieces("non_local_means_blocks", one[None], wanted[None], options, progress)
    return out.reshape(volume.shape)
