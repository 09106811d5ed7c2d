"""Curvature flow in float64."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from voxelrt.kernels.common.kernel import Array
from voxelrt.kernels.common.volumes import each_volume


def curvature_flow(
    volume: Array, *, step: float = 0.0625, iterations: int = 5, spacing: Sequence[float] = (1.0, 1.0, 1.0)
) -> Array:
    def shifted(v: Array, moves: Array) -> Array:
        padded = np.pad(v, 1, mode="edge")
        return padded[tuple(slice(1 + m, 1 + m + n) for m, n in zip(moves, v.shape, strict=True))]

    unit = np.eye(3, dtype=int)

    def one(v: Array) -> Array:
        for _ in range(iterations):
            first, second = np.empty((3, *v.shape)), np.empty((3, *v.shape))
            for i in range(3):
                up, down = shifted(v, unit[i]), shifted(v, -unit[i])
                first[i] = (up - down) / (2 * spacing[i])
                second[i] = (up - 2 * v + down) / spacing[i] ** 2
            total = np.zeros_like(v)
            for i in range(3):
                total += first[i] ** 2 * (second.sum(axis=0) - second[i])
                for j in range(i + 1, 3):
                    a, b = unit[i] + unit[j], unit[i] - unit[j]
                    cross = shifted(v, a) - shifted(v, b) - shifted(v, -b) + shifted(v, -a)
                    total -= 2 * first[i] * first[j] * cross / (4 * spacing[i] * spacing[j])
            squared = (first**2).sum(axis=0)
            v = v + step * np.where(squared < 1e-9, 0, total / np.maximum(squared, 1e-9))
        return v

    return each_volume(one, volume)
