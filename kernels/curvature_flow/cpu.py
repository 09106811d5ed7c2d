"""curvature_flow on the native library."""

from __future__ import annotations

from collections.abc import Sequence

from voxelrt.kernels.common.kernel import Array
from voxelrt.kernels.common.volumes import filtered, stable_scheme


def run(
    volume: Array, *, step: float = 0.0625, iterations: int = 5, spacing: Sequence[float] = (1.0, 1.0, 1.0)
) -> Array:
    scale = stable_scheme(step, iterations, spacing)
    return filtered("curvature_flow", volume, scale=scale, step=step, iterations=iterations)
