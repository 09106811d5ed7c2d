"""What the GPU programs of both forms of non-local means share: buffers, window and the weights' exponent."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from voxelrt.errors import UnsupportedError
from voxelrt.kernels.common.gpu.program import Program, Tensor
from voxelrt.kernels.common.kernel import Array
from voxelrt.kernels.common.volumes import as_volumes, radii
from voxelrt.kernels.common.windows import Triple

_MOST_ITEMS = 65535  # blocks along a grid's second axis


@dataclass(frozen=True)
class Problem:
    """A program without launches yet, and what they take.

    Parameters
    ----------
    given, out, copy : the volumes (N, Z, Y, X), the answer, and scratch for the volumes mirrored at their faces.
    size, window, near : Z, Y, X; radii of the search and of the patches in voxels.
    slope, offset, noise : of the exponent: distances times slope less offset; twice the noise's variance.
    """

    made: Program
    given: Tensor
    out: Tensor
    copy: Tensor
    size: tuple[int, ...]
    window: tuple[int, ...]
    near: tuple[int, ...]
    slope: float
    offset: float
    noise: float


def problem(
    file: str,
    backend: str,
    volume: Array,
    sigma: float,
    search: Triple,
    patch: Triple,
    strength: float,
    subtract_noise: bool = False,
) -> Problem:
    """The buffers and numbers of one call; an empty volume needs no launch. Raises UnsupportedError."""
    far, near = radii(search, volume, "search"), radii(patch, volume, "patch")
    given = as_volumes(volume)
    batch, *size = given.shape
    if batch > _MOST_ITEMS:
        op = Path(file).parent.name
        raise UnsupportedError(f"{op} on {backend} takes up to {_MOST_ITEMS} volumes at once, not {batch}")
    made = Program(file)
    out = made.output(given.shape)
    made.finish(lambda found: found.reshape(volume.shape))
    return Problem(
        made,
        made.input(given),
        out,
        made.scratch((batch, *(n + 2 * r for n, r in zip(size, near, strict=True)))),
        tuple(size),
        # No offset past the volume's far side has a voxel: the loops end there, whatever the radius.
        tuple(min(r, n - 1) for r, n in zip(far, size, strict=True)),
        tuple(near),
        1.0 / ((strength * sigma) ** 2 * float(np.prod([2 * r + 1 for r in near]))),
        2.0 / strength**2 if subtract_noise else 0.0,
        2.0 * float(sigma) ** 2,
    )
