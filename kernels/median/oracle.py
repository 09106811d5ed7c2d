"""The median of every voxel's window."""

from __future__ import annotations

import numpy as np

from voxelrt.kernels.common.kernel import Array
from voxelrt.kernels.common.volumes import each_volume, radii
from voxelrt.kernels.common.windows import Triple


def median(volume: Array, *, radius: Triple = 1) -> Array:
    found = radii(radius, volume, "radius")

    def one(v: Array) -> Array:
        padded = np.pad(v, [(r, r) for r in found], mode="edge")
        windows = np.lib.stride_tricks.sliding_window_view(padded, [2 * r + 1 for r in found])
        return np.asarray(np.median(windows.reshape(*v.shape, -1), axis=-1))

    return each_volume(one, volume)
