"""nms3d: of boxes in a volume that overlap, the best one stays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from voxelrt.errors import ShapeError
from voxelrt.kernels.common.kernel import Array, Case, Kernel
from voxelrt.kernels.nms3d.oracle import nms3d as oracle


def _case(count: int, classes: int = 1, overlap: float = 0.25, equal: bool = False, bench: bool = False) -> Case:
    """Corners and volumes are whole numbers below 2²⁴, so that float32 is exact and all answers are equal."""

    def make(rng: np.random.Generator) -> tuple[Sequence[Any], Mapping[str, Any]]:
        low = rng.integers(0, 60, (count, 3))
        boxes = np.concatenate([low, low + rng.integers(0, 24, (count, 3))], axis=1).astype(np.float32)
        scores = (rng.integers(0, 4, count) if equal else rng.random(count)).astype(np.float32)
        of_class = rng.integers(0, classes, count) if classes > 1 else None
        return (boxes, scores, of_class), {"overlap": overlap}

    name = f"{count}-{classes}-{overlap:g}" + ("-equal" if equal else "")
    return Case(name, make, 0.0, 30.0 * count * count, 28.0 * count, bench)


KERNEL = Kernel(
    name="nms3d",
    oracle=oracle,
    cases=(
        _case(0),
        _case(1),
        _case(2, overlap=0.0),
        _case(37, overlap=1.0),
        _case(150, classes=3),
        _case(150, equal=True, overlap=0.5),
        _case(1000, classes=2, bench=True),
    ),
)


def nms3d(
    boxes: Array, scores: Array, classes: Array | None = None, *, overlap: float = 0.5, backend: str = "auto"
) -> Array:
    """Greedy non-maximum suppression in three dimensions.

    Parameters
    ----------
    boxes : (K, 6) float32, corners z0 y0 x0 z1 y1 x1 in any unit; a box whose corners are swapped has no volume.
    scores : (K,) float32; a NaN is worse than every number.
    classes : (K,) whole numbers; boxes of different classes leave each other alone. None: all of one class.
    overlap : a box goes where its intersection over union with a better one that stays is above this.
    backend : see ``Kernel``.

    Returns
    -------
    kept : int64 places in `boxes`, best first; of equal scores the first.

    Raises
    ------
    ShapeError : the arrays do not fit each other.
    """
    boxes, scores = np.asarray(boxes, np.float32), np.asarray(scores, np.float32)
    if boxes.ndim != 2 or boxes.shape[1] != 6 or scores.shape != boxes.shape[:1]:
        raise ShapeError(f"boxes are (K, 6) and scores (K,), not {boxes.shape} and {scores.shape}")
    if classes is not None and np.shape(classes) != scores.shape:
        raise ShapeError(f"classes are (K,), not {np.shape(classes)}")
    kept: Array = KERNEL(boxes, scores, classes, overlap=overlap, backend=backend)
    return kept
