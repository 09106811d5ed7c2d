"""non_local_means as a CUDA program: a copy mirrored at the faces, then every voxel's window."""

from __future__ import annotations

import numpy as np

from voxelrt.kernels.common.gpu.program import Program
from voxelrt.kernels.common.kernel import Array
from voxelrt.kernels.common.windows import Triple
from voxelrt.kernels.non_local_means.device_arguments import problem

ENTRIES = ("voxelrt_non_local_means_mirror", "voxelrt_non_local_means_mean")
_PILLAR, _BLOCK = 4, 128


def program(
    volume: Array,
    sigma: float,
    *,
    search: Triple = 5,
    patch: Triple = 1,
    strength: float = 1.0,
    noise: str = "gaussian",
    subtract_noise: bool = False,
) -> Program:
    on = problem(__file__, "cuda", volume, sigma, search, patch, strength, subtract_noise)
    made, size, patches = on.made, on.size, tuple(np.int32(r) for r in on.near)
    if on.out.size == 0:
        return made
    blocks = min(-(-on.copy.size // 256), 1 << 16)
    mirror = (on.copy, on.given, on.copy.size, *size, *patches)
    made.launch("voxelrt_non_local_means_mirror", blocks, *mirror, block=256)
    window = tuple(np.int32(r) for r in on.window)
    grid = (-(-(-(-size[0] // _PILLAR) * size[1] * size[2]) // _BLOCK), on.out.shape[0])
    numbers = (on.slope, on.offset, on.noise, np.int32(noise == "rician"))
    made.launch("voxelrt_non_local_means_mean", grid, on.out, on.copy, *size, *window, *patches, *numbers, block=_BLOCK)
    return made
