"""nms3d in float64: the best box stays, what overlaps it goes, and again with what is left."""

from __future__ import annotations

import numpy as np

from voxelrt.kernels.common.kernel import Array


def nms3d(boxes: Array, scores: Array, classes: Array | None = None, *, overlap: float = 0.5) -> Array:
    of_class = np.zeros(len(boxes), np.int64) if classes is None else classes
    left = sorted(range(len(boxes)), key=lambda i: (-float(scores[i]), i))
    kept = []
    while left:
        best = left.pop(0)
        kept.append(best)
        left = [i for i in left if of_class[i] != of_class[best] or not _over(boxes[i], boxes[best], overlap)]
    return np.array(kept, np.int64)


def _over(one: Array, other: Array, overlap: float) -> bool:
    common, first, second = 1.0, 1.0, 1.0
    for axis in range(3):
        a0, a1, b0, b1 = (float(box[i]) for box in (one, other) for i in (axis, axis + 3))
        common *= max(0.0, min(a1, b1) - max(a0, b0))
        first *= max(0.0, a1 - a0)
        second *= max(0.0, b1 - b0)
    return common > overlap * (first + second - common)
