"""Chambolle's projection in float64."""

from __future__ import annotations

import numpy as np

from voxelrt.kernels.common.kernel import Array
from voxelrt.kernels.common.volumes import each_volume


def total_variation(volume: Array, weight: float, *, tolerance: float = 2e-4, iterations: int = 200) -> Array:
    tau = 1 / (4 if volume.ndim == 2 else 6)

    def one(v: Array) -> Array:
        field = np.zeros((3, *v.shape))
        first = last = 0.0
        out = v
        for number in range(iterations):
            divergence = np.zeros_like(v)
            gradient = np.zeros_like(field)
            for axis in range(3):
                ahead = [slice(1, None) if a == axis else slice(None) for a in range(3)]
                behind = [slice(None, -1) if a == axis else slice(None) for a in range(3)]
                divergence -= field[axis]
                divergence[tuple(ahead)] += field[axis][tuple(behind)]
            out = v + divergence
            for axis in range(3):
                behind = [slice(None, -1) if a == axis else slice(None) for a in range(3)]
                gradient[axis][tuple(behind)] = np.diff(out, axis=axis)
            norm = np.sqrt((gradient**2).sum(axis=0))
            energy = float(((divergence**2).sum() + weight * norm.sum()) / v.size)
            field = (field - tau * gradient) / (1 + tau / weight * norm)
            if number == 0:
                first = energy
            elif abs(last - energy) < tolerance * first:
                break
            last = energy
        return out

    return each_volume(one, volume)
