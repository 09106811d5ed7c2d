"""anisotropic_diffusion on the native library."""

from __future__ import annotations

from collections.abc import Sequence

from voxelrt.kernels.common.kernel import Array
from voxelrt.kernels.common.volumes import filtered, positive, stable_scheme


def run(
    volume: Array,
    *,
    conductance: float = 1.0,
    step: float = 0.0625,
    iterations: int = 5,
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
) -> Array:
    scale = stable_scheme(step, iterations, spacing)
    conductance = positive(conductance, "conductance")
    return filtered(
        "anisotropic_diffusion", volume, scale=scale, conductance=conductance, step=step, iterations=iterations
    )
