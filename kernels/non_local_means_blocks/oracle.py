"""Block-wise non-local means in float64: every block, every partner of its window."""

from __future__ import annotations

import itertools

import numpy as np

from voxelrt.kernels.common.kernel import Array
from voxelrt.kernels.common.volumes import each_volume, radii
from voxelrt.kernels.common.windows import Triple

LEAST = 2.0**-100  # weights below it are none: float32 could not divide by them


def non_local_means_blocks(
    volume: Array,
    sigma: float,
    *,
    search: Triple = 5,
    patch: Triple = 1,
    strength: float = 1.0,
    noise: str = "gaussian",
    like_means: float = 0.95,
    like_variances: float = 0.5,
    own: bool = True,
) -> Array:
    far, near = radii(search, volume, "search"), radii(patch, volume, "patch")
    width = (strength * sigma) ** 2
    rician = noise == "rician"

    def one(v: Array) -> Array:
        padded = np.pad(v, [(r, r) for r in near], mode="reflect")
        patches = np.lib.stride_tricks.sliding_window_view(padded, [2 * r + 1 for r in near])
        level = 0.0 if rician else float(v.min())
        means, variances = patches.mean(axis=(3, 4, 5)) - level, patches.var(axis=(3, 4, 5))
        total, count = np.zeros_like(padded), np.zeros_like(padded)
        for centre in itertools.product(*(range(0, n, 2 if r else 1) for n, r in zip(v.shape, near, strict=True))):
            window = tuple(
                slice(max(0, c - r), min(n, c + r + 1)) for c, r, n in zip(centre, far, v.shape, strict=True)
            )
            found = patches[window].reshape(-1, *patches.shape[3:])
            weights = np.exp(-((found - patches[centre]) ** 2).mean(axis=(1, 2, 3)) / width)
            like = _like(means[window], means[centre], like_means) & _like(
                variances[window], variances[centre], like_variances
            )
            itself = tuple(c - w.start for c, w in zip(centre, window, strict=True))
            like[itself] = False
            weights = np.where(like.ravel() & (weights >= LEAST), weights, 0.0)
            most = float(weights.max())
            weights[np.ravel_multi_index(itself, like.shape)] = (most if own else 0.0) if most > 0 else 1.0
            values = found**2 if rician else found
            answer = np.tensordot(weights, values, 1) / weights.sum()
            if rician:
                answer = np.sqrt(np.maximum(answer - 2 * sigma**2, 0.0))
            block = tuple(slice(c, c + 2 * r + 1) for c, r in zip(centre, near, strict=True))
            total[block] += answer
            count[block] += 1
        inside = tuple(slice(r, r + n) for r, n in zip(near, v.shape, strict=True))
        return np.asarray(total[inside] / count[inside])

    return each_volume(one, volume)


def _like(others: Array, own: float, share: float) -> Array:
    """Whether values are within a share of one's own, which is above 0; nothing is like what is not."""
    return np.asarray((others > share * own) & (share * others < own) & (own > 0))
