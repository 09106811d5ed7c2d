"""voxelrt verify MODEL CASE --against REFERENCE: a whole case through both, side by side."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from voxelrt.commands.console import Screen
from voxelrt.commands.models import is_plan, nnunet_model, open_plan
from voxelrt.errors import ParityError, UnsupportedError, UsageError
from voxelrt.io import read_image, write_nifti
from voxelrt.io.atomic import atomic_path
from voxelrt.memory_size import in_words
from voxelrt.models.nnunet_settings import NnunetSettings, settings_from_json
from voxelrt.models.recipe_schema import Recipe
from voxelrt.pipeline import prepare
from voxelrt.plan.plan import Plan
from voxelrt.postprocess.labels import to_labels
from voxelrt.preprocess.contract import recipe_of
from voxelrt.preprocess.grid import GridMap
from voxelrt.preprocess.layout import from_layout
from voxelrt.preprocess.study import Study
from voxelrt.reference.agreement import Agreement, agree, draw_agreement
from voxelrt.reference.child import Report, run_child
from voxelrt.request import Request
from voxelrt.runtime.model_plan import plan_for_study
from voxelrt.sliding import window_of
from voxelrt.volume import Volume


@dataclass(frozen=True)
class Wanted:
    """What is to be compared, and how.

    Parameters
    ----------
    model : any MODEL argument.
    against : "nnunetv2", "monai" or "onnxruntime".
    case : files of the channels in order, or by name.
    python : the interpreter of the reference's environment.
    configuration, folds, mirroring, source_rounding : of an nnU-Net model.
    threads : of both.
    least : the smallest share of the union of foregrounds that must agree.
    picture : a PNG of where they differ.
    """

    model: str
    against: str
    case: list[Path] | dict[str, Path]
    python: str | None
    configuration: str | None
    folds: tuple[str, ...] | None
    mirroring: bool
    source_rounding: bool
    threads: int | None
    least: float
    picture: Path | None


def verify_case(wanted: Wanted, screen: Screen) -> None:
    """Compare, print and draw.

    Raises
    ------
    MissingPackageError, MissingExtraError : the reference is not installed.
    UnsupportedError : the reference does not take this model. ParityError : they agree less than `least`.
    """
    with screen.progress() as (tell, say), tempfile.TemporaryDirectory(prefix="voxelrt-verify-") as scratch:
        folder = Path(scratch)
        plan, study = _plan(wanted, tell, say)
        recipe = recipe_of(plan)
        _refuse(wanted.against, plan, recipe)
        place = folder / "plan.vxp"
        plan.save(place)
        say("running the case through VoxelRT")
        nnunet = plan.info.model_settings is not None
        options: dict[str, Any] = {"mirroring": wanted.mirroring} if nnunet else {}
        if wanted.source_rounding:
            options["source_rounding"] = True
        job = {"plan": str(place), "study": _as_json(study), "options": options, "threads": wanted.threads}
        ours = run_child("voxelrt", {**job, "executor": "ours", "out": str(folder / "ours.nii.gz")}, folder)
        say(f"running it through {wanted.against}")
        out = folder / "reference.nii.gz"
        if wanted.against == "onnxruntime":
            theirs = run_child("voxelrt", {**job, "executor": "onnxruntime", "out": str(out)}, folder)
        elif wanted.against == "nnunetv2":
            theirs = _nnunet(wanted, plan, study, folder, out)
        else:
            theirs = _monai(wanted, plan, recipe, study, folder, out)
        made, reference = read_image(folder / "ours.nii.gz").volume, read_image(out).volume
        names = {label.value: label.name for label in recipe.output.labels}
        made = Volume(made.array, made.affine, names)
        agreement = agree(made, reference)
        image = prepare(plan, Request(study), tell).opened.volume if wanted.picture is not None else None
    _show(screen, wanted.against, ours, theirs, agreement)
    if wanted.picture is not None and image is not None:
        caption = f"{agreement.differing} of {agreement.union} voxels of the union of foregrounds differ"
        drawn = draw_agreement(image, made, reference, f"{plan.info.name} against {wanted.against}", caption)
        with atomic_path(wanted.picture) as temporary:
            drawn.save(temporary, format="PNG")
    passed = agreement.equal >= wanted.least
    head = {"name": plan.info.name, "against": wanted.against, "least": wanted.least, "passed": passed}
    screen.json({**head, "ours": vars(ours), "reference": vars(theirs), "agreement": agreement.record()})
    if not passed:
        raise ParityError(
            f"{agreement.equal:.4%} of the union of foregrounds agree with {wanted.against}; "
            f"{wanted.least:.4%} are asked for"
        )


def _plan(wanted: Wanted, tell: Any, say: Any) -> tuple[Plan, Study]:
    if is_plan(wanted.model):
        plan = open_plan(wanted.model, threads=wanted.threads)
    else:
        model = nnunet_model(wanted.model, wanted.configuration, wanted.folds, say)
        first: Study = wanted.case if isinstance(wanted.case, dict) else wanted.case[0]
        plan = plan_for_study(model, first, threads=wanted.threads, tell=tell, say=say)
    channels = [channel.name for channel in recipe_of(plan).input.channels]
    case = wanted.case
    if isinstance(case, dict):
        return plan, dict(case)
    if len(case) != len(channels):
        raise UsageError(f"the model takes the images {', '.join(channels)}; {len(case)} are given")
    return plan, dict(zip(channels, case, strict=True)) if len(case) > 1 else case[0]


def _refuse(against: str, plan: Plan, recipe: Recipe) -> None:
    nnunet = plan.info.model_settings is not None
    if against == "nnunetv2" and not nnunet:
        raise UnsupportedError(
            f"{plan.info.name} is no model of nnU-Net; --against monai or onnxruntime take a recipe's"
        )
    if against == "monai" and nnunet:
        raise UnsupportedError(
            "MONAI's inferer has not nnU-Net's windows; --against nnunetv2 or onnxruntime take its models"
        )
    if against == "monai" and recipe.input.layout not in ("NCZYX", "NCYX"):
        raise UnsupportedError(f"MONAI's networks have channels first; this one's layout is {recipe.input.layout}")
    if recipe.output.kind not in ("logits", "probability", "labels"):
        raise UnsupportedError(f"labels are compared; {recipe.name} answers with {recipe.output.kind}")


def _nnunet(wanted: Wanted, plan: Plan, study: Study, folder: Path, out: Path) -> Report:
    """nnU-Net's predictor on the same files."""
    from voxelrt.models.formats.nnunet_folder import training_folder

    settings: NnunetSettings = settings_from_json(plan.info.model_settings)
    if is_plan(wanted.model) or settings.previous_stage or plan.info.recipe:
        raise UnsupportedError(
            "nnU-Net's predictor is run on a result folder of one stage, not on plans, cascades or composites"
        )
    if out.name != f"reference{settings.file_ending}":
        raise UnsupportedError(f"the model's files end in {settings.file_ending}; cases in .nii.gz are compared")
    paths = [study[c.name] for c in settings.channels] if isinstance(study, Mapping) else [study]
    files = []
    for number, path in enumerate(paths):
        if str(path).endswith(settings.file_ending):
            files.append(str(Path(str(path)).resolve()))
            continue
        image = read_image(path).volume if not isinstance(path, Volume) else path
        files.append(str(folder / f"case_{number:04d}.nii.gz"))
        write_nifti(image, files[-1])
    training = training_folder(Path(wanted.model), wanted.configuration)
    folds = [fold if fold == "all" else int(fold) for fold in settings.folds]
    job = {
        "folder": str(training.resolve()),
        "folds": folds,
        "checkpoint": "checkpoint_final.pth",
        "files": files,
        "out": str(out).removesuffix(settings.file_ending),
        "mirroring": wanted.mirroring,
        "threads": wanted.threads,
    }
    return run_child("nnunet", job, folder, wanted.python)


def _monai(wanted: Wanted, plan: Plan, recipe: Recipe, study: Study, folder: Path, out: Path) -> Report:
    """MONAI's inferer on the network's grid; the way there and back is ours."""
    from voxelrt.plan.kept import portable_graph

    ready = prepare(plan, Request(study), lambda stage, step, steps: None)
    if not isinstance(ready.way, GridMap):
        raise UnsupportedError("MONAI's inferer takes one volume on one grid")
    np.save(folder / "volume.npy", np.ascontiguousarray(from_layout(ready.tensor, recipe.input.layout), np.float32))
    source = Path(recipe.folder) / recipe.source.path if recipe.source.path else None
    if source is not None and source.suffix in (".pt", ".pt2", ".ts") and source.is_file():
        network = source
    else:
        network = folder / "network.onnx"
        graph = portable_graph(plan)
        ir.save(graph, network)
    sliding, window = recipe.input.sliding, window_of(plan, recipe)
    roi = list(window if "Z" in recipe.input.layout else window[1:])
    options: dict[str, Any] = {"overlap": 0.0}
    if recipe.input.window == "sliding":
        options = {
            "overlap": list(sliding.overlap) if len(sliding.overlap) > 1 else sliding.overlap[0],
            "mode": sliding.mode,
            "sigma_scale": list(sliding.sigma_scale) if len(sliding.sigma_scale) > 1 else sliding.sigma_scale[0],
            "padding_mode": sliding.padding_mode,
            "cval": sliding.cval,
        }
    job = {
        "network": str(network),
        "input": recipe.input.name,
        "output": recipe.output.name,
        "volume": str(folder / "volume.npy"),
        "roi": roi,
        "options": options,
        "out": str(folder / "answer.npy"),
        "threads": wanted.threads,
    }
    report = run_child("monai", job, folder, wanted.python)
    answer = np.load(folder / "answer.npy", allow_pickle=False)
    write_nifti(to_labels(answer, recipe.output, ready.way, ready.opened.volume), out)
    return report


def _show(screen: Screen, against: str, ours: Report, theirs: Report, agreement: Agreement) -> None:
    """Two tables: time and memory side by side, and Dice of each class."""
    windows = against == "monai"
    mine = ours.stages.get("run", ours.seconds) if windows else ours.seconds
    seconds, memory = theirs.seconds / max(mine, 1e-9), theirs.peak_bytes / max(1, ours.peak_bytes)
    rows = [
        ("VoxelRT", f"{mine:.2f} s", in_words(ours.peak_bytes), _versions(ours)),
        (against, f"{theirs.seconds:.2f} s", in_words(theirs.peak_bytes), _versions(theirs)),
        ("ratio", f"{seconds:.1f}x", f"{memory:.1f}x", ""),
    ]
    screen.table(("", ">network and windows" if windows else ">study to labels", ">peak memory", "versions"), rows)
    screen.line()
    screen.table(
        ("class", ">Dice", ">voxels", ">reference", ">mL", ">reference"),
        [
            (r.name, f"{r.dice:.6f}", r.ours_voxels, r.reference_voxels, f"{r.ours_ml:.2f}", f"{r.reference_ml:.2f}")
            for r in agreement.classes
        ],
    )
    screen.line(
        f"{agreement.equal:.4%} of the union of foregrounds agree: "
        f"{agreement.differing} of {agreement.union} voxels differ"
    )


def _versions(report: Report) -> str:
    return ", ".join(f"{name} {version}" for name, version in report.versions.items())


def _as_json(study: Study) -> Any:
    if isinstance(study, Mapping):
        return {name: str(path) for name, path in study.items()}
    return str(study)
