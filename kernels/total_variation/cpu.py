"""total_variation on the native library."""

from __future__ import annotations

from voxelrt.errors import UsageError
from voxelrt.kernels.common.kernel import Array
from voxelrt.kernels.common.volumes import filtered


def run(volume: Array, weight: float, *, tolerance: float = 2e-4, iterations: int = 200) -> Array:
    if iterations < 1 or not tolerance >= 0:
        raise UsageError(f"iterations {iterations} and tolerance {tolerance:g}: at least 1, and not below 0")
    return filtered(
        "total_variation",
        volume,
        weight=weight,
        tolerance=tolerance,
        iterations=iterations,
        axes=2 if volume.ndim == 2 else 3,
    )
