"""What a run writes, told by the output's name, the study and the task, and refused before the work where it cannot be.

.nii .nii.gz           the volume on the study's grid
.dcm                   of a DICOM study: labels as segmentation, a classifier's scores as report, or as --format says
a folder               of one DICOM study: segmentation.dcm and report.dcm; of a classifier report.dcm
.png .tif              of an nnU-Net model whose files end so: its labels (--format png: a picture of them)
.json                  of a task beside segmentation: its numbers
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from voxelrt.errors import OutputError, UsageError
from voxelrt.io import DicomSource, Source, kind_of
from voxelrt.io.atomic_folder import refuse_folder
from voxelrt.io.dicom.derived import UidKind, refuse_source, refuse_whole, require_highdicom
from voxelrt.io.dicom.derived_series import refuse_derived
from voxelrt.io.dicom.segmentation import SegKind
from voxelrt.io.label_picture import LABEL_PICTURES
from voxelrt.models.recipe_schema import Recipe
from voxelrt.plan.plan import Plan
from voxelrt.preprocess.study import Place, Study
from voxelrt.volume import Volume

Format = Literal["nifti", "mha", "nrrd", "labels", "png", "gif", "seg", "sr", "rtstruct", "capture", "folder", "json"]

NIFTI = (".nii", ".nii.gz")
DICOM = (".dcm",)
PICTURE = (".png",)
TABLE = (".json", ".csv")
SUFFIXES: dict[Format, tuple[str, ...]] = {
    "nifti": NIFTI, "mha": (".mha",), "nrrd": (".nrrd",), "png": PICTURE, "gif": (".gif",), "seg": DICOM, "sr": DICOM,
    "rtstruct": DICOM, "capture": DICOM, "folder": (), "json": (".json",), "labels": LABEL_PICTURES,
}  # fmt: skip
BY_SUFFIX: tuple[Format, ...] = ("nifti", "mha", "nrrd", "png", "gif", "seg", "json")
VOLUMES: tuple[Format, ...] = ("nifti", "mha", "nrrd")
# What refers to nothing, so that any study has it.
PLAIN: tuple[Format, ...] = (*VOLUMES, "labels", "png", "gif", "json")
PICTURES: tuple[Format, ...] = ("png", "gif")
# Written by highdicom; an RT Structure Set needs pydicom alone.
BY_HIGHDICOM = ("seg", "sr", "capture", "folder")
SEGMENTATION, REPORT = "segmentation.dcm", "report.dcm"


@dataclass(frozen=True)
class Form:
    """How a result is written.

    Parameters
    ----------
    format
        None: as the name says.
    seg
        Of a DICOM segmentation: "binary" or "labelmap"; None is "binary".
    uids
        Of DICOM: "fresh", or "reproducible" from a hash of the content.
    own
        How the model's own label files end, where they are pictures: names that end so then hold labels.
    """

    format: Format | None = None
    seg: SegKind | None = None
    uids: UidKind = "fresh"
    own: str = ""


BY_NAME = Form()


def format_of(out: Path, form: Form = BY_NAME) -> Format:
    """What is to be written at a place. Raises UsageError where format and name contradict each other."""
    if form.format is not None:
        suffixes = SUFFIXES[form.format]
        if not out.name.endswith(suffixes):
            raise UsageError(f"--format {form.format}: the name {out.name!r} must end in {' or '.join(suffixes)}")
        return form.format
    if is_own(out, form):
        return "labels"
    for format_ in BY_SUFFIX:
        if out.name.endswith(SUFFIXES[format_]):
            return format_
    if out.is_dir() or not out.suffix:
        return "folder"
    raise UsageError(f"{out.name!r}: the name must end in {_listed(BY_SUFFIX)}, or be a folder's")


def is_own(out: Path, form: Form) -> bool:
    """Whether a name is that of the model's own label picture, or of one that is asked for."""
    return form.format == "labels" or (form.own != "" and out.name.endswith(form.own))


def is_measured(out: Path, form: Form = BY_NAME) -> bool:
    """Whether what is written holds measurements."""
    return format_of(out, form) in ("sr", "capture", "png", "folder")


def is_report(out: Path | None, form: Form) -> bool:
    """Whether a place takes a report of scores: asked for, or the one DICOM object that a classifier makes."""
    if out is None or form.seg is not None:
        return False
    return form.format == "sr" or (form.format is None and format_of(out) in ("seg", "folder"))


def is_folder_of_one(out: Path | None, form: Form, studies: list[Study]) -> bool:
    """Whether a folder is meant for the objects of one DICOM study, rather than for one file of each of many."""
    return out is not None and form.format is None and len(studies) == 1 and _is_dicom(studies[0])


def refuse_place(path: Path, suffixes: tuple[str, ...], study: Study) -> None:
    """Say at once what would otherwise fail after minutes of work: a wrong name, the study itself, no folder."""
    if not path.name.endswith(suffixes):
        raise UsageError(f"{path.name!r}: the name must end in {' or '.join(suffixes)}")
    if any(_same_file(path, place) for place in _places(study)):
        raise UsageError(f"{path.name!r} is the study itself; it is never overwritten")
    if not path.parent.is_dir():
        raise OutputError(f"cannot write {path.name!r}: there is no folder {str(path.parent)!r}; make it first")


def refuse_output(out: Path | None, form: Form, study: Study) -> None:
    """Refuse DICOM of a study that is none, and a kind of segmentation without one."""
    if out is None:
        return
    format_ = format_of(out, form)
    if format_ == "folder":
        if not _is_dicom(study):
            raise UsageError(
                f"{out.name!r}: the name must end in {_listed((*VOLUMES, *PICTURES))}; DICOM fills folders"
            )
        refuse_folder(out)
    else:
        refuse_place(out, SUFFIXES[format_], study)
    if form.seg is not None and format_ not in ("seg", "folder"):
        raise UsageError("a kind of DICOM segmentation needs an output that is one: a name that ends in .dcm")
    if format_ in PLAIN:
        return
    if not _is_dicom(study):
        raise UsageError(
            "a DICOM result refers to the slices of a DICOM series, and this study is none; write .nii.gz instead"
        )
    if format_ in BY_HIGHDICOM:
        require_highdicom()


def refuse_unreferable(
    out: Path | None, form: Form, recipe: Recipe, source: Source | None
) -> None:  # fmt: skip
    """Once the study is read and before the model runs: refuse what cannot be written as DICOM."""
    format_ = "nifti" if out is None else format_of(out, form)
    if format_ in PLAIN:
        return
    if recipe.output.kind == "image" and format_ == "folder" and isinstance(source, DicomSource):
        refuse_derived(None, source)
        return
    if recipe.output.kind == "classes" and is_report(out, form) and isinstance(source, DicomSource):
        refuse_whole(source)
        return
    if recipe.output.kind in ("image", "classes"):
        raise UsageError(f"{recipe.name} gives no labels ({recipe.output.kind}), so there is no segmentation to write")
    if isinstance(source, DicomSource):
        refuse_whole(source) if format_ == "capture" else refuse_source(source)


def refuse_image(out: Path, *grids: Path) -> None:
    """Refuse a place where no image can be written: a wrong name; a folder, where not all of `grids` are DICOM."""
    if (format_ := format_of(out)) != "folder":
        if format_ not in VOLUMES:
            raise UsageError(f"{out.name!r}: images are written as {_listed(VOLUMES)}, or as DICOM into a folder")
        for grid in grids:
            refuse_place(out, SUFFIXES[format_], grid)
        return
    if not all(_is_dicom(grid) for grid in grids):
        raise UsageError(
            f"{out.name!r}: a folder is filled with a derived DICOM series, and not all that is given is DICOM; write "
            ".nii.gz instead"
        )
    refuse_folder(out)


def own_form(form: Form, plan: Plan) -> Form:
    """The form with how the plan's model keeps its labels: nnU-Net's models of PNG and TIFF answer in these."""
    settings = plan.info.model_settings
    ending = str(settings["file_ending"]) if settings is not None and form.format is None else ""
    return replace(form, own=ending if ending in LABEL_PICTURES else "")


def _listed(formats: tuple[Format, ...]) -> str:
    return ", ".join(suffix for format_ in formats for suffix in SUFFIXES[format_])


def _places(study: Study) -> list[Place | Volume]:
    return list(study.values()) if isinstance(study, Mapping) else [study]


def _is_dicom(study: Study) -> bool:
    return all(not isinstance(place, Volume) and kind_of(Path(place)) == "DICOM" for place in _places(study))


def _same_file(path: Path, place: Place | Volume) -> bool:
    return not isinstance(place, Volume) and path.exists() and Path(place).exists() and path.samefile(place)
