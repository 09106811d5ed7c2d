"""A study through a composite: onto its grid, cropped, through each model, merged, and back to the study's own grid."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxelrt.case import prepare_case
from voxelrt.errors import ModelError
from voxelrt.io.orientation import reorient
from voxelrt.models.composite import Composite, class_values, parse_composite
from voxelrt.models.nnunet_settings import NnunetSettings, settings_from_json
from voxelrt.observed import Observer
from voxelrt.plan.plan import Plan
from voxelrt.preprocess.grid import GridMap, map_grid
from voxelrt.volume import Volume
from voxelrt.window_plan import Tell
from voxelrt.windowed import labels_of, run_case

Floats = NDArray[np.float32]
Labels = NDArray[np.unsignedinteger[Any]]
Box = tuple[slice, slice, slice]
EVERYWHERE: Box = (slice(None), slice(None), slice(None))


@dataclass(frozen=True, eq=False)
class Gridded:
    """A study on a composite's grid.

    Parameters
    ----------
    composite : what is run.
    study : as it was read.
    way : between the study's grid and the composite's.
    volume : the study there.
    """

    composite: Composite
    study: Volume
    way: GridMap
    volume: Volume


@dataclass(frozen=True, eq=False)
class Merged:
    """What the models answered together, on the composite's grid: (Z, Y, X) labels, and maps of how sure they are."""

    gridded: Gridded
    labels: Labels
    maps: dict[str, Floats]

    def volume(self) -> Volume:
        """On the study's own grid: of each voxel the nearest label."""
        way = self.gridded.way
        made = np.zeros((1, *way.turned_zyx), self.labels.dtype)
        for planes, slab in way.backward(self.labels[None], interpolation="nearest"):
            made[:, planes] = np.rint(slab)
        names = {0: "background"} | {label.value: label.name for label in self.gridded.composite.labels}
        return self.gridded.study.with_array(np.ascontiguousarray(way.turn_back(made)), names)

    def maps_on_study(self) -> dict[str, Volume]:
        """The maps on the study's own grid, between voxels by linear interpolation."""
        way, made = self.gridded.way, {}
        for name, found in self.maps.items():
            whole = np.zeros((1, *way.turned_zyx), np.float32)
            for planes, slab in way.backward(found[None]):
                whole[:, planes] = slab
            made[name] = self.gridded.study.with_array(np.ascontiguousarray(way.turn_back(whole)))
        return made


def composite_of(plan: Plan) -> Composite | None:
    """The composite that a plan carries, None for the plan of a single model."""
    if plan.info.model_settings is None or not plan.info.recipe:
        return None
    return parse_composite(plan.info.recipe, where=f"the composite of {plan.info.name}")


def bring_to_grid(composite: Composite, study: Volume) -> Gridded:
    """A study in the composite's orientation and voxel size. Raises GeometryError, InputError."""
    way = map_grid(study, composite.grid, (None, None, None))
    array = way.forward(study.array)
    turned = study if way.turn is None else reorient(study, composite.grid.orientation)[0]
    columns = turned.affine[:3, :3]
    lengths = np.linalg.norm(columns, axis=0)
    # The size that the grid names, not the one left by rounding to whole voxels: the models must find their own.
    wanted = np.array(composite.grid.spacing_mm_xyz or lengths)
    affine = np.eye(4)
    affine[:3, :3] = columns / lengths * wanted
    affine[:3, 3] = turned.affine[:3, 3] + columns @ ((wanted / lengths - 1) / 2)
    return Gridded(composite, study, way, replace(study, array=array, affine=affine, labels={}))


def run_composite(
    plan: Plan, gridded: Gridded, tell: Tell, *, observer: Observer | None = None, **options: Any
) -> Merged:
    """Run the crop's model, if there is one, then all others on what it leaves.

    Parameters
    ----------
    plan : of the first model; the others, and last the crop's, are its parts.
    gridded : see ``bring_to_grid``.
    tell : called with (stage, step, steps).
    observer : makes maps, not probabilities; of each voxel a map has the largest value among the models.
    options : as for ``run_case``.

    Raises
    ------
    UsageError : a class that a model does not have. ModelError : models are missing in the plan.
    """
    composite, volume = gridded.composite, gridded.volume
    plans = [plan, *plan.parts]
    runs = len(composite.models) + (composite.crop is not None)
    if len(plans) != runs:
        raise ModelError(f"{composite.name} has {runs} models and its plan {len(plans)}")
    largest = max(label.value for label in composite.labels)
    merged = np.zeros(volume.shape_zyx, np.uint8 if largest < 256 else np.uint16)
    maps = {name: np.zeros(volume.shape_zyx, np.float32) for name in observer.maps} if observer is not None else {}
    if observer is not None:
        for member, one in zip(composite.models, plans, strict=False):
            mirrored, rounded = options.get("mirroring", True), options.get("source_rounding", False)
            observer.refuse(_settings(one), mirrored, rounded, member.path)
    box: Box | None = EVERYWHERE
    if composite.crop is not None:
        values = _values(plans[-1], composite.crop.classes, composite.crop.path)
        labels, _ = _answer(plans[-1], volume, partial(_share, tell, 0, runs), options)
        box = _box(np.isin(labels, list(values)), composite.crop.margin_mm, volume.spacing_mm)
    if box is None:
        return Merged(gridded, merged, maps)  # there is nothing of what the crop looks for
    part = _cropped(volume, box)
    first = runs - len(composite.models)
    for number, (member, one) in enumerate(zip(composite.models, plans, strict=False), start=first):
        values = _values(one, member.classes, member.path)
        watched = None if observer is None else Observer(observer.maps)
        labels, found = _answer(one, part, partial(_share, tell, number, runs), options, watched)
        for name, values_there in found.items():
            np.maximum(maps[name][box], values_there, out=maps[name][box])
        inside = merged[box]
        for value, written in values.items():
            inside[labels == value] = written
    return Merged(gridded, merged, maps)


def _answer(
    plan: Plan, volume: Volume, tell: Tell, options: dict[str, Any], observer: Observer | None = None
) -> tuple[Labels, dict[str, NDArray[Any]]]:
    case = prepare_case(volume, _settings(plan))
    labels: Labels = np.asarray(labels_of(case, run_case(plan, case, tell, observer=observer, **options)).array[0])
    maps = {} if observer is None else observer.maps_on_study(case)
    return labels, {name: made.array[0] for name, made in maps.items()}


def _settings(plan: Plan) -> NnunetSettings:
    return settings_from_json(plan.info.model_settings, f"the settings of {plan.info.name}")


def _values(plan: Plan, wanted: dict[str, int] | tuple[str, ...], where: str) -> dict[int, int]:
    settings = _settings(plan)
    values = settings.region_order or tuple(range(1, len(settings.labels) + 1))
    return class_values({label.name: v for v, label in zip(values, settings.labels, strict=True)}, wanted, where)


def _box(found: NDArray[np.bool_], margin_mm: float, spacing_mm: tuple[float, ...]) -> Box | None:
    """The bounds of a mask and a margin; None where it is empty."""
    sides = []
    for axis, (size, spacing) in enumerate(zip(found.shape, spacing_mm, strict=True)):
        places = np.flatnonzero(found.any(axis=tuple(other for other in range(3) if other != axis)))
        if places.size == 0:
            return None
        margin = round(margin_mm / spacing)
        sides.append(slice(max(0, int(places[0]) - margin), min(size, int(places[-1]) + 1 + margin)))
    return (sides[0], sides[1], sides[2])


def _cropped(volume: Volume, box: Box) -> Volume:
    affine = volume.affine.copy()
    begin = [side.start or 0 for side in reversed(box)]
    affine[:3, 3] += affine[:3, :3] @ np.array(begin, np.float64)
    return replace(volume, array=np.ascontiguousarray(volume.array[(slice(None), *box)]), affine=affine, labels={})


def _share(tell: Tell, number: int, runs: int, name: str, step: int, steps: int) -> None:
    tell(name, number * steps + step, runs * steps)
