"""Perona and Malik's diffusion in float64."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from voxelrt.kernels.common.kernel import Array
from voxelrt.kernels.common.volumes import each_volume


def anisotropic_diffusion(
    volume: Array,
    *,
    conductance: float = 1.0,
    step: float = 0.0625,
    iterations: int = 5,
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
) -> Array:
    def shifted(v: Array, *moves: int) -> Array:
        padded = np.pad(v, 1, mode="edge")
        return padded[tuple(slice(1 + m, 1 + m + n) for m, n in zip(moves, v.shape, strict=True))]

    unit = np.eye(3, dtype=int)

    def slope(v: Array, axis: int) -> Array:
        return (shifted(v, *unit[axis]) - shifted(v, *-unit[axis])) / (2 * spacing[axis])

    def corner_slope(v: Array, axis: int, other: int, side: int) -> Array:
        """The slope along `other` at the next voxel along `axis`."""
        up, down = side * unit[axis] + unit[other], side * unit[axis] - unit[other]
        return (shifted(v, *up) - shifted(v, *down)) / (2 * spacing[other])

    def one(v: Array) -> Array:
        for _ in range(iterations):
            width = 2 * conductance**2 * np.mean(sum(slope(v, axis) ** 2 for axis in range(3)))
            if width == 0:
                break
            change = np.zeros_like(v)
            for axis in range(3):
                for side in (1, -1):
                    along = (shifted(v, *side * unit[axis]) - v) / spacing[axis]
                    squared = along**2
                    for other in range(3):
                        if other != axis:
                            squared = squared + ((slope(v, other) + corner_slope(v, axis, other, side)) / 2) ** 2
                    change += along * np.exp(-squared / width)
            v = v + step * change
        return v

    return each_volume(one, volume)
