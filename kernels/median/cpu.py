"""median on the native library."""

from __future__ import annotations

from voxelrt.kernels.common.kernel import Array
from voxelrt.kernels.common.volumes import filtered, radii
from voxelrt.kernels.common.windows import Triple


def run(volume: Array, *, radius: Triple = 1) -> Array:
    return filtered("median", volume, radius=radii(radius, volume, "radius"))
