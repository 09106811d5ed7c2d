"""voxelrt denoise: an image in, the same image with less noise out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from voxelrt.commands.console import Screen
from voxelrt.commands.models import is_plan, open_plan
from voxelrt.commands.options import (
    MODEL_HELP,
    ForceOption,
    JsonOption,
    QuietOption,
    RepairOption,
    SeriesOption,
    Uids,
    UidsOption,
)
from voxelrt.denoising import Denoised, denoise_study
from voxelrt.errors import UsageError
from voxelrt.io import kind_of
from voxelrt.kernels.denoise.methods import METHODS, NOISES, UNITS
from voxelrt.plan.plan import Plan
from voxelrt.preprocess.study import Pick
from voxelrt.runtime.model_plan import plan_for_study


def denoise_command(
    study: Annotated[Path, typer.Argument(metavar="IN", help="A NIfTI file or a folder with one DICOM series.")],
    out: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="OUT", help="The image, .nii or .nii.gz; of DICOM a new folder."),
    ] = None,
    method: Annotated[str, typer.Option("--method", help=f"One of {', '.join(METHODS)}.")] = "nlm",
    model: Annotated[
        str | None, typer.Option("--model", metavar="MODEL", help=f"A network instead of a method. {MODEL_HELP}")
    ] = None,
    noise: Annotated[
        str, typer.Option("--noise", help=f"auto (Rician for magnitudes of MR, else Gaussian), {', '.join(NOISES)}.")
    ] = "auto",
    sigma: Annotated[
        str, typer.Option("--sigma", help="The noise's standard deviation in the image's units, or auto: estimated.")
    ] = "auto",
    radius: Annotated[
        str | None, typer.Option("--radius", metavar="R|Z,Y,X", help="Of the window, one number or one for each axis.")
    ] = None,
    unit: Annotated[str, typer.Option("--unit", help=f"Of radii and widths: {' or '.join(UNITS)}.")] = "voxels",
    option: Annotated[
        list[str] | None,
        typer.Option("--option", metavar="NAME=VALUE", help="Another option of the method, such as strength=0.8."),
    ] = None,
    modality: Annotated[
        str, typer.Option("--modality", help="MR, CT ...: what NIfTI does not say, and --noise auto wants to know.")
    ] = "",
    picture: Annotated[
        Path | None, typer.Option("--picture", metavar="FILE", help="A PNG: before, after and their difference.")
    ] = None,
    volume: Annotated[
        str | None,
        typer.Option(
            "--volume", metavar="N|all", help="Of several: from 0 (NIfTI), from 1 or by name (DICOM), or all."
        ),
    ] = None,
    series: SeriesOption = None,
    repair: RepairOption = False,
    uids: UidsOption = Uids.FRESH,
    force: ForceOption = False,
    json: JsonOption = None,
    quiet: QuietOption = False,
) -> None:
    """Take noise out of an image. Research software, not a medical device.

    The result lies on the image's own grid and has its voxel type; integers are rounded to the nearest.

    [bold]Examples[/]

      voxelrt denoise head.nii.gz -o quiet.nii.gz --modality MR --picture compared.png

      voxelrt denoise dicom-folder/ -o quiet.nii.gz --method median --radius 1

      voxelrt denoise dicom-folder/ -o quiet-series/

      voxelrt denoise ct.nii.gz -o quiet.nii.gz --sigma 25 --radius 4,4,4 --unit mm
    """
    if out is None and picture is None and json is None:
        raise UsageError("nothing would be kept: give -o OUT, --picture FILE or --json -")
    screen = Screen(quiet=quiet, json_to=json)
    is_dicom = study.exists() and kind_of(study) == "DICOM"
    options = _options(option, radius)
    if model is not None and (options or method != "nlm" or noise != "auto" or sigma != "auto"):
        raise UsageError("--model takes the noise out by itself: leave --method, --noise, --sigma and options away")
    with screen.progress() as (tell, say):
        plan: Plan | None = None
        if model is not None:
            plan = (
                open_plan(model, threads=None)
                if is_plan(model)
                else plan_for_study(model, study, force=force, tell=tell, say=say)
            )
        done = denoise_study(
            study,
            out,
            method=method,
            plan=plan,
            noise=noise,
            sigma=_sigma(sigma),
            modality=modality.upper(),
            unit=unit,
            options=options,
            picture=picture,
            volume_index=None if is_dicom else _index(volume),
            pick=Pick(series, volume if is_dicom else None, repair),
            uids=uids.value,
            progress=tell,
        )
    for warning in done.warnings:
        screen.warn(warning)
    _show(done, out, screen)


def _show(done: Denoised, out: Path | None, screen: Screen) -> None:
    for reason in done.choice.reasons if done.choice else ():
        screen.line(reason)
    screen.line(f"taken away: standard deviation {done.difference_deviation:.4g}")
    screen.line(", ".join(f"{stage} {seconds:.2f} s" for stage, seconds in done.timings.items()))
    if out is not None:
        screen.line(f"wrote {out}")
    screen.json(
        {
            "out": str(out) if out is not None else None,
            "method": done.choice.method if done.choice else "model",
            "noise": done.choice.noise if done.choice else None,
            "sigmas": list(done.choice.sigmas) if done.choice else [],
            "options": dict(done.choice.options) if done.choice else {},
            "reasons": list(done.choice.reasons) if done.choice else [],
            "difference_deviation": done.difference_deviation,
            "timings_s": dict(done.timings),
            "warnings": list(done.warnings),
        }
    )


def _options(given: Sequence[str] | None, radius: str | None) -> dict[str, Any]:
    made: dict[str, Any] = {} if radius is None else {"radius": _number_or_three("--radius", radius)}
    for text in given or ():
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise UsageError(f"--option {text!r}: write NAME=VALUE")
        if name in made:
            raise UsageError(f"{name} is given twice")
        made[name] = _number_or_three(f"--option {name}", value)
    return made


def _number_or_three(what: str, text: str) -> Any:
    """``3``, ``0.5`` or ``1,2,2``."""
    try:
        numbers = [float(part) if any(c in part for c in ".eEnN") else int(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"{what} {text!r} is neither a number nor three (z,y,x)") from None
    if len(numbers) not in (1, 3):
        raise UsageError(f"{what} {text!r} is neither a number nor three (z,y,x)")
    return numbers[0] if len(numbers) == 1 else tuple(numbers)


def _sigma(text: str) -> float | Literal["auto"]:
    if text == "auto":
        return "auto"
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"--sigma {text!r} is neither auto nor a number") from None


def _index(text: str | None) -> int | Literal["all"] | None:
    if text is None or text == "all":
        return "all" if text == "all" else None
    if not text.isdigit():
        raise UsageError(f"--volume {text!r} is neither a number from 0 nor all")
    return int(text)
