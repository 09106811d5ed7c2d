"""The real input that a recipe's plan is measured on: its demo study, where the cache folder has it."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from voxelrt.models.fetch import cached_demo
from voxelrt.models.recipe_schema import Recipe
from voxelrt.plan.plan import Plan


def recipe_sample(recipe: Recipe | None, plan: Plan) -> list[dict[str, NDArray[Any]]]:
    """The demo study as the network's input; empty without a demo, or where it was not fetched yet."""
    study = cached_demo(recipe) if recipe is not None else None
    if recipe is None or study is None:
        return []
    from voxelrt.pipeline import prepare  # compile is imported by the pipeline
    from voxelrt.request import Request

    ready = prepare(plan, Request(study), lambda stage, step, steps: None)
    return [{recipe.input.name: ready.tensor}]
