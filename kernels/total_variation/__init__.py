"""total_variation: the image of least total variation near the noisy one."""

from __future__ import annotations

from typing import Any

from voxelrt.kernels.common.kernel import Array, Case, Kernel
from voxelrt.kernels.common.volumes import check_volume, noisy_case, positive
from voxelrt.kernels.total_variation.oracle import total_variation as oracle


def _case(shape: tuple[int, ...], weight: float = 8.0, **rest: Any) -> Case:
    return noisy_case(shape, weight, words=[f"weight{weight}"], allowed=1e-5, **rest)


KERNEL = Kernel(
    name="total_variation",
    oracle=oracle,
    cases=(
        _case((1, 1, 1)),
        _case((3, 5, 7)),
        _case((9, 33, 17), 3.0, iterations=7),
        _case((2, 1, 40), tolerance=0.0, iterations=20),
        _case((23, 31)),
        _case((2, 3, 4, 7, 18)),
        _case((7, 9, 6), axes=(1, 2, 0)),
        _case((0, 4, 5)),
        _case((32, 48, 64), bench=True),
    ),
    backends=("cpu", "triton"),
    gpu_cases=(_case((3, 4, 5), iterations=5, tolerance=0.0),),
)


def total_variation(
    volume: Array,
    weight: float,
    *,
    tolerance: float = 2e-4,
    iterations: int = 200,
    backend: str = "auto",
) -> Array:
    """Total variation denoising (Rudin, Osher, Fatemi) by Chambolle's projection (J. Math. Imaging Vis. 20:89, 2004).

    Parameters
    ----------
    volume : (Y, X), (Z, Y, X), (C, Z, Y, X) or (N, C, Z, Y, X), finite; each volume on its own, in float32.
    weight : of total variation against half the squared differences, in the image's units.
    tolerance : stop where the energy changes by less than this share of the first one.
    iterations : at most so many.
    backend : see ``Kernel``.

    Returns
    -------
    volume : the same shape, float32.

    Raises
    ------
    UsageError : an option out of range.
    ShapeError : other axes.
    """
    check_volume(volume, "total_variation")
    result: Array = KERNEL(
        volume, positive(weight, "weight"), tolerance=tolerance, iterations=iterations, backend=backend
    )
    return result
