"""Any image by its path: what is there is told by its content, never by its name; then the right reader is called."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from voxelrt.errors import InputError, UsageError
from voxelrt.io.dicom import looks_like_dicom, read_dicom_series
from voxelrt.io.dicom.contents import is_zip
from voxelrt.io.image import Image, NiftiSource, Source
from voxelrt.io.metaimage import is_metaimage, read_metaimage, write_metaimage
from voxelrt.io.nifti import is_nifti, read_nifti, write_nifti
from voxelrt.io.nrrd import is_nrrd, read_nrrd, write_nrrd
from voxelrt.io.picture import is_picture, read_picture
from voxelrt.volume import Volume

Kind = Literal["NIfTI", "DICOM", "MetaImage", "NRRD", "picture"]
# What needs nothing but its path.
READERS: dict[Kind, Callable[[Path], Image]] = {
    "MetaImage": read_metaimage, "NRRD": read_nrrd,
}  # fmt: skip
# What `write_image` takes.
SUFFIXES = (".nii", ".nii.gz", ".mha", ".nrrd")


def read_image(
    path: str | os.PathLike[str],
    *,
    volume_index: int | Literal["all"] | None = None,
    series: int | str | None = None,
    volume: int | str | None = None,
    repair: bool = False,
    displayed: bool = False,
    straighten: bool = False,
) -> Image:
    """Read an image: DICOM (a folder or zip with a series, or one file), NIfTI, MetaImage, NRRD, PNG, JPEG or TIFF.

    Parameters
    ----------
    path
        The file or folder.
    volume_index
        Which volume of a 4-D NIfTI file; "all" makes them channels.
    series
        SeriesNumber or SeriesInstanceUID of the wanted series, where DICOM holds several.
    volume
        Which volume of a DICOM series that holds several: name, number from 1, or "all" for channels. Of a slide the
        number of a level.
    repair
        Leave out repeated DICOM slices and interpolate missing and uneven ones, instead of refusing them.
    displayed
        Grey values of DICOM as they are shown, 0 to 255: by VOI LUT or window, MONOCHROME1 inverted.
    straighten
        Resample a tilted DICOM series onto an upright grid instead of keeping its sheared one.

    Raises
    ------
    InputError : nothing there, not an image that is read, damaged. GeometryError is one of these.
    UsageError : an option that does not belong to this kind of file.
    MissingExtraError : compressed DICOM without a decoder.
    """
    place = Path(path)
    kind = kind_of(place)
    options = (series is not None, repair, displayed, straighten)
    if kind == "picture" and not any(options) and volume_index is None:
        return read_picture(place, level=volume)
    if kind != "DICOM" and (any(options) or volume is not None):
        raise UsageError(
            f"{place.name!r} is a {kind} file; series=, volume=, repair=, displayed= and straighten= are for DICOM"
        )
    if kind != "NIfTI" and volume_index is not None:
        raise UsageError(f"{place.name!r} is {kind}; volume_index= is for NIfTI")
    if kind == "NIfTI":
        return read_nifti(place, volume_index=volume_index)
    if kind in READERS:
        return READERS[kind](place)
    return read_dicom_series(
        place, series=series, volume=volume, repair=repair, displayed=displayed, straighten=straighten
    )


def write_image(volume: Volume, path: str | os.PathLike[str], *, source: Source | None = None) -> None:
    """Write a volume in the format that the suffix names: .nii or .nii.gz, .mha (MetaImage) or .nrrd.

    Parameters
    ----------
    volume
        (C, Z, Y, X).
    path
        The file to write.
    source
        What the volume was made from, as the reader returned it. From a NIfTI file, its forms are copied bit for bit;
        from DICOM, the volume's own affine (already the series') is written.

    Raises
    ------
    UsageError : another suffix.
    GeometryError : the volume is not on the NIfTI source's grid.
    OutputError : the file cannot be written.
    """
    name = Path(path).name
    if name.endswith(".mha"):
        write_metaimage(volume, path)
        return
    if name.endswith(".nrrd"):
        write_nrrd(volume, path)
        return
    write_nifti(volume, path, source=source if isinstance(source, NiftiSource) else None)


def kind_of(place: Path) -> Kind:
    """What is there, by content. Raises InputError if it is none of these."""
    if place.is_dir():
        return "DICOM"
    try:
        with open(place, "rb") as stream:
            start = stream.read(132)
    except OSError as error:
        raise InputError(f"cannot read {place.name!r}: {error.strerror or type(error).__name__}") from error
    if not start:
        raise InputError(f"{place.name!r} is empty")
    if looks_like_dicom(start) or is_zip(place):
        return "DICOM"
    if is_picture(start):
        return "picture"
    if is_nrrd(start):
        return "NRRD"
    if is_metaimage(start):
        return "MetaImage"
    if is_nifti(place):
        return "NIfTI"
    raise InputError(
        f"{place.name!r} is neither NIfTI (.nii, .nii.gz, .hdr/.img), MetaImage, NRRD, PNG, JPEG, TIFF nor DICOM; "
        "convert it first"
    )
