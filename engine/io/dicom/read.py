"""A volume of a series into memory: sorted, scaled, repaired where that was asked for, with its report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxelrt.errors import GeometryError
from voxelrt.io.dicom.colour import is_colour, read_colours
from voxelrt.io.dicom.display import as_displayed
from voxelrt.io.dicom.frames import Frame
from voxelrt.io.dicom.pixels import read_stored
from voxelrt.io.dicom.planar import UNKNOWN, is_picture
from voxelrt.io.dicom.series import Series, SeriesVolume
from voxelrt.io.dicom.slide import open_dicom_slide
from voxelrt.io.dicom.straighten import straighten as upright
from voxelrt.io.dicom.study import Place, open_dicom
from voxelrt.io.dicom.values import to_modality
from voxelrt.io.image import DicomSource, Image
from voxelrt.volume import Volume

# The same voxel of two volumes of a series may lie this far apart for them to be channels of one image (mm).
SAME_GRID_MM = 1e-2


def read_dicom_series(
    path: Place | Sequence[Place],
    *,
    series: int | str | None = None,
    volume: int | str | None = None,
    repair: bool = False,
    suv: bool = True,
    displayed: bool = False,
    straighten: bool = False,
) -> Image:
    """Read one volume of one DICOM series (CT, MR, PET and the like; single frames, enhanced objects, mosaics), or a
    picture or cine (CR, DX, mammogram, ultrasound, fundus, photograph).

    Parameters
    ----------
    path
        A folder (searched with its subfolders; files are told by content), a zip, a file, or the files.
    series
        SeriesNumber or SeriesInstanceUID of the wanted series, where there are several.
    volume
        Name or number (from 1) of the wanted volume, where the series holds several; "all" makes them channels.
    repair
        Leave out repeated slices and interpolate missing and uneven ones, instead of refusing them.
    suv
        PET in Bq/mL becomes the standardised uptake by body weight.
    displayed
        Grey values as they are shown, float32 from 0 to 255: by VOI LUT or window, MONOCHROME1 inverted.
    straighten
        Resample a tilted (sheared) stack onto an upright grid; DICOM objects cannot refer to it.

    Returns
    -------
    image
        Volume (1, Z, Y, X), or (volumes, Z, Y, X) for "all": slices sorted along their normal, rows and columns as
        stored; affine to LPS mm (sheared where the gantry was tilted); modality set. Values in modality units: int16
        where they are whole and fit, else float32 (float64 where more than 24 bits are stored). Of colour pictures
        (3, frames, Y, X) red, green and blue. The affine of pictures has their pixels' size, and their directions
        where the file says them; the report tells what was assumed.

    Raises
    ------
    InputError : no images, several series or volumes and no choice, a damaged or truncated file.
    GeometryError : no position, mixed sizes, orientations, spacings or frames of reference; without `repair` repeated
        positions, gaps, uneven spacing.
    MissingExtraError : compressed pixels without a decoder.
    UsageError : no such series or volume.
    """
    study = open_dicom(path)
    chosen = study.choose(series)
    options: dict[str, Any] = {"volume": volume, "repair": repair, "suv": suv, "displayed": displayed}
    return read_series(chosen, **options, straighten=straighten, warnings=study.warnings_of(chosen))


def read_series(
    series: Series,
    *,
    volume: int | str | None = None,
    repair: bool = False,
    suv: bool = True,
    displayed: bool = False,
    straighten: bool = False,
    warnings: Sequence[str] = (),
) -> Image:
    """Read one volume of a series that was chosen; as `read_dicom_series`. `warnings` come first in the image's."""
    if series.slide:
        return _level(series, volume, warnings)
    names = list(range(1, len(series.volume_names) + 1)) if volume == "all" else [volume]
    chosen = [series.volume(name, repair=repair) for name in names]
    for other in chosen[1:]:
        _refuse_other_grid(chosen[0], other)
    arrays, sentences, straight = [], list(warnings), []
    for one in chosen:
        values, notes = _values(one, suv, displayed)
        if straighten and not series.pictures:
            values, placement = upright(values, one.placement)
            one = replace(one, placement=placement)
            straight.append(one)
        arrays.append(values)
        prefix = f"{one.name}: " if len(chosen) > 1 else ""
        sentences += [prefix + text for text in (*one.report.sentences, *notes) if prefix + text not in sentences]
    first = straight[0] if straight else chosen[0]
    array = arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
    placed = first.report.orientation_xyz != UNKNOWN
    made = Volume(
        array,
        first.affine,
        modality=series.modality,
        placed=placed,
        lengths=first.report.lengths,
        colour=len(chosen) == 1 and _is_in_colour(first),
    )
    return Image(made, tuple(sentences), _source(series, first, made))


def _level(series: Series, which: int | str | None, warnings: Sequence[str]) -> Image:
    """One level of a whole slide, (3, 1, rows, columns)."""
    slide = open_dicom_slide(series.headers)
    if which is None and len(slide.levels) > 1:
        raise slide.several()
    level = slide.chosen(which)
    made = slide.whole(level)
    first = series.headers[0]
    source = DicomSource(
        files=tuple(header.content.path for header in series.headers),
        sop_instance_uids=tuple(header.text("SOPInstanceUID") for header in series.headers),
        sop_class_uid=first.text("SOPClassUID"),
        study_uid=first.text("StudyInstanceUID"),
        series_uid=series.uid,
        frame_of_reference_uid=first.text("FrameOfReferenceUID"),
        affine=made.affine,
        shape_zyx=made.shape_zyx,
    )
    return Image(made, (*warnings, f"level {level + 1}: {slide.levels[level].words}", *slide.warnings), source)


def _values(volume: SeriesVolume, suv: bool, displayed: bool) -> tuple[NDArray[Any], list[str]]:
    """(C, Z, Y, X) in modality units or as displayed, interpolated planes included; colours have three channels."""
    if _is_in_colour(volume):
        return read_colours(volume.frames), []
    between = volume.placement.between
    frames: list[Frame] = list(volume.frames)
    extra = sorted({index for pair in between.values() for index in pair[:2]})
    stored = read_stored(frames + [volume.sources[index] for index in extra])
    sources = frames + [volume.sources[index] for index in extra]
    values, notes = to_modality(stored, sources, suv=suv, displayed=displayed)
    where = {index: len(frames) + k for k, index in enumerate(extra)}
    for plane, (lower, upper, weight) in between.items():
        mixed = (1 - weight) * values[where[lower]].astype(np.float64) + weight * values[where[upper]]
        values[plane] = np.rint(mixed) if values.dtype.kind == "i" else mixed
    values = values[: len(frames)]
    if not displayed:
        return values[None], notes.sentences
    shown, more = as_displayed(values, frames)
    return shown[None], notes.sentences + more


def _is_in_colour(volume: SeriesVolume) -> bool:
    return any(is_picture(frame.header) and is_colour(frame.header) for frame in volume.frames)


def _source(series: Series, volume: SeriesVolume, made: Volume) -> DicomSource:
    first = volume.frames[0].header
    return DicomSource(
        files=tuple(frame.header.content.path for frame in volume.frames),
        sop_instance_uids=tuple(frame.sop_instance_uid for frame in volume.frames),
        sop_class_uid=first.text("SOPClassUID"),
        study_uid=first.text("StudyInstanceUID"),
        series_uid=series.uid,
        frame_of_reference_uid=first.text("FrameOfReferenceUID"),
        affine=made.affine,
        shape_zyx=made.shape_zyx,
        body_part=first.text("BodyPartExamined"),
        series_description=series.description,
        volume=volume,
    )


def _refuse_other_grid(first: SeriesVolume, other: SeriesVolume) -> None:
    if first.shape_zyx != other.shape_zyx or not np.allclose(first.affine, other.affine, rtol=0, atol=SAME_GRID_MM):
        raise GeometryError(
            f"the volumes {first.name!r} and {other.name!r} of the series lie on different grids, so they are not "
            "channels of one image; read them one by one"
        )
