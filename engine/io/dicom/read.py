"""A volume of a series into memory: sorted, scaled, repaired where that was asked for, with its report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxelrt.errors import GeometryError
from voxelrt.io.dicom.frames import Frame
from voxelrt.io.dicom.pixels import read_stored
from voxelrt.io.dicom.series import Series, SeriesVolume
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
) -> Image:
    """Read one volume of one DICOM series (CT, MR, PET and the like; single frames, enhanced objects, mosaics).

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

    Returns
    -------
    image
        Volume (1, Z, Y, X), or (volumes, Z, Y, X) for "all": slices sorted along their normal, rows and columns as
        stored; affine to LPS mm (sheared where the gantry was tilted); modality set. Values in modality units: int16
        where they are whole and fit, else float32 (float64 where more than 24 bits are stored).

    Raises
    ------
    InputError : no images, several series or volumes and no choice, a damaged or truncated file, colour.
    GeometryError : no position, mixed sizes, orientations, spacings or frames of reference; without `repair` repeated
        positions, gaps, uneven spacing.
    MissingExtraError : compressed pixels without a decoder.
    UsageError : no such series or volume.
    """
    study = open_dicom(path)
    return read_series(study.choose(series), volume=volume, repair=repair, suv=suv, warnings=study.warnings)


def read_series(
    series: Series,
    *,
    volume: int | str | None = None,
    repair: bool = False,
    suv: bool = True,
    warnings: Sequence[str] = (),
) -> Image:
    """Read one volume of a series that was chosen; as `read_dicom_series`. `warnings` come first in the image's."""
    names = list(range(1, len(series.volume_names) + 1)) if volume == "all" else [volume]
    chosen = [series.volume(name, repair=repair) for name in names]
    for other in chosen[1:]:
        _refuse_other_grid(chosen[0], other)
    arrays, sentences = [], list(warnings)
    for one in chosen:
        values, notes = _values(one, suv)
        arrays.append(values)
        prefix = f"{one.name}: " if len(chosen) > 1 else ""
        sentences += [prefix + text for text in (*one.report.sentences, *notes) if prefix + text not in sentences]
    first = chosen[0]
    array = arrays[0][None] if len(arrays) == 1 else np.stack(np.broadcast_arrays(*arrays))
    made = Volume(array, first.affine, modality=series.modality)
    return Image(made, tuple(sentences), _source(series, first, made))


def _values(volume: SeriesVolume, suv: bool) -> tuple[NDArray[Any], list[str]]:
    """(Z, Y, X) in modality units, interpolated planes included."""
    between = volume.placement.between
    frames: list[Frame] = list(volume.frames)
    extra = sorted({index for pair in between.values() for index in pair[:2]})
    stored = read_stored(frames + [volume.sources[index] for index in extra])
    values, notes = to_modality(stored, frames + [volume.sources[index] for index in extra], suv=suv)
    where = {index: len(frames) + k for k, index in enumerate(extra)}
    for plane, (lower, upper, weight) in between.items():
        mixed = (1 - weight) * values[where[lower]].astype(np.float64) + weight * values[where[upper]]
        values[plane] = np.rint(mixed) if values.dtype.kind == "i" else mixed
    return values[: len(frames)], notes.sentences


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
