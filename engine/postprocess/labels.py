"""From a network's answer to a label volume on the study's own grid."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxelrt.errors import ModelError
from voxelrt.models.recipe_schema import Output
from voxelrt.postprocess.components import largest_component
from voxelrt.preprocess.grid import GridMap
from voxelrt.volume import Volume

Array = NDArray[Any]

DEFAULT_THRESHOLD = {"probability": 0.5, "logits": 0.0}


def to_labels(answer: Array, output: Output, way: GridMap, study: Volume) -> Volume:
    """Labels on the study's grid.

    Parameters
    ----------
    answer
        (C, *network_zyx) on the network's grid. One channel of ``probability`` or ``logits`` is cut at the threshold
        (default 0.5 and 0) and becomes the recipe's first label that is not 0. Of several channels the largest wins:
        channel k is label value k; with a threshold channel k is the k-th label and must exceed it. ``labels`` holds
        the values themselves.
    output
        What the recipe says of it.
    way
        How the study came to the network's grid.
    study
        (C, Z, Y, X), gives the grid.

    Returns
    -------
    labels : (1, Z, Y, X) uint8, or uint16 where a value needs it; with the recipe's names.

    Raises
    ------
    ModelError : the answer has other channels than the recipe has labels for.
    """
    values = label_values(answer, output)
    dtype = np.uint8 if int(values.max(initial=0)) <= 255 else np.uint16
    result = np.zeros((1, *way.turned_zyx), dtype)
    if output.kind == "labels" or output.threshold_on == "network-grid":
        decided = answer[:1] if output.kind == "labels" else decide(answer, output, values)[None]
        for planes, slab in way.backward(decided, interpolation="nearest"):
            result[:, planes] = np.rint(slab)
    else:
        # Cutting the interpolated probability gives a smooth surface; interpolating the cut one would give steps.
        zeros_outside = output.kind == "probability" and way.grid.padding == "zeros"
        for planes, slab in way.backward(answer, zeros_outside=zeros_outside):
            result[0, planes] = decide(slab, output, values)
    _clear_unseen(result, way)
    if output.largest_component:
        _keep_largest(result[0])
    names = {label.value: label.name for label in output.labels}
    return study.with_array(np.ascontiguousarray(way.turn_back(result)), names)


def label_values(answer: Array, output: Output) -> NDArray[np.int64]:
    """The label value of each channel; of one channel, of what is over the threshold."""
    listed = np.array([label.value for label in output.labels], np.int64)
    channels = answer.shape[0]
    if output.kind == "labels":
        return np.append(listed, int(answer.max()))
    if channels == 1:
        return np.array([next((int(v) for v in listed if v != 0), 1)])
    if output.threshold is None:
        return np.arange(channels)
    if listed.size != channels:
        raise ModelError(f"the network gives {channels} channels and the recipe names {listed.size} labels for them")
    return listed


def decide(scores: Array, output: Output, values: NDArray[np.int64]) -> Array:
    """The label value of every voxel, from scores (C, ...)."""
    if scores.shape[0] == 1:
        threshold = DEFAULT_THRESHOLD[output.kind] if output.threshold is None else output.threshold
        chosen: Array = np.where(scores[0] > threshold, values[0], 0)
        return chosen
    best: Array = values[np.argmax(scores, axis=0)]
    return best if output.threshold is None else np.where(scores.max(axis=0) > output.threshold, best, 0)


def _clear_unseen(result: Array, way: GridMap) -> None:
    """What was cropped away has no label."""
    for axis, seen in enumerate(way.seen(), start=1):
        kept = np.zeros(result.shape[axis], bool)
        kept[seen] = True
        if not kept.all():
            result[(slice(None),) * axis + (~kept,)] = 0


def _keep_largest(labels: Array) -> None:
    for value in np.unique(labels):
        if value != 0:
            mask = labels == value
            labels[mask & ~largest_component(mask)] = 0
