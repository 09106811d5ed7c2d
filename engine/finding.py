"""A result with all that its files say of it, and the writing of it in any form that ``voxelrt.outputs`` knows."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from voxelrt.errors import UsageError
from voxelrt.io import DicomSource, Source, write_image
from voxelrt.io.atomic_folder import atomic_folder
from voxelrt.io.dicom.capture import write_capture
from voxelrt.io.dicom.derived import Algorithm, Segment, UidKind, digest
from voxelrt.io.dicom.derived_series import BY_NETWORK, Derivation, write_derived_series
from voxelrt.io.dicom.report import write_report
from voxelrt.io.dicom.segmentation import write_segmentation
from voxelrt.io.dicom.structure_set import write_structure_set
from voxelrt.io.label_picture import write_label_picture
from voxelrt.models.recipe_schema import Recipe
from voxelrt.outputs import BY_NAME, PICTURES, REPORT, SEGMENTATION, VOLUMES, Form, Format, format_of
from voxelrt.plan.plan import Plan
from voxelrt.postprocess.measurements import Measured
from voxelrt.postprocess.overlay import draw_overlay, overlay_picture
from voxelrt.postprocess.slices import write_film, write_sheet
from voxelrt.volume import Volume


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


def method(name: str, *settings: object) -> Algorithm:
    """What is said of a method that is no network: a hash of its settings stands for that of a plan."""
    return Algorithm(name, version("voxelrt"), digest(*settings), "fp32")


def algorithm_of(plan: Plan) -> Algorithm:
    """What is said of a plan in what it makes: its description holds the hashes of its graph and weights."""
    described = hashlib.sha256(plan.info.to_json()).hexdigest()
    return Algorithm(plan.info.name, version("voxelrt"), described, plan.info.precision)
