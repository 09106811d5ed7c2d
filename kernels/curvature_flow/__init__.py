"""curvature_flow: level surfaces that shrink where they bend."""

from __future__ import annotations

from collections.abc import Sequence

from voxelrt.kernels.common.kernel import Array, Kernel
from voxelrt.kernels.common.volumes import check_volume, noisy_case
from voxelrt.kernels.curvature_flow.oracle import curvature_flow as oracle

KERNEL = Kernel(
    name="curvature_flow",
    oracle=oracle,
    cases=(
        noisy_case((1, 1, 1)),
        noisy_case((3, 5, 7)),
        noisy_case((9, 33, 17), step=0.05, spacing=(2.5, 1.5, 1.0), iterations=3),
        noisy_case((2, 1, 40), iterations=4),
        noisy_case((23, 31)),
        noisy_case((2, 3, 4, 7, 18)),
        noisy_case((7, 9, 6), axes=(1, 2, 0)),
        noisy_case((0, 4, 5)),
        noisy_case((32, 48, 64), bench=True),
    ),
    backends=("cpu", "triton"),
)


def curvature_flow(
    volume: Array,
    *,
    step: float = 0.0625,
    iterations: int = 5,
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
    backend: str = "auto",
) -> Array:
    """Curvature flow: dI/dt = curvature |grad I| (Sethian, Level Set Methods, 1996), ITK's CurvatureFlowImageFilter.

    Parameters
    ----------
    volume : (Y, X), (Z, Y, X), (C, Z, Y, X) or (N, C, Z, Y, X), finite; each volume on its own, in float32.
    step : of time; at most a sixth of the smallest squared spacing, beyond which the scheme is unstable.
    iterations : how many steps.
    spacing : of voxels along (z, y, x), in any unit; a step's length is in its square.
    backend : see ``Kernel``.

    Returns
    -------
    volume : the same shape, float32.

    Raises
    ------
    UsageError : an option out of range.
    ShapeError : other axes.
    """
    check_volume(volume, "curvature_flow")
    result: Array = KERNEL(volume, step=step, iterations=iterations, spacing=spacing, backend=backend)
    return result
