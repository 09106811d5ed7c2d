"""Non-local means in float64: every pair of voxels of the search window, every voxel of the patches."""

from __future__ import annotations

import itertools

import numpy as np

from voxelrt.kernels.common.kernel import Array
from voxelrt.kernels.common.volumes import each_volume, radii
from voxelrt.kernels.common.windows import Triple


def non_local_means(
    volume: Array,
    sigma: float,
    *,
    search: Triple = 5,
    patch: Triple = 1,
    strength: float = 1.0,
    noise: str = "gaussian",
    subtract_noise: bool = False,
) -> Array:
    far, near = radii(search, volume, "search"), radii(patch, volume, "patch")
    width = (strength * sigma) ** 2
    bias = 2 * sigma**2 if subtract_noise else 0.0

    def one(v: Array) -> Array:
        padded = np.pad(v, [(r, r) for r in near], mode="reflect")
        total, weights = np.zeros_like(v), np.zeros_like(v)
        for offset in itertools.product(*(range(-r, r + 1) for r in far)):
            if any(abs(o) >= n for o, n in zip(offset, v.shape, strict=True)):
                continue
            here = tuple(slice(max(0, -o), n - max(0, o)) for o, n in zip(offset, v.shape, strict=True))
            there = tuple(slice(s.start + o, s.stop + o) for s, o in zip(here, offset, strict=True))
            squared = np.zeros_like(v[here])
            for step in itertools.product(*(range(2 * r + 1) for r in near)):
                a = padded[tuple(slice(s.start + p, s.stop + p) for s, p in zip(here, step, strict=True))]
                b = padded[tuple(slice(s.start + p, s.stop + p) for s, p in zip(there, step, strict=True))]
                squared += (a - b) ** 2
            mean = squared / np.prod([2 * r + 1 for r in near])
            weight = np.exp(-np.maximum(mean - bias, 0) / width)
            total[here] += weight * (v[there] ** 2 if noise == "rician" else v[there])
            weights[here] += weight
        if noise == "rician":
            return np.asarray(np.sqrt(np.maximum(total / weights - 2 * sigma**2, 0)))
        return np.asarray(total / weights)

    return each_volume(one, volume)
