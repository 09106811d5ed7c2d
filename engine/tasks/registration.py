"""Registration: a moving study onto a fixed one by a network's displacement field; whether the field folds is counted.

The moving study is brought onto the fixed one's grid by their world coordinates first; what is warped in the end is the
moving study itself, once, at its own resolution.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from voxelrt.backends.native import CancelFlag
from voxelrt.errors import ModelError, UsageError
from voxelrt.io.fields import Field
from voxelrt.kernels import jacobian
from voxelrt.kernels.common.capi import numpy_dtype
from voxelrt.models.recipe_schema import Recipe
from voxelrt.plan.plan import Plan
from voxelrt.postprocess.sheet import draw_sheet, fused_column
from voxelrt.preprocess.grid import GridMap, map_grid
from voxelrt.preprocess.intensity import scale
from voxelrt.preprocess.layout import to_layout, zyx_of
from voxelrt.preprocess.study import ANY, Opened, Pick, Place, open_study
from voxelrt.tasks.answered import Answered, network_affine, on_study
from voxelrt.volume import Volume
from voxelrt.warping import warp_volume

if TYPE_CHECKING:
    from voxelrt.request import Ready

Array = NDArray[Any]
Tell = Callable[[str, int, int], None]
FIELD, JACOBIAN, WARPED = "field", "jacobian", "warped"


@dataclass(frozen=True, eq=False)
class Pair:
    """A pair to register: both as they were read, and both on the network's grid by input name."""

    fixed: Opened
    moving: Opened
    way: GridMap
    tensors: Mapping[str, Array]


def open_pair(study: Any, recipe: Recipe, *, force: bool = False, pick: Pick = ANY) -> tuple[Opened, Opened]:
    """The fixed and the moving study; the recipe's first channel is the fixed one.

    Raises
    ------
    UsageError : not two studies by the recipe's names. InputError : as ``open_study``.
    """
    channels = recipe.input.channels
    names = [channel.name for channel in channels]
    if len(channels) != 2:
        raise UsageError(f"recipe {recipe.name}: a registration has two channels, fixed and moving, not {names}")
    if not isinstance(study, Mapping) or set(study) != set(names):
        wanted = " ".join(f"--input {name}={name}.nii.gz" for name in names)
        raise UsageError(f"{recipe.name} takes a pair of studies by name: {wanted}")
    opened = []
    for channel in channels:
        single = replace(recipe, input=replace(recipe.input, channels=(channel,)))
        place: Place | Volume = study[channel.name]
        opened.append(open_study({channel.name: place}, single, force=force, pick=pick))
    return opened[0], opened[1]


def bring_pair(plan: Plan, recipe: Recipe, fixed: Opened, moving: Opened) -> Pair:
    """Both on the network's grid, which is laid over the fixed one."""
    first, second = recipe.input.channels
    inputs = {io.name: io for io in plan.inputs}
    io = inputs[first.input or recipe.input.name]
    way = map_grid(fixed.volume, recipe.input.grid, zyx_of(io.dims, recipe.input.layout))
    together = fixed.volume.array[:1], warp_volume(_single(moving.volume), fixed.volume).array
    tensors = {}
    for channel, array in zip((first, second), together, strict=True):
        made = (
            way.forward(array) if recipe.input.intensity.after == "resampling" else scale(array, recipe.input.intensity)
        )
        made = (
            scale(made, recipe.input.intensity) if recipe.input.intensity.after == "resampling" else way.forward(made)
        )
        name = channel.input or recipe.input.name
        tensors[name] = to_layout(made, recipe.input.layout).astype(numpy_dtype(inputs[name].dtype), copy=False)
    return Pair(fixed, moving, way, tensors)


def register(plan: Plan, ready: Ready, tell: Tell, cancel: CancelFlag | None) -> Answered:
    """The warped study, the field, the Jacobian's determinant, and how many voxels fold.

    Raises
    ------
    ModelError : the answer is no field on the network's grid.
    """
    pair, recipe = ready.pair, ready.recipe
    if pair is None:
        raise TypeError("a registration has a pair")
    answers = plan.run(dict(pair.tensors), cancel=cancel, progress=lambda step, steps: tell("run", step, steps))
    found = np.asarray(answers[recipe.output.name], np.float32)
    if found.shape != (1, 3, *pair.way.network_zyx):
        raise ModelError(f"{recipe.name}: a field is (1, 3, {pair.way.network_zyx}), not {found.shape}")
    determinant, folded = jacobian(np.ascontiguousarray(found))
    fixed = pair.fixed.volume
    affine = network_affine(fixed, pair.way)
    # Components z, y, x in voxels as x, y, z in mm.
    vectors = np.einsum("ij,jzyx->izyx", affine[:3, :3], found[0, ::-1].astype(np.float64)).astype(np.float32)
    field = Field(vectors, affine)
    moving = _single(pair.moving.volume)
    warped = warp_volume(moving, fixed, field=field)
    before = warp_volume(moving, fixed)
    lengths = np.linalg.norm(vectors, axis=0)
    unit = "mm" if fixed.lengths != "none" else "pixels"
    details = {
        "folded_voxels": int(folded[0]),
        "field_voxels": int(lengths.size),
        "jacobian": {"minimum": float(determinant.min()), "maximum": float(determinant.max())},
        f"displacement_{unit}": {"mean": float(lengths.mean()), "maximum": float(lengths.max())},
        "correlation": {"before": _correlation(fixed, before), "after": _correlation(fixed, warped)},
    }

    def draw(title: str, caption: str) -> Any:
        image = fixed.array[0]
        columns = [
            fused_column("fixed (orange) and moving (blue), before", image, before.array[0]),
            fused_column("after", image, warped.array[0]),
        ]
        z, y, x = (n // 2 for n in fixed.shape_zyx)
        return draw_sheet(fixed, columns, at_zyx=(z, y, x), title=title, caption=caption)

    maps = {WARPED: warped, JACOBIAN: on_study(determinant[0], pair.way, fixed, outside=1.0)}
    lines = [
        f"moved by {lengths.mean():.2f} {unit} on average, at most "
        f"{lengths.max():.2f} {unit}; {int(folded[0])} of {lengths.size} voxels of the field fold",
        f"correlation with the fixed image {details['correlation']['before']:.4f} before, "  # type: ignore[index]
        f"{details['correlation']['after']:.4f} after",  # type: ignore[index]
    ]
    return Answered(details, {}, lines, maps, draw=draw, field=field)


def _single(volume: Volume) -> Volume:
    return volume if len(volume.array) == 1 else volume.with_array(volume.array[:1])


def _correlation(one: Volume, other: Volume) -> float:
    """Pearson's, over all voxels; 0 where one of them is constant."""
    a, b = (volume.array[0].astype(np.float64).ravel() for volume in (one, other))
    a, b = a - a.mean(), b - b.mean()
    length = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / length if length > 0 else 0.0
