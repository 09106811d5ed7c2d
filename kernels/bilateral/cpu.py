"""bilateral on the native library."""

from __future__ import annotations

import math
from collections.abc import Sequence

from voxelrt.kernels.common.kernel import Array
from voxelrt.kernels.common.volumes import filtered, spatial_values


def run(volume: Array, width: float | Sequence[float], spread: float, *, truncate: float = 2.5) -> Array:
    widths = spatial_values(width, "width")
    if volume.ndim == 2:
        widths = (0.0, *widths[1:])
    half = math.log2(math.e) / 2
    return filtered(
        "bilateral",
        volume,
        radius=[math.ceil(truncate * w) for w in widths],
        distance=[half / w**2 if w > 0 else 0.0 for w in widths],
        slope=half / spread**2,
    )
