"""How sure a segmentation is: maps of entropy and of disagreement among folds and mirrored forms, and a number each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from voxelrt.composite import composite_of
from voxelrt.errors import UsageError
from voxelrt.io.orientation import reorient
from voxelrt.io.probabilities import ProbabilityFile, refuse_probabilities
from voxelrt.models.nnunet_settings import NnunetSettings, settings_from_json
from voxelrt.observed import DISAGREEMENT, ENTROPY, MAPS, VARIANCE, Observer
from voxelrt.plan.plan import Plan
from voxelrt.volume import Volume

if TYPE_CHECKING:
    from voxelrt.request import Request

Floats = NDArray[np.float32]


def refuse_observing(plan: Plan, request: Request) -> None:
    """Say before the work what cannot be watched. Raises UsageError, MissingExtraError."""
    if request.probabilities is not None:
        refuse_probabilities(request.probabilities)
    asked = [name for name in request.maps if name not in MAPS]
    if plan.info.model_settings is not None and asked:
        raise UsageError(f"a segmentation by nnU-Net makes the maps {', '.join(MAPS)}, not {', '.join(asked)}")
    if request.probabilities is not None and composite_of(plan) is not None:
        raise UsageError(
            f"probabilities: the classes of {plan.info.name} are of several models and may overlap, so they are no "
            "distribution; run its models on their own, or ask how sure they are (uncertainty)"
        )
    special = request.probabilities is not None or request.uncertainty or request.shortcuts or request.report_cost
    if plan.info.model_settings is None and special:
        raise UsageError(
            f"probabilities, uncertainty, skip_air, coarse_first and report_cost are of models of nnU-Net; "
            f"{plan.info.name} is none"
        )


def observer_for(plan: Plan, request: Request) -> Observer | None:
    """Who watches a case; None where nobody asked."""
    names = {name for name in request.maps if name in MAPS}
    if request.uncertainty:
        names.add(ENTROPY)
        composite = composite_of(plan)
        members = [plan, *plan.parts][: 1 if composite is None else len(composite.models)]
        settings = [settings_from_json(one.info.model_settings) for one in members]
        names |= {DISAGREEMENT} if all(len(one.folds) > 1 for one in settings) else set()
        names |= {VARIANCE} if request.mirroring and all(one.mirror_axes for one in settings) else set()
    if not names and request.probabilities is None:
        return None
    return Observer(tuple(name for name in MAPS if name in names))


@contextmanager
def probabilities_into(path: Path | None, observer: Observer | None, plan: Plan, study: Volume) -> Iterator[None]:
    """Opens the file of probabilities for an observer; it is there, whole, when the case has run.

    The file's axes are the network's, which are the study's unless the model turns or transposes them; the affine says
    so either way.
    """
    if path is None or observer is None:
        yield
        return
    settings: NnunetSettings = settings_from_json(plan.info.model_settings)
    turned = reorient(study, "RAS")[0] if settings.reader.endswith("WithReorient") else study
    order = settings.transpose_forward
    z, y, x = (turned.shape_zyx[axis] for axis in order)
    affine = turned.affine.copy()
    for axis, old in enumerate(order):
        affine[:, 2 - axis] = turned.affine[:, 2 - old]
    names = [label.name for label in settings.labels]
    names = names if settings.regions else ["background", *names]
    with ProbabilityFile(path, (settings.outputs, z, y, x), affine, names) as file:
        observer.file = file
        try:
            yield
        finally:
            observer.file = None


def numbers_of(maps: Mapping[str, Volume], labels: Volume) -> dict[str, dict[str, float]]:
    """One number a case: each map's mean over the foreground (over all where there is none), and its largest value."""
    found = np.asarray(labels.array[0]) != 0
    numbers = {}
    for name, volume in maps.items():
        values = np.asarray(volume.array[0])
        inside = values[found] if found.any() else values
        numbers[name] = {"case": float(inside.mean(dtype=np.float64)), "maximum": float(values.max())}
    return numbers
