"""The stages of an nnU-Net model: one network, or a cascade whose later networks see the labels of the one before."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from voxelrt.case import Case, prepare_case
from voxelrt.composite import Gridded, Merged, bring_to_grid, composite_of, run_composite
from voxelrt.errors import ModelError
from voxelrt.models.nnunet_settings import settings_from_json
from voxelrt.plan.plan import Plan
from voxelrt.volume import Volume
from voxelrt.window_plan import Tell
from voxelrt.windowed import Labels, labels_of, run_case

MOST_STAGES = 8


@dataclass(frozen=True, eq=False)
class Decided:
    """What the last stage answered: labels on the cropped grid of its case."""

    case: Case
    labels: Labels

    def volume(self) -> Volume:
        """On the study's own grid, postprocessing done."""
        return labels_of(self.case, self.labels)


def stages_of(plan: Plan) -> list[Plan]:
    """The plans of a model's stages, the first to run first.

    Raises
    ------
    ModelError : a stage's plan is missing, or is none of nnU-Net's.
    """
    stages = [plan]
    while before := settings_from_json(stages[0].info.model_settings).previous_stage:
        if not stages[0].parts or len(stages) == MOST_STAGES:
            raise ModelError(f"{stages[0].info.name} needs the labels of {before!r}, whose plan is not inside this one")
        stages.insert(0, stages[0].parts[0])
    return stages


def one_network(plan: Plan) -> bool:
    """Whether a study is one network's windows: nnU-Net's, and neither a cascade nor a composite."""
    return (
        plan.info.model_settings is not None
        and composite_of(plan) is None
        and not settings_from_json(plan.info.model_settings).previous_stage
    )


def first_case(plan: Plan, volume: Volume, memory: int | None = None) -> Case | Gridded:
    """A study as the first stage takes it, or a composite; `memory` and errors as of ``prepare_case``."""
    composite = composite_of(plan)
    if composite is not None:
        return bring_to_grid(composite, volume)
    return prepare_case(volume, settings_from_json(stages_of(plan)[0].info.model_settings), memory=memory)


def run_stages(plan: Plan, case: Case | Gridded, tell: Tell, **options: Any) -> Decided | Merged:
    """Run all stages, or all models of a composite.

    Parameters
    ----------
    plan : of the last stage.
    case : of the first, see ``first_case``.
    tell : called with (stage, step, steps).
    options : as for ``run_case``; an observer sees the last stage.

    Raises
    ------
    UsageError : an observer of a composite. VoxelRTError : as ``prepare_case`` and ``run_case``.
    """
    observer = options.pop("observer", None)
    if isinstance(case, Gridded):
        return run_composite(plan, case, tell, observer=observer, **options)
    stages = stages_of(plan)
    seen: list[dict[str, Any]] = [*({} for _ in stages[1:]), {"observer": observer}]
    labels = run_case(stages[0], case, partial(_share, tell, 0, len(stages)), **options, **seen[0])
    for number, stage in enumerate(stages[1:], start=1):
        # As nnU-Net hands them on: without postprocessing.
        before = labels_of(case, labels, postprocessing=False)
        case = prepare_case(case.volume, settings_from_json(stage.info.model_settings), before)
        labels = run_case(stage, case, partial(_share, tell, number, len(stages)), **options, **seen[number])
    return Decided(case, labels)


def _share(tell: Tell, number: int, stages: int, name: str, step: int, steps: int) -> None:
    """Of several stages each is an equal share of the whole."""
    tell(name, number * steps + step, stages * steps)
