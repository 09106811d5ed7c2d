"""What a network wants, in the words of its recipe: which recipe, which input and output, which shapes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from voxelrt.errors import ModelError, UsageError
from voxelrt.models.composite import parse_composite
from voxelrt.models.nnunet_settings import NnunetSettings, settings_from_json
from voxelrt.models.recipe import parse_recipe
from voxelrt.models.recipe_schema import Channel, Grid, Input, Label, Output, Recipe, Source
from voxelrt.plan.plan import Plan
from voxelrt.plan.schedule import Io
from voxelrt.preprocess.layout import layout_shape

PLAIN = "plain"

EXAMPLE = """
  name = "my-network"
  task = "segmentation"
  [source]
  path = "my-network.onnx"
  [input]
  name = "{input}"
  [[input.channels]]
  name = "t1"
  [input.grid]
  spacing_mm_xyz = [1.0, 1.0, 1.0]
  fit = "crop-or-pad"
  [input.intensity]
  scaling = "z-score"
  [output]
  name = "{output}"
  kind = "logits"
  [[output.labels]]
  value = 1
  name = "lesion"
"""


def recipe_of(plan: Plan) -> Recipe:
    """The recipe inside a plan; without one, a plain one for a network that takes an image as it is.

    Raises
    ------
    UsageError : there is no recipe, and the network does not take and give one image.
    ModelError : the recipe names inputs or outputs that the network does not have.
    """
    if plan.info.model_settings is not None:
        single = nnunet_recipe(settings_from_json(plan.info.model_settings, f"the settings of {plan.info.name}"))
        if not plan.info.recipe:
            return single
        composite = parse_composite(plan.info.recipe, where=f"the composite of {plan.info.name}")
        output = replace(single.output, labels=composite.labels)
        return replace(single, title=composite.title or composite.name, output=output)
    recipe = parse_recipe(plan.info.recipe, where=f"the recipe of {plan.info.name}") if plan.info.recipe else None
    if recipe is None:
        return _plain(plan)
    fed = {*network_inputs(recipe), *recipe.input.states.values()}
    if fed != {io.name for io in plan.inputs}:
        raise ModelError(
            f"recipe {recipe.name} feeds the input {', '.join(map(repr, sorted(fed)))}; the network's inputs are "
            f"{', '.join(io.name for io in plan.inputs)}"
        )
    boxes = recipe.output.boxes
    read = {recipe.output.name, *recipe.input.states, *([boxes.scores, boxes.classes] if boxes is not None else [])}
    for name in sorted(read - {io.name for io in plan.outputs} - {""}):
        raise ModelError(
            f"recipe {recipe.name} reads the output {name!r}; the network's outputs are "
            f"{', '.join(io.name for io in plan.outputs)}"
        )
    return recipe


def network_inputs(recipe: Recipe) -> dict[str, int]:
    """The network's image inputs and how many of the recipe's channels each takes."""
    counts: dict[str, int] = {}
    for channel in recipe.input.channels:
        name = channel.input or recipe.input.name
        counts[name] = counts.get(name, 0) + 1
    return counts


def nnunet_recipe(settings: NnunetSettings) -> Recipe:
    """What a reader must know of an nnU-Net model: its images and its labels."""
    values = settings.region_order or tuple(range(1, len(settings.labels) + 1))
    labels = tuple(Label(value, label.name) for value, label in zip(values, settings.labels, strict=True))
    return Recipe(
        name="nnunet",
        task="segmentation",
        source=Source(path="plans.json"),
        input=Input("image", tuple(Channel(channel.name) for channel in settings.channels), window="sliding"),
        output=Output("logits", "logits", labels=labels),
        title=f"{settings.dataset} {settings.configuration}",
    )


def recipe_shapes(recipe: Recipe) -> dict[str, tuple[int, ...]] | None:
    """The input's shape as far as the recipe fixes it; None where the network or the study decides."""
    x, y, z = (*recipe.input.grid.shape_xyz, None, None, None)[:3]
    if recipe.input.window == "sliding":
        z, y, x = (None, None, None, *recipe.input.sliding.roi_zyx)[-3:]
    shapes = {}
    for name, channels in network_inputs(recipe).items():
        shape = layout_shape(recipe.input.layout, channels, (z, y, x))
        shapes[name] = tuple(size for size in shape if size is not None)
        if len(shapes[name]) != len(shape):
            return None
    return None if recipe.input.states else shapes


def no_recipe(inputs: Sequence[str], outputs: Sequence[str], why: str) -> UsageError:
    """The error for a network that says too little, with a recipe to start from."""
    example = EXAMPLE.format(input=inputs[0] if inputs else "input", output=outputs[0] if outputs else "output")
    return UsageError(
        f"{why}. Write a recipe beside the network, with its name and the suffix .toml, such as:\n{example}"
    )


def _plain(plan: Plan) -> Recipe:
    """An image as it is in, an image out."""
    inputs, outputs = plan.inputs, plan.outputs
    if len(inputs) != 1 or len(outputs) != 1 or not (_is_image(inputs[0]) and _is_image(outputs[0])):
        shapes = ", ".join(f"{io.name} {io.dims}" for io in (*inputs, *outputs))
        raise no_recipe(
            [io.name for io in inputs],
            [io.name for io in outputs],
            f"{plan.info.name} has no recipe, and does not take and give one image (N, C, Z, Y, X): {shapes}",
        )
    count = inputs[0].dims[1]
    channels = tuple(Channel(f"channel-{k + 1}" if count > 1 else "image") for k in range(count))
    return Recipe(
        name=PLAIN,
        task="regression",
        source=Source(path=PLAIN),
        input=Input(inputs[0].name, channels, grid=Grid()),
        output=Output(outputs[0].name, "image"),
    )


def _is_image(io: Io) -> bool:
    return len(io.dims) == 5
