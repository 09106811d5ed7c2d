"""convert: an image of one kind of file to another, with its place in the patient and a report on that."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from voxelrt.errors import OutputError, UsageError
from voxelrt.io import DicomSource, Image, kind_of, read_image, write_image
from voxelrt.io.dicom import GeometryReport
from voxelrt.io.read_write import SUFFIXES
from voxelrt.postprocess.slices import write_film, write_sheet

PICTURES = (".png", ".gif")
DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")


@dataclass(frozen=True, eq=False)
class Converted:
    """What was written.

    Parameters
    ----------
    image
        The image as it was read.
    out
        The file.
    geometry
        Of DICOM: what was found of its geometry and done about it; else None.
    """

    image: Image
    out: Path
    geometry: GeometryReport | None


def convert(
    study: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    series: int | str | None = None,
    volume: int | str | None = None,
    repair: bool = False,
    displayed: bool = False,
    straighten: bool = False,
) -> Converted:
    """Write a study's image in another format, or a picture of it.

    Parameters
    ----------
    study
        A folder or zip of DICOM, a DICOM file, a NIfTI file, a PNG, JPEG or TIFF.
    out
        .nii, .nii.gz, .mha, .nrrd: the image; .png: a sheet of its slices; .gif: a film through them. Whole or not at
        all. Values are in modality units (HU, SUV), in the order of the file's slices,
        with the affine of the series (sheared where the gantry was tilted).
    series, volume, repair
        Of DICOM: which series (number or UID), which of its volumes (name or number; "all" for 4-D), and whether
        missing and uneven slices may be interpolated.
    displayed
        Of DICOM: grey values as they are shown, 0 to 255, instead of modality units.
    straighten
        Of DICOM: resample a tilted series onto an upright grid.

    Raises
    ------
    UsageError : an output that is no NIfTI or is the study itself; options that do not belong to the study.
    InputError : a study that cannot be read. GeometryError, for slices that make no even grid, is one of these.
    OutputError : a file that cannot be written.
    """
    place, target = Path(study), Path(out)
    _refuse(place, target)
    if volume == "all" and place.exists() and kind_of(place) == "NIfTI":
        image = read_image(place, volume_index="all")
    else:
        image = read_image(
            place, series=series, volume=volume, repair=repair, displayed=displayed, straighten=straighten
        )
    if target.suffix == ".png":
        write_sheet(image.volume, target)
    elif target.suffix == ".gif":
        write_film(image.volume, target)
    else:
        write_image(image.volume, target, source=image.source)
    return Converted(image, target, image.source.report if isinstance(image.source, DicomSource) else None)


def _refuse(place: Path, target: Path) -> None:
    """Say at once what would otherwise fail after the reading."""
    if target.name.lower().endswith(DICOM_SUFFIXES):
        raise UsageError(
            f"{target.name!r}: images are not converted to DICOM: a file of another kind does not say the patient, the "
            "study and the scanner, and an object that makes them up is worse than none; results of a DICOM study are "
            "written as DICOM by voxelrt run"
        )
    if not target.name.endswith((*SUFFIXES, *PICTURES)):
        raise UsageError(f"{target.name!r}: the name must end in {', '.join((*SUFFIXES, *PICTURES))}")
    if target.exists() and place.exists() and target.samefile(place):
        raise UsageError(f"{target.name!r} is the study itself; it is never overwritten")
    if not target.parent.is_dir():
        raise OutputError(f"cannot write {target.name!r}: there is no folder {str(target.parent)!r}; make it first")
