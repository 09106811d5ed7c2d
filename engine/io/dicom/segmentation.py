"""Labels as DICOM Segmentation (PS3.3 A.51, C.8.20) on the slices of the series they were made from, by highdicom."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydicom.uid import ExplicitVRLittleEndian, JPEGLSLossless, generate_uid

from voxelrt.errors import GeometryError, InputError, MissingExtraError, OutputError, UsageError
from voxelrt.io.atomic import atomic_path
from voxelrt.io.dicom.coded_terms import segment_description
from voxelrt.io.dicom.frames import Frame
from voxelrt.io.dicom.quiet import quiet_pydicom
from voxelrt.io.dicom.single_images import REFUSED, as_single_images, refer
from voxelrt.io.image import DicomSource
from voxelrt.volume import Volume

SegKind = Literal["binary", "labelmap"]

# Two grids are one if no voxel lies further off than this (mm).
SAME_GRID_MM = 1e-2
SERIES_NUMBERS_AFTER = 1000
SMALLEST_COMPRESSED = 4096  # voxels of a plane
NOISY = 0.25  # share of voxels that differ from the one before
MAKER = "VoxelRT"


@dataclass(frozen=True)
class Segment:
    """One label.

    Parameters
    ----------
    value
        In the label volume, 1 to 65535.
    name
        What it is called.
    colour
        sRGB, 0 to 255 each, or empty.
    code
        Scheme, value and meaning of its coded term, None where nobody coded it.
    """

    value: int
    name: str
    colour: tuple[int, ...] = ()
    code: tuple[str, str, str] | None = None


@dataclass(frozen=True)
class Algorithm:
    """What made the labels.

    Parameters
    ----------
    name
        Of the model.
    version
        Of VoxelRT.
    plan_sha256
        64 hexadecimal digits that tell the plan.
    precision
        In which it computed.
    """

    name: str
    version: str
    plan_sha256: str
    precision: str


def require_highdicom() -> None:
    """Raises MissingExtraError where highdicom is not installed."""
    try:
        import highdicom  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("highdicom", "dicom-out", "writing DICOM") from error


def write_segmentation(
    labels: Volume,
    path: str | os.PathLike[str],
    source: DicomSource,
    segments: Sequence[Segment],
    algorithm: Algorithm,
    *,
    kind: SegKind = "binary",
) -> None:
    """Write labels as one DICOM object, whole or not at all.

    Parameters
    ----------
    labels
        (1, Z, Y, X) integers on the grid of `source`; 0 is no segment.
    path
        The file.
    source
        The series, as the reader returned it. Its patient and study are copied into the object.
    segments
        The labels' names; values without one become "label 7". A label that is nowhere stays a segment without frames.
    algorithm
        What is said of the maker.
    kind
        "binary": a frame of bits for each segment and slice on which it is (Segmentation Storage); segments are
        numbered from 1 in the order of values, SegmentDescription holds the value. "labelmap": a frame of values for
        each slice with a label (Label Map Segmentation Storage), compressed with JPEG-LS but for tiny or noisy ones.

    Raises
    ------
    UsageError : labels that are no integers in one channel; interpolated planes, which are no slices of the source.
    GeometryError : the labels are not on the source's grid.
    InputError : a source without study or frame of reference, or whose header cannot be read again.
    OutputError : the source's elements or the file cannot be written.
    MissingExtraError : highdicom is not installed.
    """
    require_highdicom()
    frames = _frames(labels, source)
    described = _all_segments(labels.array, segments)
    planes = labels.array[0]
    if not planes.any():
        planes, frames = planes[:1], frames[:1]  # an object has a frame, and one says as much as all of them
    try:
        with quiet_pydicom():
            made = _make(planes, frames, described, algorithm, kind, source, _syntax(planes, kind))
            refer(made, frames)
            with atomic_path(path) as temporary:
                made.save_as(temporary)
    except REFUSED as error:
        raise OutputError(
            f"no DICOM segmentation can be made of this series: an element of its header is not what the standard "
            f"allows ({type(error).__name__}); write NIfTI instead"
        ) from None


def refuse_source(source: DicomSource) -> None:
    """Raise UsageError or InputError for a series on which no segmentation can lie."""
    if source.volume is None:
        raise UsageError("the source does not say its slices; read the series again with voxelrt")
    if source.volume.placement.between:
        raise UsageError(
            f"{len(source.volume.placement.between)} planes were interpolated (repair), not slices of the series: a "
            "DICOM segmentation cannot refer to them; write NIfTI instead"
        )
    for name, uid in (("StudyInstanceUID", source.study_uid), ("FrameOfReferenceUID", source.frame_of_reference_uid)):
        if not uid:
            raise InputError(f"the series has no {name}, so nothing can refer to it; write NIfTI instead")


def _frames(labels: Volume, source: DicomSource) -> list[Frame]:
    """The source's planes, one for each of the labels'."""
    refuse_source(source)
    if labels.array.dtype.kind not in "ub" and (labels.array.dtype.kind != "i" or labels.array.min(initial=0) < 0):
        raise UsageError(f"labels are whole numbers from 0; these are {labels.array.dtype}")
    if labels.array.shape[0] != 1 or int(labels.array.max(initial=0)) > 65535:
        raise UsageError(f"a segmentation has one channel of values up to 65535; this has {labels.array.shape[0]}")
    corner = np.append(np.array(source.shape_zyx[::-1]) - 1, 1)
    apart = float(np.abs((labels.affine - source.affine) * corner).sum(axis=1).max())
    if labels.shape_zyx != source.shape_zyx or apart > SAME_GRID_MM:
        raise GeometryError(f"the labels {labels.shape_zyx} are not on the grid of the series {source.shape_zyx}")
    if source.volume is None:  # refused above
        raise UsageError("the source does not say its slices")
    return list(source.volume.frames)


def _all_segments(array: NDArray[Any], segments: Sequence[Segment]) -> list[Segment]:
    """By value, those that have no name included."""
    found = {segment.value: segment for segment in segments if segment.value != 0}
    counts = np.bincount(array.reshape(-1))
    for value in np.flatnonzero(counts):
        if value != 0:
            found.setdefault(int(value), Segment(int(value), f"label {value}"))
    if not found:
        raise UsageError("the labels have no names and no voxel is labelled: there is no segment to write")
    return [found[value] for value in sorted(found)]


def _make(
    planes: NDArray[Any],
    frames: Sequence[Frame],
    segments: Sequence[Segment],
    algorithm: Algorithm,
    kind: SegKind,
    source: DicomSource,
    syntax: str,
) -> Any:
    """highdicom's object."""
    from highdicom.content import AlgorithmIdentificationSequence
    from highdicom.seg import Segmentation
    from pydicom.sr.codedict import codes

    numbers = [s.value if kind == "labelmap" else number for number, s in enumerate(segments, start=1)]
    table = np.zeros(max(s.value for s in segments) + 1, np.uint8 if max(numbers) < 256 else np.uint16)
    table[[s.value for s in segments]] = numbers
    identification = AlgorithmIdentificationSequence(
        name=algorithm.name[:64],
        family=codes.cid7162.ArtificialIntelligence,
        version=algorithm.version,
        source=MAKER,
        parameters={"plan_sha256": algorithm.plan_sha256, "precision": algorithm.precision},
    )
    series_number = frames[0].header.number_of("SeriesNumber") or 0
    return Segmentation(
        source_images=as_single_images(frames, source),
        pixel_array=table[planes],
        segmentation_type="BINARY" if kind == "binary" else "LABELMAP",
        segment_descriptions=[
            segment_description(s.name, number, s.value, s.code, s.colour, identification)
            for number, s in zip(numbers, segments, strict=True)
        ],
        series_instance_uid=generate_uid(),
        series_number=int(min(abs(series_number), 2**30)) + SERIES_NUMBERS_AFTER,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer=MAKER,
        manufacturer_model_name=MAKER,
        software_versions=algorithm.version,
        device_serial_number=algorithm.plan_sha256[:16],
        content_label="SEGMENTATION",
        content_description=f"Made by {algorithm.name}"[:64],
        series_description=f"Segmentation by {algorithm.name}"[:64],
        transfer_syntax_uid=syntax,
        omit_empty_frames=bool(planes.any()),
        specific_character_set="ISO_IR 192",
        contributing_equipment=[_equipment(algorithm)],
    )


def _syntax(planes: NDArray[Any], kind: SegKind) -> str:
    """JPEG-LS for label maps, which are even; not for tiny planes, which its codec cannot write, nor for noise."""
    if kind == "binary" or planes[0].size < SMALLEST_COMPRESSED:
        return str(ExplicitVRLittleEndian)
    # Where every voxel differs from the next the coded plane would be larger than the plain one.
    changes = float(np.mean(planes[:, :, 1:] != planes[:, :, :-1]))
    return str(ExplicitVRLittleEndian if changes > NOISY else JPEGLSLossless)


def _equipment(algorithm: Algorithm) -> Any:
    from highdicom import ContributingEquipment
    from pydicom.sr.codedict import codes

    return ContributingEquipment(
        MAKER,
        codes.DCM.ProcessingEquipment,
        manufacturer_model_name=MAKER,
        software_versions=algorithm.version,
        contribution_description=f"Segmentation by {algorithm.name}, plan sha256 {algorithm.plan_sha256}",
    )
