"""gaussian: the mean of a neighbourhood, weighted by a Gaussian of the distance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from voxelrt.kernels.common.kernel import Array, Case, Kernel
from voxelrt.kernels.common.volumes import check_volume, positive
from voxelrt.kernels.gaussian.oracle import gaussian as oracle


def _case(
    shape: tuple[int, ...], sigma: float | tuple[float, ...] = 1.0, bench: bool = False, axes: Any = None
) -> Case:
    def make(rng: np.random.Generator) -> tuple[Sequence[Any], Mapping[str, Any]]:
        volume = rng.normal(0, 10, shape).astype(np.float32)
        return (volume if axes is None else volume.transpose(axes), sigma), {}

    voxels = float(np.prod(shape))
    words = ["x".join(map(str, shape)), f"sigma{sigma}", *(["strided"] if axes else [])]
    return Case("-".join(words).replace(" ", ""), make, 1e-6, 54 * voxels, 8 * voxels, bench)


KERNEL = Kernel(
    name="gaussian",
    oracle=oracle,
    cases=(
        _case((1, 1, 1)),
        _case((3, 5, 7)),
        _case((19, 33, 17), (0.5, 2.0, 1.3)),
        _case((5, 6, 7), 4.0),
        _case((5, 6, 37), (0.0, 0.1, 2.5)),
        _case((40, 300, 70), 0.8),
        _case((23, 31)),
        _case((2, 3, 4, 7, 18)),
        _case((7, 9, 6), axes=(1, 2, 0)),
        _case((0, 4, 5)),
        _case((64, 64, 80), bench=True),
    ),
    backends=("cpu", "triton"),
)


def gaussian(volume: Array, sigma: float | Sequence[float], *, truncate: float = 4.0, backend: str = "auto") -> Array:
    """Convolution with a sampled Gaussian; beyond a face its last voxel goes on (SciPy's ``mode="nearest"``).

    Parameters
    ----------
    volume : (Y, X), (Z, Y, X), (C, Z, Y, X) or (N, C, Z, Y, X), finite; each volume on its own, in float32.
    sigma : the Gaussian's width in voxels, one or (z, y, x); 0 leaves an axis as it is.
    truncate : where the Gaussian is cut, in sigmas, rounded to whole voxels.
    backend : see ``Kernel``.

    Returns
    -------
    volume : the same shape, float32.

    Raises
    ------
    UsageError : a negative sigma, or a Gaussian that reaches past 4096 voxels.
    ShapeError : other axes.
    """
    check_volume(volume, "gaussian")
    result: Array = KERNEL(volume, sigma, truncate=positive(truncate, "truncate"), backend=backend)
    return result
