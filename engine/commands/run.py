"""voxelrt run: a study in, a mask out; or many."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from voxelrt.commands.console import Screen
from voxelrt.commands.models import is_plan, nnunet_model, open_plan
from voxelrt.commands.options import (
    MODEL_HELP,
    ConfigurationOption,
    Device,
    DeviceOption,
    DisplayedOption,
    Fallback,
    FallbackOption,
    FoldsOption,
    ForceOption,
    JsonOption,
    Precision,
    PrecisionOption,
    QuietOption,
    RepairOption,
    SeriesOption,
    ShapeOption,
    StraightenOption,
    ThreadsOption,
    Uids,
    UidsOption,
    VolumeOption,
    parse_folds,
    parse_inputs,
    parse_shapes,
)
from voxelrt.commands.run_arrays import are_arrays, run_arrays
from voxelrt.commands.run_studies import Target, run_arriving, run_many, run_one
from voxelrt.commands.run_watched import (
    QuietTimeOption,
    SlicesOption,
    StatisticsOption,
    StopAfterOption,
    Watch,
    WatchOption,
    watch_of,
)
from voxelrt.errors import UsageError
from voxelrt.outputs import Form, format_of, is_folder_of_one
from voxelrt.plan.plan import Plan
from voxelrt.preprocess.case_folder import cases_in
from voxelrt.preprocess.study import Pick, Study
from voxelrt.runtime.model_plan import plan_for_study
from voxelrt.runtime.shelf import Names
from voxelrt.shortcuts import Shortcuts


class Format(StrEnum):
    """Of a mask."""

    NIFTI = "nifti"
    SEG = "seg"
    SR = "sr"
    RTSTRUCT = "rtstruct"
    CAPTURE = "capture"
    MHA = "mha"
    NRRD = "nrrd"
    LABELS = "labels"
    PNG = "png"
    GIF = "gif"


class Seg(StrEnum):
    """Of a DICOM segmentation."""

    BINARY = "binary"
    LABELMAP = "labelmap"


def run(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP)],
    studies: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="STUDY...",
            help="NIfTI, DICOM (folders, zips), PNG, JPEG, TIFF, or a folder of nnU-Net's <case>_0000.nii.gz.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="OUT",
            help="The mask, .nii.gz, .mha, .nrrd, .dcm, .png or .gif; a folder for a DICOM study or several.",
        ),
    ] = None,
    picture: Annotated[
        Path | None,
        typer.Option("--picture", metavar="FILE", help="A PNG to look at: the mask's outline on three views."),
    ] = None,
    table: Annotated[
        Path | None, typer.Option("--table", metavar="FILE", help="Volumes per label, .csv or .json.")
    ] = None,
    output_format: Annotated[
        Format | None,
        typer.Option(
            "--format",
            help="Of the result; by default what its name says. A .dcm is a seg (of a classifier an sr), or what "
            "is given here; labels: a picture whose values are the labels.",
        ),
    ] = None,
    seg: Annotated[
        Seg | None,
        typer.Option("--seg", help="Of a .dcm mask: binary, what viewers read today, or labelmap."),
    ] = None,
    uids: UidsOption = Uids.FRESH,
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            metavar="NAME=PATH",
            help="One of several images that the model needs; or arrays, .npy, of a network that takes no volumes.",
        ),
    ] = None,
    names: Annotated[
        str,
        typer.Option("--names", help="Of several results: number (study-0001), or input (can name a patient)."),
    ] = "number",
    resume: Annotated[bool, typer.Option("--resume", help="Of several: keep what an earlier run wrote.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Of several: replace what is there.")] = False,
    configuration: ConfigurationOption = None,
    folds: FoldsOption = None,
    mirroring: Annotated[
        bool,
        typer.Option(
            "--mirroring/--no-mirroring",
            help="Of an nnU-Net model: the mean over mirrored windows, or an eighth of the work.",
        ),
    ] = True,
    step: Annotated[
        float | None,
        typer.Option("--step", help="Of an nnU-Net model: the windows' step as a share of their size; default 0.5."),
    ] = None,
    maps: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            metavar="NAME=FILE",
            help="A further volume of the task: heat, error, boxes, field, jacobian ... as .nii.gz. Repeatable.",
        ),
    ] = None,
    probabilities: Annotated[
        Path | None,
        typer.Option(
            "--probabilities", metavar="FILE", help="Of an nnU-Net model: all classes', .nii.gz, .nii or .zarr."
        ),
    ] = None,
    uncertainty: Annotated[
        bool,
        typer.Option("--uncertainty", help="Of an nnU-Net model: how sure it is, a number for each map of --map."),
    ] = False,
    skip_air: Annotated[
        bool, typer.Option("--skip-air", help="Of an nnU-Net model, changes the answer: leave out windows of air.")
    ] = False,
    coarse_first: Annotated[
        bool,
        typer.Option(
            "--coarse-first",
            help="Of an nnU-Net model, changes the answer: leave out windows far from what a quick first pass finds.",
        ),
    ] = False,
    report_cost: Annotated[
        bool,
        typer.Option("--report-cost", help="Run in full too: the Dice that step, mirroring and shortcuts cost."),
    ] = False,
    memory: Annotated[
        str | None,
        typer.Option("--memory", metavar="SIZE", help="Of an nnU-Net model: what may be held at most, as 4GiB."),
    ] = None,
    series: SeriesOption = None,
    volume: VolumeOption = None,
    repair: RepairOption = False,
    displayed: DisplayedOption = False,
    straighten: StraightenOption = False,
    source_rounding: Annotated[
        bool,
        typer.Option(
            "--source-rounding",
            help="Of an nnU-Net model: repeat the half-precision sums of nnU-Net's own predictor, to compare with it.",
        ),
    ] = False,
    watch: WatchOption = None,
    slices: SlicesOption = None,
    quiet_time: QuietTimeOption = None,
    stop_after: StopAfterOption = None,
    statistics: StatisticsOption = None,
    time_limit: Annotated[
        float | None,
        typer.Option("--time-limit", metavar="SECONDS", help="Give a study up that takes longer; the rest go on."),
    ] = None,
    force: ForceOption = False,
    device: DeviceOption = Device.AUTO,
    precision: PrecisionOption = Precision.FP32,
    shape: ShapeOption = None,
    threads: ThreadsOption = None,
    fallback: FallbackOption = Fallback.ONNXRUNTIME,
    json: JsonOption = None,
    quiet: QuietOption = False,
) -> None:
    """Run a model on a study, or on many. Research software, not a medical device.

    The mask lies on the study's own grid. The model is compiled on the first use and kept in the cache folder.

    [bold]Examples[/]

      voxelrt run brain-extraction head.nii.gz -o mask.nii.gz --picture mask.png

      voxelrt run brain-extraction dicom-folder/ -o mask.nii.gz --json -

      voxelrt run brain-extraction dicom-folder/ -o mask.dcm --table volumes.csv

      voxelrt run brain-extraction dicom-folder/ -o results/

      voxelrt run lesions.onnx --input t1=t1.nii.gz --input flair=flair.nii.gz -o lesions.nii.gz

      voxelrt run Dataset003_Liver/ ct.nii.gz -o liver.nii.gz --configuration 3d_fullres

      voxelrt run Dataset003_Liver/ imagesTs/ -o labels/ --names input --resume

      voxelrt run brain-extraction studies/*.nii.gz -o masks/ --resume

      voxelrt run nodules.toml ct.nii.gz -o findings.json --picture findings.png

      voxelrt run pairs.toml --input fixed=a.nii.gz --input moving=b.nii.gz -o warped.nii.gz --map field=field.nii.gz

      voxelrt run Dataset003_Liver/ --watch incoming/ -o labels/ --names input

      voxelrt run Dataset003_Liver/ --watch scan/ --slices 300 -o liver.nii.gz

      voxelrt run seizures.onnx --input x=spectrogram.npy -o probabilities.npz
    """
    screen = Screen(quiet=quiet, json_to=json)
    place: Callable[[Plan], Plan] | None = None
    if device is Device.CUDA:
        if not is_plan(model):
            raise UsageError(
                f"--device cuda takes a plan: voxelrt compile {model} --device cuda --arch sm_.. -o plan.vxp"
            )
        place = _on_gpus(screen)
    pick = Pick(series, volume, repair, displayed, straighten)
    named = _names(names)
    form = _form(output_format, seg, uids, out)
    target = Target(
        out,
        picture,
        named,
        resume,
        overwrite,
        force,
        mirroring,
        step,
        memory,
        pick,
        source_rounding,
        table,
        form,
        time_limit,
        parse_inputs(maps, "--map"),
        probabilities,
        uncertainty,
        Shortcuts(skip_air, coarse_first),
        report_cost,
    )
    if are_arrays(given := parse_inputs(inputs)):
        if studies:
            raise UsageError("a run on arrays takes --input alone, no studies")
        how: dict[str, Any] = {"shapes": parse_shapes(shape), "precision": precision.value, "fallback": fallback.value}
        run_arrays(model, given, out, screen, **how, threads=threads)
        return
    watched = watch_of(watch, slices, quiet_time, stop_after, statistics, studies=studies or inputs, out=out)
    several = watched is not None and watched.slices is None and out is not None and _is_folder(out)
    chosen = _watched(watched, model, out, screen) if watched is not None else _studies(studies, inputs)
    with screen.progress() as (tell, say):
        if is_plan(model):
            if configuration is not None or folds is not None:
                raise UsageError("--configuration and --folds are for compiling; a .vxp plan has its own")
            plan = open_plan(model, threads=threads, shapes=parse_shapes(shape))
            plan = plan if place is None else place(plan)
        else:
            plan = plan_for_study(
                nnunet_model(model, configuration, parse_folds(folds), say),
                chosen[0],
                force=force,
                shapes=parse_shapes(shape),
                precision=precision.value,
                fallback=fallback.value,
                threads=threads,
                pick=pick,
                tell=tell,
                say=say,
            )
    if watched is not None and several:
        assert out is not None
        run_many(plan, watched.cases(plan, out), target, screen)
        return
    if watched is not None and watched.slices is not None:
        run_arriving(plan, watched, target, screen)
        return
    chosen = _cases(chosen, plan)
    keeps = resume or overwrite or names != "number"
    if len(chosen) > 1 or (out is not None and out.is_dir() and (keeps or not is_folder_of_one(out, form, chosen))):
        run_many(plan, chosen, target, screen)
    else:
        run_one(plan, chosen[0], target, screen)


def _on_gpus(screen: Screen) -> Callable[[Plan], Plan]:
    """Puts a plan on all GPUs of this machine. Raises MissingExtraError, DeviceError before any work."""

    def tell(phase: str, step: int, steps: int) -> None:
        """An engine that is built here takes minutes; the next time it is there."""
        if step == 1:
            screen.line(f"building an engine for this GPU: {phase}, {steps} steps")

    from voxelrt.runtime.gpu_run import GpuPlan, open_gpus  # takes a while to import

    gpus = open_gpus("running studies on a GPU", tell)
    return lambda plan: plan.on_gpu(lambda part: GpuPlan(part, gpus))


def _form(wanted: Format | None, seg: Seg | None, uids: Uids, out: Path | None) -> Form:
    form = Form(None if wanted is None else wanted.value, None if seg is None else seg.value, uids.value)
    if out is None and (wanted is not None or seg is not None):
        raise UsageError(f"{'--seg' if wanted is None else '--format'} needs -o FILE")
    if out is not None and wanted is not None and not out.is_dir():
        format_of(out, form)
    return form


def _is_folder(out: Path) -> bool:
    """Whether the output's name is a folder's: it is one, or has no suffix."""
    return out.is_dir() or not out.suffix


def _watched(watch: Watch, model: str, out: Path | None, screen: Screen) -> list[Study]:
    """What has come that a plan can be made for; of a scan that is not streamed all of it."""
    if watch.slices is not None:
        return [watch.folder]
    if out is None or not _is_folder(out):
        return watch.scan(screen)
    if is_plan(model):
        return [watch.folder]
    with screen.progress() as (_, say):
        return [watch.cases(None, out).first(say)]


def _studies(studies: list[Path] | None, inputs: list[str] | None) -> list[Study]:
    named = parse_inputs(inputs)
    if named and studies:
        raise UsageError("give studies, or --input NAME=PATH, not both")
    if named:
        return [dict(named)]
    if not studies:
        raise UsageError("there is no study: give a NIfTI file, a DICOM folder, or --input NAME=PATH")
    return list(studies)


def _cases(studies: list[Study], plan: Plan) -> list[Study]:
    """The studies, an nnU-Net model's folders of cases taken apart."""
    if plan.info.model_settings is None:
        return studies
    channels = [channel["name"] for channel in plan.info.model_settings["channels"]]
    made: list[Study] = []
    for study in studies:
        cases = cases_in(study, channels) if isinstance(study, Path) and study.is_dir() else []
        made.extend(cases or [study])
    return made


def _names(text: str) -> Names:
    if text == "input":
        return "input"
    if text == "number":
        return "number"
    raise UsageError(f"--names {text!r}: choose number or input")
