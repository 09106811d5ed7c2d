"""predict: a study in, a result out. The stages, top to bottom:

    io (read, check) → preprocess (grid, intensity, layout) → run → postprocess (labels, study's grid) → io (write)

What happens in each is said by the recipe, which travels inside the plan.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from voxelrt.backends.native import CancelFlag
from voxelrt.case import Case
from voxelrt.composite import Gridded, Merged
from voxelrt.errors import UsageError
from voxelrt.finding import Finding, algorithm_of, write_result
from voxelrt.io import write_image
from voxelrt.io.dicom.derived import Algorithm
from voxelrt.kernels.common.capi import numpy_dtype
from voxelrt.memory_size import parse_size
from voxelrt.models.recipe_schema import Recipe
from voxelrt.outputs import BY_NAME, Form, is_measured, is_own, own_form, refuse_unreferable
from voxelrt.plan.plan import Plan
from voxelrt.postprocess.labels import to_labels
from voxelrt.postprocess.measurements import measure
from voxelrt.postprocess.overlay import overlay_picture
from voxelrt.postprocess.sizes import Sizes, sizes_of
from voxelrt.postprocess.table import write_table
from voxelrt.preprocess.contract import PLAIN, no_recipe, recipe_of
from voxelrt.preprocess.grid import map_grid
from voxelrt.preprocess.intensity import scale
from voxelrt.preprocess.layout import to_layout, zyx_of
from voxelrt.preprocess.study import Pick, Place, Study, open_study
from voxelrt.request import (
    Array,
    Progress,
    Ready,
    Request,
    check_windows,
    checked_limit,
    late,
    refuse_unwritable,
    stage,
)
from voxelrt.result import Result
from voxelrt.runtime.model_plan import plan_for_study
from voxelrt.runtime.process import peak_memory_bytes
from voxelrt.shortcuts import Shortcuts
from voxelrt.slides import TIFF, is_tiled, predict_slide
from voxelrt.stages import Decided, first_case, run_stages
from voxelrt.tasks.answered import DEMONSTRATION, Answered
from voxelrt.tasks.cost import with_cost
from voxelrt.tasks.dispatch import refuse_outputs, run_task, task_of, write_task
from voxelrt.tasks.network import network_answer
from voxelrt.tasks.registration import bring_pair, open_pair
from voxelrt.tasks.uncertainty import numbers_of, observer_for, probabilities_into, refuse_observing
from voxelrt.volume import Volume


def predict(
    model: Any,
    study: Study,
    out: Place | None = None,
    *,
    picture: Place | None = None,
    table: Place | None = None,
    form: Form = BY_NAME,
    force: bool = False,
    mirroring: bool = True,
    step: float | None = None,
    memory: int | str | None = None,
    series: int | str | None = None,
    volume: int | str | None = None,
    repair: bool = False,
    displayed: bool = False,
    straighten: bool = False,
    source_rounding: bool = False,
    time_limit: float | None = None,
    progress: Progress | None = None,
    maps: Mapping[str, Place | None] | None = None,
    probabilities: Place | None = None,
    uncertainty: bool = False,
    skip_air: bool = False,
    coarse_first: bool = False,
    report_cost: bool = False,
    say: Callable[[str], None] | None = None,
    cancel: CancelFlag | None = None,
) -> Result:
    """Run a model on one study.

    Parameters
    ----------
    model
        A Plan, or what ``voxelrt.load`` takes; the compiled plan of a file or recipe is kept in the cache folder.
    study
        A NIfTI file, a folder or zip with DICOM, a PNG, JPEG or TIFF, a Volume, or a mapping of the recipe's channel
        names to these.
    out
        Where to write, on the study's own grid, whole or not at all: NIfTI (.nii or .nii.gz), or of a DICOM study a
        DICOM segmentation on its slices (.dcm; extra ``dicom-out``), or a new folder with that and a report.
        Of tasks beside segmentation also their numbers (.json), of a classifier on DICOM a report (.dcm). Of an nnU-Net
        model of PNG or TIFF files also these, which then hold its labels.
    picture
        A PNG to write: three views with the outlines of the labels.
    table
        A .csv or .json to write: value, name, voxels, volume in mL or area in mm² where lengths are known, mean and
        deviation of the image, and the largest diameter in mm of each label.
    form
        What is written at `out` where its name does not say it all; see ``voxelrt.outputs.Form``.
    force
        Run on a study that the model was not made for, with a warning instead of an error.
    mirroring, step
        Of an nnU-Net model: average over mirrored windows (8 times the work in 3-D, as nnU-Net does); the windows'
        step as a share of their size, default 0.5.
    memory
        Of an nnU-Net model: what the process may hold at most, in bytes or as ``4GiB``; where the windows' sums do not
        fit they go to a scratch file (in ``TMPDIR``), which is slower.
    series, volume, repair
        Of DICOM: which series (number or UID) and which of its volumes (name or number) where there are several, and
        whether missing and uneven slices may be interpolated.
    displayed
        Of DICOM: grey values as a viewer shows them, 0 to 255, also where the recipe does not ask for it.
    straighten
        Of DICOM of a tilted gantry: resample onto an upright grid, on which the result then lies.
    source_rounding
        Of an nnU-Net model: repeat the half-precision sums of nnU-Net's own predictor, to compare with it.
    time_limit
        Seconds; a study that is not through the network by then is given up.
    maps
        Further volumes that the task makes, name -> the NIfTI file to write, or None to have it in ``Result.maps``:
        heat (classification), error (anomaly), boxes (detection), warped, field, jacobian (registration), and of an
        nnU-Net model entropy, disagreement (among folds), variance (among mirrored forms).
    probabilities
        Of an nnU-Net model: where to write the probabilities of all classes, .nii, .nii.gz or .zarr (extra ``zarr``);
        row by row, so that it takes no memory of their size.
    uncertainty
        Of an nnU-Net model: all of its maps, and a number for each in ``Result.details``.
    skip_air, coarse_first
        Of an nnU-Net model, and changing the answer: leave out windows of air; leave out those far from what a first
        pass without overlap and mirroring finds.
    report_cost
        Of an nnU-Net model: run it in full too, and tell in ``Result.details`` the Dice of each class that step,
        mirroring and shortcuts cost, and the seconds that they save.
    progress
        Called with (stage, step, steps).
    say
        Called with sentences about what is being done and what memory it is expected to take.
    cancel
        A flag that stops the run between two steps.

    Raises
    ------
    UsageError : wrong arguments; a network that needs a recipe and has none.
    InputError : a study that cannot be read, or is of another modality or body part.
    GeometryError : images on different grids.
    OutputError : a result that cannot be written.
    TimeLimitError : the study was not finished in time.
    VoxelRTError : as ``voxelrt.compile``, where `model` is not a plan yet.
    """
    tell = progress or (lambda stage, step, steps: None)
    budget = None if memory is None else parse_size(memory, "memory")
    pick = Pick(series, volume, repair, displayed, straighten)
    given = Request(
        study,
        _path(out),
        _path(picture),
        force,
        mirroring,
        step,
        budget,
        pick,
        source_rounding,
        _path(table),
        form,
        checked_limit(time_limit),
        {name: _path(path) for name, path in (maps or {}).items()},
        _path(probabilities),
        uncertainty,
        Shortcuts(skip_air, coarse_first),
        report_cost,
    )
    refuse_unwritable(given)
    plan = model if isinstance(model, Plan) else plan_for_study(model, study, force=force, pick=pick, tell=tell)
    recipe = recipe_of(plan)
    if is_tiled(recipe, study, given.out):
        return predict_slide(plan, recipe, study, given.out, pick=pick, tell=tell, cancel=cancel)
    given = replace(given, form=own_form(form, plan))
    if given.out is not None and given.out.name.endswith(TIFF) and not is_own(given.out, given.form):
        raise UsageError(f"{given.out.name!r}: TIFF is written of pictures that are seen in 2-D windows")
    check_windows(plan, mirroring, step, budget, source_rounding)
    refuse_observing(plan, given)
    refuse_outputs(recipe_of(plan), given)
    ready = prepare(plan, given, tell)
    refuse_unreferable(given.out, given.form, ready.recipe, ready.opened.source)
    answer = run(plan, ready, tell, cancel, say)
    made = finish(ready, answer, tell, algorithm_of(plan))
    return with_cost(plan, ready, made, tell, cancel) if report_cost else made


def prepare(plan: Plan, request: Request, tell: Progress) -> Ready:
    """Read and check the study, and make the network's input of it."""
    timings: dict[str, float] = {}
    recipe = recipe_of(plan)
    if recipe.task == "registration":
        return _prepare_pair(plan, recipe, request, tell)
    wanted = next(io for io in plan.inputs if io.name == recipe.input.name)
    with stage("read", timings, tell):
        opened = open_study(request.study, recipe, force=request.force, pick=request.pick)
    if plan.info.model_settings is not None:
        with stage("preprocess", timings, tell):
            # Of a plan on GPUs the budget is of their memory.
            case = first_case(plan, opened.volume, request.memory if plan.gpu is None else None)
            if isinstance(case, Case) and case.scratch is not None:
                opened = replace(opened, volume=case.volume)  # the one that was read goes
        data: Array = case.volume.array if isinstance(case, Gridded) else case.data
        return Ready(request, recipe, opened, case, data, timings, observer=observer_for(plan, request))
    with stage("preprocess", timings, tell):
        first = recipe.input.intensity.after == "reading"
        array: Array = opened.volume.array
        if first:
            array = scale(array, recipe.input.intensity)
        sliding = recipe.input.window == "sliding"
        fixed = (None, None, None) if sliding else zyx_of(wanted.dims, recipe.input.layout)
        way = map_grid(opened.volume, recipe.input.grid, fixed)
        array = way.forward(array)
        if not first:
            array = scale(array, recipe.input.intensity)
        tensor = to_layout(array, recipe.input.layout).astype(numpy_dtype(wanted.dtype), copy=False)
    if recipe.name == PLAIN and tensor.shape != wanted.dims:
        raise no_recipe(
            [wanted.name],
            [io.name for io in plan.outputs],
            f"{plan.info.name} has no recipe and takes {wanted.dims}; the study is {tensor.shape}",
        )
    return Ready(request, recipe, opened, way, tensor, timings)


def _prepare_pair(plan: Plan, recipe: Recipe, request: Request, tell: Progress) -> Ready:
    timings: dict[str, float] = {}
    with stage("read", timings, tell):
        fixed, moving = open_pair(request.study, recipe, force=request.force, pick=request.pick)
    with stage("preprocess", timings, tell):
        pair = bring_pair(plan, recipe, fixed, moving)
    return Ready(request, recipe, fixed, pair.way, np.empty(0), timings, pair)


def run(
    plan: Plan,
    ready: Ready,
    tell: Progress,
    cancel: CancelFlag | None = None,
    say: Callable[[str], None] | None = None,
) -> Array | Decided | Merged | Answered:
    """The network's answer as a volume (C, Z, Y, X) on its own grid; nnU-Net's labels; what another task answers."""
    request = ready.request
    deadline = time.monotonic() + ready.time_left
    if isinstance(ready.way, (Case, Gridded)):
        watched_by, into = ready.observer, request.probabilities
        with (
            stage("run", ready.timings, tell),
            probabilities_into(into, watched_by, plan, ready.opened.volume),
        ):
            return run_stages(
                plan,
                ready.way,
                tell,
                cancel=cancel,
                mirroring=request.mirroring,
                step=request.step,
                memory=request.memory,
                say=say,
                source_rounding=request.source_rounding,
                deadline=deadline,
                observer=ready.observer,
                shortcuts=request.shortcuts,
            )

    def watched(stage: str, step: int, steps: int) -> None:
        if time.monotonic() > deadline:
            raise late(request.time_limit)
        tell(stage, step, steps)

    with stage("run", ready.timings, tell):
        if task_of(ready.recipe):
            return run_task(plan, ready, watched, cancel)
        return network_answer(plan, ready, watched, cancel)


def finish(ready: Ready, answer: Array | Decided | Merged | Answered, tell: Progress, algorithm: Algorithm) -> Result:
    """Bring the answer to the study's grid and write it."""
    recipe, request, timings = ready.recipe, ready.request, ready.timings
    if isinstance(answer, Answered):
        with stage("write", timings, tell):
            return write_task(ready, answer, timings, algorithm)
    with stage("postprocess", timings, tell):
        volume = _volume(answer, ready)
        sizes = sizes_of(volume) if recipe.output.kind != "image" else Sizes()
        maps = {}
        if ready.observer is not None and isinstance(answer, Decided):
            maps = ready.observer.maps_on_study(answer.case)
        elif isinstance(answer, Merged):
            maps = answer.maps_on_study()
        numbers = numbers_of(maps, volume)
    with stage("write", timings, tell):
        if request.out or request.table:
            _write(ready, volume, algorithm)
        for name, path in request.maps.items():
            if path is not None:
                write_image(maps[name], path, source=ready.opened.source)
    with stage("draw", timings, tell):
        if request.picture is not None:
            caption = ", ".join(f"{name} {size}" for name, size in sizes.words.items())
            caption += "   ·   weights: demonstration" if recipe.weights == "demonstration" else ""
            title = recipe.title or recipe.name
            overlay_picture(ready.opened.shown, volume, request.picture, title=title, caption=caption)
    return Result(
        volume=volume,
        voxels=sizes.voxels,
        volumes_ml=sizes.volumes_ml,
        areas_mm2=sizes.areas_mm2,
        timings=timings,
        warnings=(*ready.opened.warnings, *((DEMONSTRATION,) if recipe.weights == "demonstration" else ())),
        geometry=ready.opened.geometry,
        peak_memory_bytes=peak_memory_bytes(),
        out=request.out,
        details={"uncertainty": numbers} if numbers else {},
        maps=maps,
        lines=tuple(f"{name}: {one['case']:.4f} over the foreground" for name, one in numbers.items()),
    )


def _write(ready: Ready, volume: Volume, algorithm: Algorithm) -> None:
    recipe, request, image = ready.recipe, ready.request, ready.opened.volume
    wanted = request.table is not None or (request.out is not None and is_measured(request.out, request.form))
    measured = measure(volume, image) if wanted and recipe.output.kind != "image" else []
    if request.out is not None:
        found = Finding(volume, image, ready.opened.source, recipe, algorithm, measured, ready.opened.colours)
        write_result(found, request.out, request.form)
    if request.table is not None:
        write_table(measured, volume, request.table, algorithm)


def _volume(answer: Array | Decided | Merged, ready: Ready) -> Volume:
    if isinstance(answer, (Decided, Merged)):
        return answer.volume()
    if isinstance(ready.way, (Case, Gridded)):
        raise TypeError("a case of nnU-Net is answered by its stages")
    if ready.recipe.output.kind != "image":
        return to_labels(answer, ready.recipe.output, ready.way, ready.opened.volume)
    made = np.empty((answer.shape[0], *ready.way.turned_zyx), answer.dtype)
    for planes, slab in ready.way.backward(answer):
        made[:, planes] = slab
    return ready.opened.volume.with_array(np.ascontiguousarray(ready.way.turn_back(made)))


def _path(place: Place | None) -> Path | None:
    return None if place is None else Path(place)
