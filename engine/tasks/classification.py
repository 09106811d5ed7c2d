"""Classification: probabilities, calibrated if the recipe has a temperature, and a heat map of where they come from."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from voxelrt.backends.native import CancelFlag
from voxelrt.errors import ModelError
from voxelrt.plan.plan import Plan
from voxelrt.postprocess.overlay import drawn_image
from voxelrt.postprocess.sheet import Column, draw_sheet, grey_column, tinted_column
from voxelrt.preprocess.grid import GridMap
from voxelrt.preprocess.layout import from_layout
from voxelrt.tasks.activation import class_activation, pooled_head
from voxelrt.tasks.answered import Answered, Array, activated, class_names, on_study
from voxelrt.tasks.occlusion import occlusion

if TYPE_CHECKING:
    from voxelrt.request import Ready

Tell = Callable[[str, int, int], None]
HEAT = "heat"


def classify(plan: Plan, ready: Ready, tell: Tell, cancel: CancelFlag | None) -> Answered:
    """Probabilities of a study; of a network of planes their mean over all planes. The heat map only if it is wanted.

    Raises
    ------
    ModelError : the answer is not (N, classes), or the recipe asks for a class activation that the network has not.
    """
    recipe, way = ready.recipe, ready.way
    if not isinstance(way, GridMap):
        raise TypeError("a classifier has no case of nnU-Net")
    wanted = ready.request.wants(HEAT)
    if not wanted:
        logits = _logits(plan, ready, tell, cancel)
        return _answered(ready, logits, {}, None)
    volume = from_layout(ready.tensor, recipe.input.layout)
    logits = _logits(plan, ready, lambda stage, step, steps: None, cancel)
    probabilities = _probabilities(ready, logits).mean(axis=0)
    chosen = int(np.argmax(probabilities))
    head = None if recipe.output.heat.method == "occlusion" else pooled_head(plan, recipe.output.name)
    if head is None and recipe.output.heat.method == "class-activation":
        raise ModelError(
            f"{recipe.name} asks for class activation maps, but the network does not end in global average pooling and "
            'one linear layer; output.heat.method = "occlusion" does not need that'
        )
    if head is not None:
        found = class_activation(plan, recipe, volume, head, chosen, tell, cancel)
        method, detail = "class-activation", {"features": head.features, "grid": list(found.shape[1:])}
    else:

        def probability(samples: Array) -> Array:
            return activated(samples / recipe.output.temperature, recipe.output.activation, 1)[:, chosen]

        found, sizes = occlusion(plan, recipe, volume, probability, tell, cancel)
        method, detail = "occlusion", sizes
    heat = on_study(found, way, ready.opened.volume, outside=0.0)
    shown = class_names(recipe, len(probabilities))[chosen]
    return _answered(ready, logits, {"heat": {"method": method, "class": shown, **detail}}, heat)


def _answered(ready: Ready, logits: Array, more: dict[str, Any], heat: Any) -> Answered:
    recipe, study = ready.recipe, ready.opened.volume
    each = _probabilities(ready, logits)
    names = class_names(recipe, each.shape[1])
    mean = each.mean(axis=0)
    scores = {name: float(value) for name, value in zip(names, mean, strict=True)}
    details: dict[str, Any] = {
        "probabilities": scores,
        "activation": recipe.output.activation,
        "temperature": recipe.output.temperature,
        **more,
    }
    if len(each) > 1:
        details["planes"] = {name: [float(v) for v in each[:, k]] for k, name in enumerate(names)}
    if heat is None:
        return Answered(details, scores)
    best = max(scores, key=lambda name: scores[name])

    def draw(title: str, caption: str) -> Any:
        image, map_ = drawn_image(ready.opened.shown), np.asarray(heat.array[0])
        at = np.unravel_index(int(np.argmax(map_)), map_.shape)
        columns: list[Column] = [grey_column("image", image), tinted_column(f"where “{best}” comes from", image, map_)]
        return draw_sheet(study, columns, at_zyx=(int(at[0]), int(at[1]), int(at[2])), title=title, caption=caption)

    return Answered(details, scores, maps={HEAT: heat}, draw=draw)


def _logits(plan: Plan, ready: Ready, tell: Tell, cancel: CancelFlag | None) -> Array:
    """(samples, classes)."""
    name, output = ready.recipe.input.name, ready.recipe.output
    planes = "Z" not in ready.recipe.input.layout
    samples = np.split(ready.tensor, len(ready.tensor)) if planes else [ready.tensor]
    rows = []
    for number, sample in enumerate(samples):
        answer = plan.run({name: sample}, cancel=cancel)[output.name]
        rows.append(np.asarray(answer).reshape(answer.shape[0], -1))
        tell("run", number + 1, len(samples))
    joined: Array = np.concatenate(rows)
    if joined.ndim != 2 or joined.shape[1] == 0:
        raise ModelError(f"{ready.recipe.name}: classes come as (N, classes), not {joined.shape}")
    return joined


def _probabilities(ready: Ready, logits: Array) -> Array:
    output = ready.recipe.output
    return activated(logits / output.temperature, output.activation, 1)
