"""What a run writes, told by the output's name, the study and the task, and refused before the work where it cannot be.

.nii .nii.gz           the volume on the study's grid
.dcm                   of a DICOM study: labels as segmentation, a classifier's scores as report, or as --format says
a folder               of one DICOM study: segmentation.dcm and report.dcm; of a classifier report.dcm
.png .tif              of an nnU-Net model whose files end so: its labels (--format png: a picture of them)
.json                  of a task beside segmentation: its numbers
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from voxelrt.errors import OutputError, UsageError
from voxelrt.io import DicomSource, Source, kind_of, write_image
from voxelrt.io.atomic_folder import atomic_folder, refuse_folder
from voxelrt.io.dicom.capture import write_capture
from voxelrt.io.dicom.derived import Algorithm, Segment, UidKind, digest, refuse_source, refuse_whole, require_highdicom
from voxelrt.io.dicom.derived_series import BY_NETWORK, Derivation, refuse_derived, write_derived_series
from voxelrt.io.dicom.report import write_report
from voxelrt.io.dicom.segmentation import SegKind, write_segmentation
from voxelrt.io.dicom.structure_set import write_structure_set
from voxelrt.io.label_picture import LABEL_PICTURES, write_label_picture
from voxelrt.models.recipe_schema import Recipe
from voxelrt.plan.plan import Plan
from voxelrt.postprocess.measurements import Measured
from voxelrt.postprocess.overlay import draw_overlay, overlay_picture
from voxelrt.postprocess.slices import write_film, write_sheet
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


@dataclass(frozen=True, eq=False)
class Finding:
    """A result with all that its files say.

    Parameters
    ----------
    volume
        Labels, or an image, on the study's grid.
    image
        The study's image.
    source
        Where it came from.
    recipe
        Names, colours and codes of the labels.
    algorithm
        What made it.
    measured
        Of each label; empty for an image.
    colours
        Of a picture in colour: what pictures of the result show in place of the image.
    """

    volume: Volume
    image: Volume
    source: Source | None
    recipe: Recipe
    algorithm: Algorithm
    measured: list[Measured]
    colours: Volume | None = None

    @property
    def shown(self) -> Volume:
        """What lies below the labels in a picture."""
        return self.image if self.colours is None else self.colours


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


def write_result(found: Finding, out: Path, form: Form = BY_NAME) -> None:
    """Write a result at a place: one file, or a folder, whole or not at all.

    Raises
    ------
    UsageError : DICOM without a DICOM source.
    OutputError, GeometryError, InputError : as the writers.
    """
    format_ = format_of(out, form)
    if format_ in VOLUMES:
        write_image(found.volume, out, source=found.source)
        return
    if format_ == "labels":
        write_label_picture(found.volume, out)
        return
    if format_ in PICTURES:
        _picture(found, out, format_)
        return
    if not isinstance(found.source, DicomSource):
        raise UsageError("a DICOM result is written of a DICOM study, one at a time")
    if format_ == "folder" and found.recipe.output.kind == "image":
        write_derived_series(found.volume, out, found.source, found.algorithm, BY_NETWORK, uids=form.uids)
    elif format_ == "folder":
        with atomic_folder(out) as folder:
            made = _segmentation(found, folder / SEGMENTATION, found.source, form)
            _report(found, folder / REPORT, found.source, form, made)
    elif format_ == "seg":
        _segmentation(found, out, found.source, form)
    elif format_ == "sr":
        _report(found, out, found.source, form, None)
    elif format_ == "capture":
        picture = draw_overlay(found.shown, found.volume, title=title_of(found.recipe), caption=caption_of(found))
        write_capture(picture, out, found.source, found.algorithm, uids=form.uids)
    else:
        segments = segments_of(found.volume, found.recipe)
        write_structure_set(found.volume, out, found.source, segments, found.algorithm, uids=form.uids)


def _picture(found: Finding, out: Path, format_: Format) -> None:
    is_image = found.recipe.output.kind == "image"
    shown, labels = (found.volume, None) if is_image else (found.shown, found.volume)
    if format_ == "gif":
        write_film(shown, out, labels=labels)
    elif labels is None:
        write_sheet(shown, out, title=title_of(found.recipe))
    else:
        overlay_picture(shown, labels, out, title=title_of(found.recipe), caption=caption_of(found))


def title_of(recipe: Recipe) -> str:
    """The line above a picture."""
    return recipe.title or recipe.name


def caption_of(found: Finding) -> str:
    """The line below a picture."""
    return ", ".join(f"{one.name} {one.words}" for one in found.measured)


def _listed(formats: tuple[Format, ...]) -> str:
    return ", ".join(suffix for format_ in formats for suffix in SUFFIXES[format_])


def _segmentation(found: Finding, out: Path, source: DicomSource, form: Form) -> object:
    segments, kind = segments_of(found.volume, found.recipe), form.seg or "binary"
    return write_segmentation(found.volume, out, source, segments, found.algorithm, kind=kind, uids=form.uids)


def _report(found: Finding, out: Path, source: DicomSource, form: Form, segmentation: object) -> None:
    segments = segments_of(found.volume, found.recipe)
    write_report(
        found.measured,
        found.image,
        out,
        source,
        segments,
        found.algorithm,
        segmentation=segmentation,
        uids=form.uids,
    )


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


def write_derived_image(
    volume: Volume,
    out: Path,
    source: Source,
    algorithm: Algorithm,
    derivation: Derivation,
    *,
    moving: Source | None = None,
    uids: UidKind = "fresh",
) -> None:
    """Write an image on the grid of `source`: into a folder as a derived DICOM series, else as the name says.

    Raises
    ------
    UsageError, GeometryError, InputError, OutputError : as `write_derived_series` and `write_image`.
    """
    if format_of(out) != "folder":
        write_image(volume, out, source=source)
    elif isinstance(source, DicomSource) and (moving is None or isinstance(moving, DicomSource)):
        write_derived_series(volume, out, source, algorithm, derivation, moving=moving, uids=uids)
    else:
        raise UsageError("a derived DICOM series is made of DICOM series only; write .nii.gz instead")


def method(name: str, *settings: object) -> Algorithm:
    """What is said of a method that is no network: a hash of its settings stands for that of a plan."""
    return Algorithm(name, version("voxelrt"), digest(*settings), "fp32")


def segments_of(volume: Volume, recipe: Recipe) -> list[Segment]:
    """The volume's labels with the recipe's colours and codes, where it has them."""
    said = {label.value: label for label in recipe.output.labels}
    segments = []
    for value, name in volume.labels.items():
        label = said.get(value)
        code = label.code if label is not None else None
        coded = None if code is None else (code.scheme, code.value, code.meaning)
        segments.append(Segment(value, name, label.colour if label is not None else (), coded))
    return segments


def own_form(form: Form, plan: Plan) -> Form:
    """The form with how the plan's model keeps its labels: nnU-Net's models of PNG and TIFF answer in these."""
    settings = plan.info.model_settings
    ending = str(settings["file_ending"]) if settings is not None and form.format is None else ""
    return replace(form, own=ending if ending in LABEL_PICTURES else "")


def algorithm_of(plan: Plan) -> Algorithm:
    """What is said of a plan in what it makes: its description holds the hashes of its graph and weights."""
    described = hashlib.sha256(plan.info.to_json()).hexdigest()
    return Algorithm(plan.info.name, version("voxelrt"), described, plan.info.precision)


def _places(study: Study) -> list[Place | Volume]:
    return list(study.values()) if isinstance(study, Mapping) else [study]


def _is_dicom(study: Study) -> bool:
    return all(not isinstance(place, Volume) and kind_of(Path(place)) == "DICOM" for place in _places(study))


def _same_file(path: Path, place: Place | Volume) -> bool:
    return not isinstance(place, Volume) and path.exists() and Path(place).exists() and path.samefile(place)
