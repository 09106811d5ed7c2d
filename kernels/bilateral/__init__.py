"""bilateral: means of near voxels of like value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from voxelrt.kernels.bilateral.oracle import bilateral as oracle
from voxelrt.kernels.common.kernel import Array, Case, Kernel
from voxelrt.kernels.common.volumes import check_volume, noisy_case, positive, spatial_values


def _case(shape: tuple[int, ...], width: Any = 1.0, **rest: Any) -> Case:
    return noisy_case(shape, width, 25.0, words=[f"width{width}"], allowed=1e-5, **rest)


KERNEL = Kernel(
    name="bilateral",
    oracle=oracle,
    cases=(
        _case((1, 1, 1)),
        _case((3, 5, 7)),
        _case((9, 33, 17), (0.5, 1.0, 1.5)),
        _case((2, 1, 40), (0.0, 2.0, 1.0)),
        _case((23, 31)),
        _case((2, 3, 4, 7, 18)),
        _case((7, 9, 6), axes=(1, 2, 0)),
        _case((0, 4, 5)),
        _case((32, 48, 64), bench=True),
    ),
    backends=("cpu", "triton"),
)


def bilateral(
    volume: Array,
    width: float | Sequence[float],
    spread: float,
    *,
    truncate: float = 2.5,
    backend: str = "auto",
) -> Array:
    """The bilateral filter (Tomasi and Manduchi, ICCV 1998).

    The weight of a voxel falls with its distance and with its difference in value, both as a Gaussian. The window ends
    at the volume's faces.

    Parameters
    ----------
    volume : (Y, X), (Z, Y, X), (C, Z, Y, X) or (N, C, Z, Y, X), finite; each volume on its own, in float32.
    width : of the Gaussian of distances in voxels, one or (z, y, x); 0 leaves an axis out.
    spread : of the Gaussian of differences, in the image's units.
    truncate : where the window ends, in widths, rounded up to whole voxels (at most 32).
    backend : see ``Kernel``.

    Returns
    -------
    volume : the same shape, float32.

    Raises
    ------
    UsageError : an option out of range.
    ShapeError : other axes.
    """
    check_volume(volume, "bilateral")
    result: Array = KERNEL(
        volume,
        spatial_values(width, "width"),
        positive(spread, "spread"),
        truncate=positive(truncate, "truncate"),
        backend=backend,
    )
    return result
