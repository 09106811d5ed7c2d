"""The network's answer to a whole study: all of it at once, or in sliding windows, as the recipe says."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from voxelrt.backends.native import CancelFlag
from voxelrt.plan.plan import Plan
from voxelrt.preprocess.layout import from_layout
from voxelrt.sliding import sliding_answer

if TYPE_CHECKING:
    from voxelrt.request import Ready

Array = NDArray[Any]
Tell = Callable[[str, int, int], None]


def network_answer(plan: Plan, ready: Ready, tell: Tell, cancel: CancelFlag | None) -> Array:
    """(C, Z, Y, X) on the network's grid."""
    recipe = ready.recipe
    if recipe.input.window == "sliding":
        volume = from_layout(ready.tensor, recipe.input.layout)
        return sliding_answer(plan, recipe, volume, tell, cancel)
    name, output = recipe.input.name, recipe.output
    samples = [ready.tensor] if "Z" in recipe.input.layout else np.split(ready.tensor, len(ready.tensor))
    answers = []
    for index, sample in enumerate(samples):
        step = partial(_step, tell, index, len(samples))
        answers.append(plan.run({name: sample}, cancel=cancel, progress=step)[output.name])
    joined: Array = answers[0] if len(answers) == 1 else np.concatenate(answers, axis=output.layout.index("N"))
    return from_layout(joined, output.layout)


def _step(tell: Tell, sample: int, samples: int, step: int, steps: int) -> None:
    tell("run", sample * steps + step, samples * steps)
