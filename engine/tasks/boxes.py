"""What a detector's outputs mean: boxes with scores and classes on the network's grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxelrt.errors import ModelError
from voxelrt.models.recipe_schema import Output
from voxelrt.models.recipe_tables import Boxes
from voxelrt.tasks.answered import activated

Floats = NDArray[np.float32]
MOST_BEFORE = 10_000  # boxes that are looked at; suppression compares pairs


@dataclass(frozen=True, eq=False)
class Found:
    """Boxes.

    Parameters
    ----------
    boxes : (K, 6) float32, z0 y0 x0 z1 y1 x1 in voxels of the network's grid; whole numbers are centres of voxels.
    scores : (K,) float32.
    classes : (K,) int64, the label's value.
    """

    boxes: Floats
    scores: Floats
    classes: NDArray[np.int64]

    def moved(self, by_zyx: Floats) -> Found:
        """Moved by so many voxels."""
        return Found(self.boxes + np.concatenate([by_zyx, by_zyx])[None], self.scores, self.classes)

    @staticmethod
    def joined(parts: Sequence[Found]) -> Found:
        """All boxes of several."""
        return Found(
            np.concatenate([p.boxes for p in parts]),
            np.concatenate([p.scores for p in parts]),
            np.concatenate([p.classes for p in parts]),
        )


def decode(answers: Mapping[str, Any], output: Output, threshold: float) -> Found:
    """The boxes in a network's answers whose score exceeds the threshold, at most 10 000, the best.

    Raises
    ------
    ModelError : the arrays do not fit the recipe's form.
    """
    how = output.boxes
    assert how is not None
    values = [label.value for label in output.labels]
    first = np.asarray(answers[output.name])
    if how.form in ("distances", "points"):
        scores = first if how.form == "points" else np.asarray(answers[how.scores])
        found = _of_grid(first, scores, how, threshold, values)
    else:
        found = _of_list(first, answers, how, threshold, values)
    finite = np.isfinite(found.boxes).all(axis=1) & np.isfinite(found.scores)
    order = np.argsort(-found.scores[finite], kind="stable")[:MOST_BEFORE]
    return Found(found.boxes[finite][order], found.scores[finite][order], found.classes[finite][order])


def _of_list(first: Any, answers: Mapping[str, Any], how: Boxes, threshold: float, values: list[int]) -> Found:
    boxes = first.reshape(-1, 6).astype(np.float32) if first.size % 6 == 0 else None
    scores = np.asarray(answers[how.scores])
    if boxes is None or scores.size % max(1, len(boxes)) or (len(boxes) == 0) != (scores.size == 0):
        raise ModelError(f"{len(first.ravel())} numbers of boxes and {scores.size} scores are no boxes (K, 6)")
    scores = scores.reshape(len(boxes), -1) if len(boxes) else np.zeros((0, 1))
    if how.form == "centre-size":
        boxes = np.concatenate([boxes[:, :3] - boxes[:, 3:] / 2, boxes[:, :3] + boxes[:, 3:] / 2], axis=1)
    chances = activated(scores, how.activation, 1)
    which, kind = np.nonzero(chances > threshold)
    of_class = kind.astype(np.int64)
    if how.classes:
        given = np.asarray(answers[how.classes]).reshape(-1)
        if given.shape != (len(boxes),):
            raise ModelError(f"{given.size} classes for {len(boxes)} boxes")
        of_class = given[which].astype(np.int64)
        return Found(boxes[which], chances[which, kind].astype(np.float32), of_class)
    return Found(boxes[which], chances[which, kind].astype(np.float32), _values(of_class, values))


def _of_grid(first: Any, scores: Any, how: Boxes, threshold: float, values: list[int]) -> Found:
    if scores.ndim != 5 or scores.shape[0] != 1 or (how.form == "distances" and first.shape[1:2] != (6,)):
        raise ModelError(f"scores come as (1, classes, Z, Y, X) and distances as (1, 6, Z, Y, X), not {scores.shape}")
    if how.form == "distances" and first.shape[2:] != scores.shape[2:]:
        raise ModelError(f"distances of a grid {first.shape[2:]} and scores of {scores.shape[2:]}")
    chances = activated(scores[0], how.activation, 0).astype(np.float32)
    wanted = chances > threshold
    if how.form == "points":
        wanted &= _peaks(chances)
    kind, z, y, x = np.nonzero(wanted)
    stride = np.array(how.stride * 3 if len(how.stride) == 1 else how.stride, np.float32)
    # The centre of a coarse voxel, in fine ones: edges lie on edges.
    centre = np.stack([z, y, x], axis=1).astype(np.float32) * stride + (stride - 1) / 2
    reach = np.full((len(centre), 6), 0.5, np.float32) * np.concatenate([stride, stride])
    if how.form == "distances":
        reach = first[0, :, z, y, x].astype(np.float32)
    boxes = np.concatenate([centre - reach[:, :3], centre + reach[:, 3:]], axis=1).astype(np.float32)
    return Found(boxes, chances[kind, z, y, x], _values(kind.astype(np.int64), values))


def _peaks(chances: NDArray[Any]) -> NDArray[np.bool_]:
    """Whether a voxel of (C, Z, Y, X) is not below any of its 26 neighbours; of a plateau the first in order."""
    padded = np.pad(chances, [(0, 0), (1, 1), (1, 1), (1, 1)], constant_values=-np.inf)
    peak = np.ones(chances.shape, bool)
    z, y, x = chances.shape[1:]
    for number in range(27):
        dz, dy, dx = number // 9, number // 3 % 3, number % 3
        if number == 13:
            continue
        other = padded[:, dz : dz + z, dy : dy + y, dx : dx + x]
        peak &= chances > other if number < 13 else chances >= other
    return peak


def _values(kinds: NDArray[np.int64], values: list[int]) -> NDArray[np.int64]:
    """Class k is the recipe's k-th label."""
    table = np.array([values[k] if k < len(values) else k for k in range(int(kinds.max(initial=-1)) + 1)], np.int64)
    made: NDArray[np.int64] = table[kinds] if kinds.size else kinds
    return made
