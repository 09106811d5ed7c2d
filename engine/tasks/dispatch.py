"""Which task answers for a recipe, and writing what it answered."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from voxelrt.backends.native import CancelFlag
from voxelrt.errors import UsageError
from voxelrt.io import DicomSource, Source, write_image
from voxelrt.io.atomic import atomic_path
from voxelrt.io.atomic_folder import atomic_folder
from voxelrt.io.dicom.derived import Algorithm
from voxelrt.io.dicom.scores_report import write_scores
from voxelrt.io.fields import write_field
from voxelrt.models.recipe_schema import Recipe
from voxelrt.observed import MAPS as UNCERTAINTY
from voxelrt.outputs import REPORT, Form, format_of, is_report
from voxelrt.plan.plan import Plan
from voxelrt.result import Result
from voxelrt.runtime.process import peak_memory_bytes
from voxelrt.tasks.anomaly import find_anomalies
from voxelrt.tasks.answered import DEMONSTRATION, Answered
from voxelrt.tasks.classification import HEAT, classify
from voxelrt.tasks.detection import detect
from voxelrt.tasks.registration import FIELD, JACOBIAN, WARPED, register
from voxelrt.tasks.sequence import follow
from voxelrt.volume import Volume

if TYPE_CHECKING:
    from voxelrt.request import Ready, Request

Tell = Callable[[str, int, int], None]
Task = Callable[..., Answered]

# The maps of each task; the first is what -o writes.
MAPS: dict[str, tuple[str, ...]] = {
    "classification": (HEAT,),
    "detection": ("boxes",),
    "anomaly": ("error",),
    "registration": (WARPED, FIELD, JACOBIAN),
    "sequence": (),
}


def task_of(recipe: Recipe) -> str:
    """The task that answers for a recipe; "" where the answer is a volume like the study (labels, an image)."""
    if recipe.task in MAPS:
        return recipe.task
    return "classification" if recipe.output.kind == "classes" else ""


def refuse_outputs(recipe: Recipe, request: Request) -> None:
    """Say before the work what the task will not give. Raises UsageError."""
    task = task_of(recipe)
    if not task:
        if request.out is not None and request.out.name.endswith(".json"):
            raise UsageError(
                f"{request.out.name!r}: {recipe.name} gives a volume; write .nii.gz, and --json for numbers"
            )
        if set(request.maps) - set(UNCERTAINTY):
            raise UsageError(f"{recipe.name} makes no maps beside its answer; asked for {', '.join(request.maps)}")
        return
    unknown = [name for name in request.maps if name not in MAPS[task]]
    if unknown:
        known = ", ".join(MAPS[task]) or "none"
        raise UsageError(f"{recipe.name} makes no map {', '.join(unknown)}; a {task} makes {known}")
    dicom = request.out is not None and format_of(request.out, request.form) not in ("nifti", "json")
    if task == "classification" and is_report(request.out, request.form):
        dicom = False
    if request.table is not None or dicom:
        raise UsageError(f"{recipe.name} gives no labels: there is no table of volumes and no DICOM segmentation of it")
    if task == "sequence" and request.out is not None and not request.out.name.endswith(".json"):
        raise UsageError(f"{request.out.name!r}: {recipe.name} gives numbers for each frame; write .json")


def run_task(plan: Plan, ready: Ready, tell: Tell, cancel: CancelFlag | None) -> Answered:
    """The task's answer. Raises VoxelRTError as the task."""
    tasks: dict[str, Task] = {
        "classification": classify,
        "detection": detect,
        "anomaly": find_anomalies,
        "registration": register,
        "sequence": follow,
    }
    return tasks[task_of(ready.recipe)](plan, ready, tell, cancel)


def write_task(ready: Ready, answer: Answered, timings: dict[str, float], algorithm: Algorithm) -> Result:
    """Write what was asked for; whole files or none. Raises OutputError."""
    request, recipe = ready.request, ready.recipe
    first = next(iter(answer.maps.values()), None)
    details = {"model": recipe.name, "task": task_of(recipe), "weights": recipe.weights, **answer.details}
    if request.out is not None:
        if request.out.name.endswith(".json"):
            _write_json(details, request.out)
        elif is_report(request.out, request.form):
            _write_report(request.out, request.form, ready.opened.source, recipe, answer.scores, algorithm)
        elif first is not None:
            write_image(first, request.out, source=ready.opened.source)
    for name, path in request.maps.items():
        if path is not None:
            _write_map(name, path, answer, ready)
    if request.picture is not None and answer.draw is not None:
        said = answer.lines[0] if answer.lines else ", ".join(f"{n} {p:.3f}" for n, p in answer.scores.items())
        caption = _short(said) + ("   ·   weights: demonstration" if recipe.weights == "demonstration" else "")
        picture = answer.draw(recipe.title or recipe.name, caption)
        with atomic_path(request.picture) as temporary:
            picture.save(temporary, format="PNG")
    warned = (DEMONSTRATION,) if recipe.weights == "demonstration" else ()
    return Result(
        volume=first,
        scores=dict(answer.scores),
        timings=timings,
        warnings=(*ready.opened.warnings, *warned),
        geometry=ready.opened.geometry,
        peak_memory_bytes=peak_memory_bytes(),
        out=request.out,
        details=details,
        maps=answer.maps,
        field=answer.field,
        lines=tuple(answer.lines),
    )


def _write_report(
    out: Path, form: Form, source: Source | None, recipe: Recipe, scores: Mapping[str, float], algorithm: Algorithm
) -> None:
    """A classifier's scores as a DICOM report: one file, or a folder with it."""
    if not isinstance(source, DicomSource):
        raise UsageError("a DICOM report is written of a DICOM study, one at a time")
    codes = {
        label.name: (label.code.scheme, label.code.value, label.code.meaning)
        for label in recipe.output.labels
        if label.code is not None
    }
    sure = recipe.output.activation != "none"

    def write(place: Path) -> None:
        write_scores(scores, place, source, codes, algorithm, probabilities=sure, uids=form.uids)

    if format_of(out, form) == "folder":
        with atomic_folder(out) as folder:
            write(folder / REPORT)
    else:
        write(out)


def _write_map(name: str, path: Path, answer: Answered, ready: Ready) -> None:
    if name == FIELD and answer.field is not None:
        write_field(answer.field, path)
    elif name in answer.maps:
        volume: Volume = answer.maps[name]
        write_image(volume, path, source=ready.opened.source)


def _write_json(details: Mapping[str, Any], path: Path) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(details, indent=1) + "\n", "utf-8")


def _short(text: str, most: int = 110) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
