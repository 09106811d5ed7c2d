"""anisotropic_diffusion: smoothing that stops at edges."""

from __future__ import annotations

from collections.abc import Sequence

from voxelrt.kernels.anisotropic_diffusion.oracle import anisotropic_diffusion as oracle
from voxelrt.kernels.common.kernel import Array, Kernel
from voxelrt.kernels.common.volumes import check_volume, noisy_case

KERNEL = Kernel(
    name="anisotropic_diffusion",
    oracle=oracle,
    cases=(
        noisy_case((1, 1, 1)),
        noisy_case((3, 5, 7)),
        noisy_case((9, 33, 17), conductance=2.0, spacing=(2.5, 1.5, 1.0), iterations=3),
        noisy_case((2, 1, 40), iterations=4),
        noisy_case((23, 31)),
        noisy_case((2, 3, 4, 7, 18)),
        noisy_case((7, 9, 6), axes=(1, 2, 0)),
        noisy_case((0, 4, 5)),
        noisy_case((32, 48, 64), bench=True),
    ),
    backends=("cpu", "triton"),
)


def anisotropic_diffusion(
    volume: Array,
    *,
    conductance: float = 1.0,
    step: float = 0.0625,
    iterations: int = 5,
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
    backend: str = "auto",
) -> Array:
    """Perona and Malik's diffusion (IEEE PAMI 12:629, 1990) with full gradients at the faces between voxels.

    The conductance is ``exp(-|grad|² / (2 conductance² mean))`` with the mean of squared gradients of the step before:
    the scheme of ITK's GradientAnisotropicDiffusionImageFilter.

    Parameters
    ----------
    volume : (Y, X), (Z, Y, X), (C, Z, Y, X) or (N, C, Z, Y, X), finite; each volume on its own, in float32.
    conductance : how strong a gradient may be before it is kept, in root mean squares.
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
    check_volume(volume, "anisotropic_diffusion")
    result: Array = KERNEL(
        volume, conductance=conductance, step=step, iterations=iterations, spacing=spacing, backend=backend
    )
    return result
