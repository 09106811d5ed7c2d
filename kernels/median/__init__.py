"""median: the middle value of each voxel's window."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from voxelrt.kernels.common.kernel import Array, Case, Kernel
from voxelrt.kernels.common.volumes import check_volume
from voxelrt.kernels.common.windows import Triple
from voxelrt.kernels.median.oracle import median as oracle


def _case(shape: tuple[int, ...], radius: Triple = 1, bench: bool = False, axes: Any = None) -> Case:
    def make(rng: np.random.Generator) -> tuple[Sequence[Any], Mapping[str, Any]]:
        volume = rng.normal(0, 10, shape).astype(np.float32)
        return (volume if axes is None else volume.transpose(axes),), {"radius": radius}

    words = ["x".join(map(str, shape)), f"radius{radius}", *(["strided"] if axes else [])]
    return Case("-".join(words).replace(" ", ""), make, 0.0, 0.0, 8.0 * float(np.prod(shape)), bench)


KERNEL = Kernel(
    name="median",
    oracle=oracle,
    cases=(
        _case((1, 1, 1)),
        _case((3, 5, 7)),
        _case((9, 33, 17)),
        _case((2, 1, 40), (0, 3, 1)),
        _case((11, 13, 19), 2),
        _case((5, 6, 7), 0),
        _case((5, 6, 37), (1, 0, 2)),
        _case((4, 5, 6), (1, 1, 3)),
        _case((23, 31)),
        _case((23, 31), 2),
        _case((2, 3, 4, 7, 18)),
        _case((7, 9, 6), axes=(1, 2, 0)),
        _case((0, 4, 5)),
        _case((48, 64, 80), bench=True),
    ),
    backends=("cpu", "triton"),
)


def median(volume: Array, *, radius: Triple = 1, backend: str = "auto") -> Array:
    """The median of the box of voxels around each; beyond a face its last voxel goes on.

    Parameters
    ----------
    volume : (Y, X), (Z, Y, X), (C, Z, Y, X) or (N, C, Z, Y, X), finite; each volume on its own, in float32.
    radius : in voxels, one or (z, y, x): 1 is a window of 3³. At most 2197 voxels (13³) in all.
    backend : see ``Kernel``.

    Returns
    -------
    volume : the same shape, float32; every value is one of the volume's.

    Raises
    ------
    UsageError : a negative radius.
    ShapeError : other axes, or too large a window.
    """
    check_volume(volume, "median")
    result: Array = KERNEL(volume, radius=radius, backend=backend)
    return result
