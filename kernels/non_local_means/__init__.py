"""non_local_means: the mean of the voxels whose surroundings look alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from voxelrt.errors import UsageError
from voxelrt.kernels.common.kernel import Array, Case, Kernel
from voxelrt.kernels.common.volumes import check_volume, positive
from voxelrt.kernels.common.windows import Triple, triple
from voxelrt.kernels.non_local_means.oracle import non_local_means as oracle

NOISES = ("gaussian", "rician")


def noisy_case(
    shape: tuple[int, ...],
    search: Triple = 2,
    patch: Triple = 1,
    *,
    tolerance: float = 1e-5,
    flops: float = 0.0,
    bench: bool = False,
    axes: Any = None,
    also: Mapping[str, Any] | None = None,
    **options: Any,
) -> Case:
    """A case of either form: noise of 10 around 100, its axes turned where asked for. ``also`` is not in the name."""

    def make(rng: np.random.Generator) -> tuple[Sequence[Any], Mapping[str, Any]]:
        volume = (100 + rng.normal(0, 10, shape)).astype(np.float32)
        if axes is not None:
            volume = volume.transpose(axes)
        return (volume, 10.0), {"search": search, "patch": patch, **(also or {}), **options}

    words = [f"search{search}", f"patch{patch}", *map(str, options.values()), *(["strided"] if axes else [])]
    name = "-".join(["x".join(map(str, shape)), *words]).replace(" ", "")
    return Case(name, make, tolerance, flops, 8 * float(np.prod(shape)), bench)


def _case(shape: tuple[int, ...], search: Triple = 2, **options: Any) -> Case:
    offsets = float(np.prod([2 * r + 1 for r in triple(search)]))
    return noisy_case(shape, search, flops=15 * offsets * float(np.prod(shape)), **options)


KERNEL = Kernel(
    name="non_local_means",
    oracle=oracle,
    cases=(
        _case((1, 1, 1)),
        _case((3, 5, 7), noise="rician"),
        _case((2, 1, 17), search=3),
        _case((37, 66, 18), search=1),
        _case((33, 65, 17), search=(2, 1, 3), patch=(0, 2, 1), noise="rician", strength=0.7),
        _case((3, 4, 5), search=9, subtract_noise=True),
        _case((2, 2, 3, 5, 21), search=1),
        _case((19, 23), search=3, patch=2, noise="rician"),
        _case((5, 40, 6), search=(1, 20, 1), axes=(2, 0, 1)),
        _case((0, 4, 5)),
        _case((24, 40, 48), search=2, bench=True),
        _case((24, 40, 48), search=2, bench=True, noise="rician"),
    ),
    backends=("cpu", "numba", "triton", "cuda"),
    gpu_cases=(
        _case((6, 2, 3), search=1, noise="rician"),
        _case((3, 4, 4), search=(1, 0, 1), patch=(0, 1, 1), subtract_noise=True),
    ),
)


def non_local_means(
    volume: Array,
    sigma: float,
    *,
    search: Triple = 5,
    patch: Triple = 1,
    strength: float = 1.0,
    noise: str = "gaussian",
    subtract_noise: bool = False,
    backend: str = "auto",
) -> Array:
    """Non-local means, voxel by voxel (Buades, Coll, Morel, Multiscale Model. Simul. 4:490, 2005).

    The weight of a voxel j of the window around i is ``exp(-max(d - b, 0) / (strength sigma)^2)`` with d the mean
    squared difference of the patches around them; patches are mirrored at the volume's faces, the window ends there.

    Parameters
    ----------
    volume : (Y, X), (Z, Y, X), (C, Z, Y, X) or (N, C, Z, Y, X), finite; each volume on its own, in float32.
    sigma : the noise's standard deviation, in the image's units.
    search, patch : radii in voxels, one or (z, y, x): a window of 11³ and patches of 3³ are 5 and 1.
    strength : how far apart patches may be, in sigmas. sqrt(2) is Coupé's beta = 1; 2^(1/4) DIPY's classic form.
    noise : ``"gaussian"``, or ``"rician"``: the root of the mean of squares less 2 sigma^2 (Wiest-Daesslé et al.,
        MICCAI 2008, equation 5), which takes away the bias of magnitudes.
    subtract_noise : b is 2 sigma^2, what d is between equal patches, instead of 0.
    backend : see ``Kernel``.

    Returns
    -------
    volume : the same shape, float32.

    Raises
    ------
    UsageError : sigma or strength not above 0, an unknown noise, a radius out of range.
    ShapeError : other axes.
    """
    options = {"search": search, "patch": patch, "subtract_noise": subtract_noise}
    return weighted_mean(KERNEL, volume, sigma, strength, noise, backend, options)


def weighted_mean(
    kernel: Kernel,
    volume: Array,
    sigma: float,
    strength: float,
    noise: str,
    backend: str,
    options: Mapping[str, Any],
) -> Array:
    """Check what both forms of non-local means take, and run one. Raises as ``non_local_means`` does."""
    check_volume(volume, kernel.name)
    if noise not in NOISES:
        raise UsageError(f"noise is {noise!r}; it is one of {', '.join(NOISES)}")
    sigma, strength = positive(sigma, "sigma"), positive(strength, "strength")
    result: Array = kernel(volume, sigma, strength=strength, noise=noise, backend=backend, **options)
    return result
