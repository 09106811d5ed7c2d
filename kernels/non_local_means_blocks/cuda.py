"""non_local_means_blocks as a CUDA program: what patches are like, then every block, then every voxel's blocks."""

from __future__ import annotations

import math

import numpy as np

from voxelrt.kernels.common.gpu.program import Program
from voxelrt.kernels.common.kernel import Array
from voxelrt.kernels.common.windows import Triple
from voxelrt.kernels.non_local_means.device_arguments import problem

_NAME = "voxelrt_non_local_means_blocks"
ENTRIES = tuple(f"{_NAME}_{what}" for what in ("mirror", "least", "describe", "cube", "square", "any", "mean"))
_KNOWN: dict[tuple[int, ...], str] = {(1, 1, 1): "cube", (0, 1, 1): "square"}  # patches whose sums are in registers
_BLOCK = 128


def program(
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
) -> Program:
    on = problem(__file__, "cuda", volume, sigma, search, patch, strength)
    made, size, batch = on.made, on.size, on.out.shape[0]
    if on.out.size == 0:
        return made
    patches, rician = tuple(np.int32(r) for r in on.near), noise == "rician"
    voxels = math.prod(size)
    centres = [-(-n // (2 if r else 1)) for n, r in zip(size, on.near, strict=True)]
    least, means, variances = made.scratch((batch,)), made.scratch(on.out.shape), made.scratch(on.out.shape)
    answers = made.scratch((batch, math.prod(2 * r + 1 for r in on.near), *centres))
    blocks = min(-(-on.copy.size // 256), 1 << 16)
    made.launch(f"{_NAME}_mirror", blocks, on.copy, on.given, on.copy.size, *size, *patches, block=256)
    if not rician:
        made.launch(f"{_NAME}_least", (1, batch), least, on.given, voxels, block=256)
    each_voxel, each_block = ((-(-n // _BLOCK), batch) for n in (voxels, math.prod(centres)))
    described = (means, variances, on.copy, least, *size, *patches, not rician)
    made.launch(f"{_NAME}_describe", each_voxel, *described, block=_BLOCK)
    window = tuple(np.int32(r) for r in on.window)
    weighing = (on.slope * math.log2(math.e), on.noise, float(like_means), float(like_variances), bool(own), rician)
    made.launch(
        f"{_NAME}_{_KNOWN.get(on.near, 'any')}",
        each_block,
        *(answers, on.copy, means, variances, *size, *window, *patches, *weighing),
        block=_BLOCK,
    )
    made.launch(f"{_NAME}_mean", each_voxel, on.out, answers, *size, *patches, block=_BLOCK)
    return made
