"""nms3d on the native library."""

from __future__ import annotations

import numpy as np

from voxelrt.kernels.common import native
from voxelrt.kernels.common.kernel import Array


def run(boxes: Array, scores: Array, classes: Array | None = None, *, overlap: float = 0.5) -> Array:
    order = np.argsort(-scores, kind="stable")
    if len(boxes) == 0:
        return order
    faces = np.ascontiguousarray(boxes[order].T)
    of_class = np.zeros(len(boxes), np.int64) if classes is None else np.ascontiguousarray(classes[order], np.int64)
    kept = native.aligned_empty((len(boxes),), np.uint8)
    native.run_kernel("nms3d", [faces, of_class], [kept], overlap=overlap)
    places: Array = order[kept != 0]
    return places
