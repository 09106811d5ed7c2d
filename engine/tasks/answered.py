"""Answered: what a task made of a study; and what the tasks share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as made_by
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from voxelrt.io.fields import Field
from voxelrt.io.orientation import reorient
from voxelrt.models.recipe_schema import Recipe
from voxelrt.preprocess.grid import GridMap
from voxelrt.preprocess.spatial import sample_positions
from voxelrt.volume import Volume

Array = NDArray[Any]
DEMONSTRATION = "weights: demonstration: nobody trained them for this; the numbers say nothing of a patient"


@dataclass(frozen=True, eq=False)
class Answered:
    """What a task made of a study.

    Parameters
    ----------
    details : as JSON, for programs.
    scores : class -> probability, of what has classes.
    lines : for people.
    maps : name -> volume on the study's grid; the first is what ``-o`` writes.
    field : of a registration.
    draw : title, caption -> the picture; None where there is nothing to draw.
    """

    details: Mapping[str, Any]
    scores: Mapping[str, float] = made_by(default_factory=dict)
    lines: Sequence[str] = ()
    maps: Mapping[str, Volume] = made_by(default_factory=dict)
    field: Field | None = None
    draw: Callable[[str, str], Pillow.Image] | None = None


def class_names(recipe: Recipe, count: int) -> list[str]:
    """The recipe's name of each class: of value k for class k; of a single score the first label that is not 0."""
    names = {label.value: label.name for label in recipe.output.labels}
    if count == 1:
        return [next((name for value, name in names.items() if value != 0), names.get(0, "class 0"))]
    return [names.get(k, f"class {k}") for k in range(count)]


def activated(logits: Array, activation: str, axis: int) -> Array:
    """Probabilities of logits, in float64."""
    values = np.asarray(logits, np.float64)
    if activation == "sigmoid":
        made: Array = 0.5 * (1 + np.tanh(values / 2))  # does not overflow
        return made
    if activation == "softmax":
        raised = np.exp(values - values.max(axis=axis, keepdims=True))
        summed: Array = raised / raised.sum(axis=axis, keepdims=True)
        return summed
    return values


def network_affine(study: Volume, way: GridMap) -> NDArray[np.float64]:
    """The affine of the network's grid: its voxel (x, y, z) to the study's world in mm."""
    turned = study if way.turn is None else reorient(study, way.grid.orientation)[0]
    to_source = np.eye(4)
    for axis, one in zip((2, 1, 0), way.axes, strict=True):
        at = sample_positions(one.source, one.resized, way.grid.sampling)
        step = float(at[1] - at[0]) if one.resized > 1 else one.source / one.resized
        to_source[axis, axis] = step
        to_source[axis, 3] = float(at[0]) + one.begin * step
    made: NDArray[np.float64] = turned.affine @ to_source
    return made


def on_study(array: Array, way: GridMap, study: Volume, *, outside: float | None = None) -> Volume:
    """A map (C, Z, Y, X) on the network's grid as a volume on the study's; ``outside`` is for what was cropped away."""
    made = np.empty((array.shape[0], *way.turned_zyx), np.float32)
    for planes, slab in way.backward(array):
        made[:, planes] = slab
    if outside is not None:
        for axis, seen in enumerate(way.seen(), start=1):
            unseen = np.ones(made.shape[axis], bool)
            unseen[seen] = False
            if unseen.any():
                made[(slice(None),) * axis + (unseen,)] = outside
    return study.with_array(np.ascontiguousarray(way.turn_back(made)))
