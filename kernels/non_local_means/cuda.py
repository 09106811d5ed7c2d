"""non_local_means as a CUDA program: a copy mirrored at the faces, then every voxel's window."""

from __future__ import annotations

import numpy as np

from voxelrt.errors import UnsupportedError
from voxelrt.kernels.common.gpu.program import Program
from voxelrt.kernels.common.kernel import Array
from voxelrt.kernels.common.volumes import as_volumes, radii
from voxelrt.kernels.common.windows import Triple

ENTRIES = ("voxelrt_non_local_means_mirror", "voxelrt_non_local_means_mean")
_PILLAR, _BLOCK = 4, 128
_MOST_ITEMS = 65535


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
    far, near = radii(search, volume, "search"), radii(patch, volume, "patch")
    given = as_volumes(volume)
    batch, *size = given.shape
    if batch > _MOST_ITEMS:
        raise UnsupportedError(f"non_local_means on cuda takes up to {_MOST_ITEMS} volumes at once, not {batch}")
    made = Program(__file__)
    out = made.output(given.shape)
    made.finish(lambda found: found.reshape(volume.shape))
    if out.size == 0:
        return made
    depth, rows, columns = size
    copy = made.scratch((batch, *(n + 2 * r for n, r in zip(size, near, strict=True))))
    patches = tuple(np.int32(r) for r in near)
    blocks = min(-(-copy.size // 256), 1 << 16)
    mirror = (copy, made.input(given), copy.size, *size, *patches)
    made.launch("voxelrt_non_local_means_mirror", blocks, *mirror, block=256)
    slope = 1.0 / ((strength * sigma) ** 2 * float(np.prod([2 * r + 1 for r in near])))
    offset = 2.0 / strength**2 if subtract_noise else 0.0
    # No offset past the volume's far side has a voxel: the loops end there, whatever the radius.
    window = tuple(np.int32(min(r, n - 1)) for r, n in zip(far, size, strict=True))
    grid = (-(-(-(-depth // _PILLAR) * rows * columns) // _BLOCK), batch)
    numbers = (slope, offset, 2.0 * float(sigma) ** 2, np.int32(noise == "rician"))
    made.launch("voxelrt_non_local_means_mean", grid, out, copy, *size, *window, *patches, *numbers, block=_BLOCK)
    return made
