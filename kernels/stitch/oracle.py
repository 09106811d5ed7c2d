"""stitch in float64."""

from __future__ import annotations

import numpy as np

from voxelrt.kernels.common.kernel import Array


def stitch(sums: Array, logits: Array, weights: Array, *, share: float = 1.0, half: bool = False) -> Array:
    total = np.array(sums, np.float64)
    for z in range(logits.shape[1]):
        for c in range(logits.shape[0]):
            total[z, c] += logits[c, z].astype(np.float64) * share * weights[z]
    return total.astype(np.float16).astype(np.float64) if half else total
