"""non_local_means_blocks: the mean of the blocks whose surroundings look alike, in blocks that overlap."""

from __future__ import annotations

from typing import Any

import numpy as np

from voxelrt.errors import UsageError
from voxelrt.kernels.common.kernel import Array, Case, Kernel
from voxelrt.kernels.common.windows import Triple, triple
from voxelrt.kernels.non_local_means import noisy_case, weighted_mean
from voxelrt.kernels.non_local_means_blocks.oracle import non_local_means_blocks as oracle


def _case(
    shape: tuple[int, ...],
    search: Triple = 2,
    patch: Triple = 1,
    like: tuple[float, float] = (0.5, 0.001),
    **options: Any,
) -> Case:
    values = float(np.prod([2 * r + 1 for r in triple(patch)]))
    centres = float(np.prod([-(-n // (2 if r else 1)) for n, r in zip(shape[-3:], triple(patch)[-3:], strict=False)]))
    offsets = float(np.prod([2 * r + 1 for r in triple(search)]))
    # Mostly shares that no float32 rounding of a mean decides otherwise: nearly all or nearly none of the partners.
    shares = {"like_means": like[0], "like_variances": like[1]}
    flops = 5 * values * offsets * centres
    return noisy_case(shape, search, patch, tolerance=1e-6, flops=flops, also=shares, **options)


KERNEL = Kernel(
    name="non_local_means_blocks",
    oracle=oracle,
    cases=(
        _case((1, 1, 1)),
        _case((3, 5, 7), noise="rician"),
        _case((2, 1, 17), search=3),
        _case((37, 35, 18), search=1),
        _case((5, 6, 70), search=(1, 2, 3), patch=(0, 1, 1), strength=0.7),
        _case((9, 8, 17), search=(2, 1, 3), patch=(0, 2, 1), noise="rician"),
        _case((6, 7, 8), search=1, patch=0),
        _case((3, 4, 5), search=9),
        _case((2, 2, 3, 5, 21), search=1),
        _case((19, 23), search=3, noise="rician"),
        _case((11, 12, 13), noise="rician", own=False),
        _case((11, 12, 13), strength=0.17),
        _case((5, 20, 6), search=(1, 9, 1), axes=(2, 0, 1)),
        _case((0, 4, 5)),
        _case((24, 40, 48), search=2, bench=True),
        _case((24, 40, 48), search=2, bench=True, noise="rician"),
    ),
    backends=("cpu", "cuda"),
    gpu_cases=(
        _case((2, 2, 4, 3), search=1, patch=(0, 2, 1), noise="rician"),
        _case((7, 9), noise="rician"),
        _case((2, 3, 4, 7), search=(1, 1, 2), patch=(0, 1, 1), like=(0.9, 0.5)),
        _case((4, 5, 6), search=1, noise="rician", own=False),
        _case((4, 5, 6), search=1, strength=0.17),
    ),
)


def non_local_means_blocks(
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
    backend: str = "auto",
) -> Array:
    """Non-local means of blocks (Coupé et al., IEEE Trans. Med. Imaging 27:425, 2008, sections III-B and III-C).

    Blocks are the patches around every second voxel along axes where a patch has a radius. Each is the weighted mean of
    the patches around the voxels j of its window, ``w = exp(-d / (strength sigma)^2)`` with d the mean squared
    difference; weights below 2^-100 are none. Partners whose mean or variance differs too much are left out. A voxel is
    the mean of the blocks that hold it.

    Parameters
    ----------
    volume : (Y, X), (Z, Y, X), (C, Z, Y, X) or (N, C, Z, Y, X), finite; each volume on its own, in float32.
    sigma, search, strength : as in ``non_local_means``.
    patch : radius of patches and blocks in voxels, 0 to 3, one or (z, y, x).
    noise : ``"gaussian"``, or ``"rician"``: squares are averaged, a block is the root of their mean less 2 sigma^2.
    like_means, like_variances : a partner's mean and variance lie between this share of the block's own and the own
        over this share; 0 lets all be partners (whose patches vary at all). Means are counted from 0 for magnitudes,
        else from the volume's least value.
    own : whether a block counts itself, as much as its best partner; DIPY's do not. One without partners stays.
    backend : see ``Kernel``.

    Returns
    -------
    volume : the same shape, float32.

    Raises
    ------
    UsageError : sigma or strength not above 0, an unknown noise, a radius or a share out of range.
    ShapeError : other axes.
    """
    for word, share in (("like_means", like_means), ("like_variances", like_variances)):
        if not 0 <= share < 1:
            raise UsageError(f"{word} is {share!r}; a share lies from 0 to below 1")
    options: dict[str, Any] = {"search": search, "patch": patch, "own": own}
    options |= {"like_means": like_means, "like_variances": like_variances}
    return weighted_mean(KERNEL, volume, sigma, strength, noise, backend, options)
