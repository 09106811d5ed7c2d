"""Occlusion maps (Zeiler and Fergus, ECCV 2014): how much a probability falls when a part of the image is hidden."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxelrt.backends.native import CancelFlag
from voxelrt.models.recipe_schema import Recipe
from voxelrt.models.recipe_tables import Heat
from voxelrt.plan.plan import Plan
from voxelrt.preprocess.layout import to_layout

Floats = NDArray[np.float32]
Triple = tuple[int, int, int]
Tell = Callable[[str, int, int], None]
PARTS = 8  # of an axis, by default


def occlusion(
    plan: Plan,
    recipe: Recipe,
    volume: Floats,
    probability: Callable[[NDArray[Any]], NDArray[Any]],
    tell: Tell,
    cancel: CancelFlag | None,
) -> tuple[Floats, dict[str, Any]]:
    """The map, (1, Z, Y, X): of each voxel the mean fall of the probability over the hidden parts that cover it.

    Parameters
    ----------
    plan : of the classifier; hidden forms go through it in as large batches as it takes.
    volume : (C, Z, Y, X) on the network's grid.
    probability : answers (N, classes) -> (N,).

    Returns
    -------
    map, and its sizes for the report.
    """
    heat, flat = recipe.output.heat, "Z" not in recipe.input.layout
    size, step = sizes_of(heat, (1 if flat else volume.shape[1], volume.shape[2], volume.shape[3]))
    fill = {"mean": volume.mean(axis=(1, 2, 3)), "minimum": volume.min(axis=(1, 2, 3)), "zero": np.zeros(len(volume))}
    filling = np.asarray(fill[heat.fill], np.float32)[:, None, None, None]
    samples = [slice(z, z + 1) for z in range(volume.shape[1])] if flat else [slice(0, volume.shape[1])]
    fall, count = np.zeros(volume.shape[1:], np.float64), np.zeros(volume.shape[1:], np.int64)
    batch = batch_of(plan, recipe)
    jobs = [(planes, box) for planes in samples for box in boxes(volume[:, planes].shape[1:], size, step)]
    whole = [float(probability(_run(plan, recipe, [volume[:, planes]], cancel))[0]) for planes in samples]
    done = 0
    while done < len(jobs):
        chosen = jobs[done : done + batch]
        hidden = []
        for planes, box in chosen:
            one = volume[:, planes].copy()
            one[(slice(None), *box)] = filling
            hidden.append(one)
        found = probability(_run(plan, recipe, hidden, cancel))
        for (planes, box), value in zip(chosen, found, strict=True):
            fall[planes][box] += whole[samples.index(planes)] - float(value)
            count[planes][box] += 1
        done += len(chosen)
        tell("run", done, len(jobs))
    made: Floats = (fall / np.maximum(count, 1)).astype(np.float32)[None]
    return made, {"size_zyx": list(size), "step_zyx": list(step), "fill": heat.fill, "runs": len(jobs) + len(samples)}


def sizes_of(heat: Heat, grid: Triple) -> tuple[Triple, Triple]:
    """The size of what is hidden and the step, within the grid."""
    size = heat.size_zyx or tuple(-(-n // PARTS) for n in grid)
    step = heat.step_zyx or tuple(max(1, n // 2) for n in size)
    z, y, x = (min(s, n) for s, n in zip(size, grid, strict=True))
    dz, dy, dx = (min(s, n) for s, n in zip(step, (z, y, x), strict=True))
    return (z, y, x), (dz, dy, dx)


def boxes(grid: tuple[int, ...], size: Triple, step: Triple) -> Iterator[tuple[slice, slice, slice]]:
    """Boxes that cover the grid; the last along an axis ends with it."""
    along = []
    for whole, part, move in zip(grid, size, step, strict=True):
        places = sorted({min(at, whole - part) for at in range(0, whole, move)})
        along.append([slice(at, at + part) for at in places])
    yield from itertools.product(along[0], along[1], along[2])


def batch_of(plan: Plan, recipe: Recipe) -> int:
    """How many samples one run takes."""
    io = next(io for io in plan.inputs if io.name == recipe.input.name)
    return int(max(1, io.dims[0]) * plan.variants[0][2][1]) if io.batched and recipe.input.layout[0] == "N" else 1


def _run(plan: Plan, recipe: Recipe, samples: list[Floats], cancel: CancelFlag | None) -> NDArray[Any]:
    tensor = np.concatenate([to_layout(sample, recipe.input.layout) for sample in samples])
    answer = np.asarray(plan.run({recipe.input.name: tensor}, cancel=cancel)[recipe.output.name])
    return answer.reshape(answer.shape[0], -1)
