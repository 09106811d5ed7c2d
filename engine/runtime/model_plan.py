"""The plan for a model and a study: the shape comes from the recipe, else the network, else the study."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from voxelrt.models.recipe_schema import Recipe
from voxelrt.plan.plan import Plan
from voxelrt.preprocess.contract import recipe_shapes
from voxelrt.preprocess.grid import map_grid
from voxelrt.preprocess.layout import layout_shape, zyx_of
from voxelrt.preprocess.study import ANY, Pick, Study, open_study
from voxelrt.runtime.plan_cache import Shapes, cached_plan, identify

if TYPE_CHECKING:
    import onnx_ir as ir

Progress = Callable[[str, int, int], None]


def plan_for_study(
    model: Any,
    study: Study,
    *,
    force: bool = False,
    shapes: Shapes | None = None,
    precision: str = "fp32",
    fallback: str = "onnxruntime",
    threads: int | None = None,
    pick: Pick = ANY,
    tell: Progress,
    say: Callable[[str], None] | None = None,
) -> Plan:
    """The compiled plan, from the cache folder where it is there.

    Parameters
    ----------
    model
        What ``voxelrt.load`` takes.
    study
        Is only read where neither the recipe nor the network fixes the shape.
    force
        As for ``voxelrt.predict``.
    shapes, precision, fallback, threads
        As for ``voxelrt.compile``.
    pick
        Which part of a DICOM study.
    tell
        Called with ("compile", step, steps).
    say
        Called with a line of text before each long step.

    Raises
    ------
    VoxelRTError : as ``voxelrt.load``, ``voxelrt.compile`` and the readers.
    """
    tell("compile", 0, 1)
    identity = identify(model)
    if shapes is None and identity is not None and identity.recipe is not None:
        shapes = recipe_shapes(identity.recipe)
    if shapes is None:
        from voxelrt.models.load import load  # what the recipe leaves open, only the network itself can say

        loaded = load(model, progress=say)
        model = loaded if identity is None else model
        if loaded.recipe is not None:
            shapes = recipe_shapes(loaded.recipe) or _shape_of_study(loaded.graph, loaded.recipe, study, force, pick)
    plan = cached_plan(model, shapes=shapes, precision=precision, fallback=fallback, threads=threads, progress=say)
    tell("compile", 1, 1)
    return plan


def input_dims(graph: ir.Model, name: str) -> tuple[int | None, ...]:
    """The shape of a graph's input; None where it is open."""
    for value in graph.graph.inputs:
        if value.name == name and value.shape is not None:
            return tuple(d if isinstance(d, int) else None for d in value.shape)
    return ()


def _shape_of_study(
    graph: ir.Model, recipe: Recipe, study: Study, force: bool, pick: Pick
) -> dict[str, tuple[int, ...]] | None:
    dims = input_dims(graph, recipe.input.name)
    if (dims and None not in dims) or recipe.task == "registration":
        return None
    layout = recipe.input.layout
    _, height, width = zyx_of(dims, layout)
    if recipe.input.window == "sliding" and "Z" not in layout and height is not None and width is not None:
        shape = layout_shape(layout, len(recipe.input.channels), (None, height, width))
        return {recipe.input.name: tuple(size for size in shape if size is not None)}
    volume = open_study(study, recipe, force=force, pick=pick).volume
    way = map_grid(volume, recipe.input.grid, zyx_of(dims, layout))
    shape = layout_shape(layout, len(recipe.input.channels), way.network_zyx)
    return {recipe.input.name: tuple(size for size in shape if size is not None)}
