"""The bilateral filter in float64, one offset of the window after the other."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from voxelrt.kernels.common.kernel import Array
from voxelrt.kernels.common.volumes import each_volume, spatial_values


def bilateral(volume: Array, width: float | Sequence[float], spread: float, *, truncate: float = 2.5) -> Array:
    widths = spatial_values(width, "width")
    if volume.ndim == 2:
        widths = (0.0, *widths[1:])
    reach = [int(np.ceil(truncate * w)) for w in widths]

    def one(v: Array) -> Array:
        total, weights = np.zeros_like(v), np.zeros_like(v)
        for offset in itertools.product(*(range(-r, r + 1) for r in reach)):
            if any(abs(o) >= n for o, n in zip(offset, v.shape, strict=True)):
                continue
            here = tuple(slice(max(0, -o), n - max(0, o)) for o, n in zip(offset, v.shape, strict=True))
            there = tuple(slice(s.start + o, s.stop + o) for s, o in zip(here, offset, strict=True))
            distance = sum((o / w) ** 2 for o, w in zip(offset, widths, strict=True) if w > 0)
            weight = np.exp(-0.5 * (distance + ((v[here] - v[there]) / spread) ** 2))
            total[here] += weight * v[there]
            weights[here] += weight
        return np.asarray(total / weights)

    return each_volume(one, volume)
