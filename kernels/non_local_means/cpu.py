"""non_local_means on the native library."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from voxelrt.kernels.common import native
from voxelrt.kernels.common.kernel import Array
from voxelrt.kernels.common.volumes import as_volumes, radii
from voxelrt.kernels.common.windows import Triple

PIECE_PLANES = 32


def run(
    volume: Array,
    sigma: float,
    *,
    search: Triple = 5,
    patch: Triple = 1,
    strength: float = 1.0,
    noise: str = "gaussian",
    subtract_noise: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Array:
    options = weighing(volume, sigma, search, patch, strength, noise)
    options["offset"] = 2 * math.log2(math.e) / strength**2 if subtract_noise else 0.0
    given = as_volumes(volume)
    out = native.aligned_empty(given.shape, np.float32)
    in_pieces("non_local_means", given, out, options, progress)
    return out.reshape(volume.shape)


def weighing(volume: Array, sigma: float, search: Triple, patch: Triple, strength: float, noise: str) -> dict[str, Any]:
    """The native kernels' parameters that say which voxels are compared and what a difference weighs."""
    near = radii(patch, volume, "patch")
    return {
        "search": radii(search, volume, "search"),
        "patch": near,
        "slope": math.log2(math.e) / ((strength * sigma) ** 2 * float(np.prod([2 * r + 1 for r in near]))),
        "squares": noise == "rician",
        "noise": 2 * sigma**2,
    }


def in_pieces(
    kernel: str,
    given: Array,
    out: Array,
    options: Mapping[str, Any],
    progress: Callable[[int, int], None] | None,
) -> None:
    """Run a kernel that makes planes from `first` on, whole, or in pieces where progress is asked for.

    Between the pieces progress is told and Ctrl-C heard. They change no bit: a voxel's sums have one order.
    """
    if progress is None:
        native.run_kernel(kernel, [given], [out], first=0, **options)
        return
    pieces = [(n, first) for n in range(given.shape[0]) for first in range(0, given.shape[1], PIECE_PLANES)]
    for done, (n, first) in enumerate(pieces):
        progress(done, len(pieces))
        wanted = out[n : n + 1, first : first + PIECE_PLANES]
        native.run_kernel(kernel, [given[n : n + 1]], [wanted], first=first, **options)
