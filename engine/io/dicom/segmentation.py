"""Labels as DICOM Segmentation (PS3.3 A.51, C.8.20) on the slices of the series they were made from, by highdicom."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian, RLELossless

from voxelrt.errors import OutputError
from voxelrt.io.atomic import atomic_path
from voxelrt.io.dicom.binary_frames import take_frames
from voxelrt.io.dicom.coded_terms import segment_description
from voxelrt.io.dicom.derived import (
    MAKER,
    Algorithm,
    Segment,
    UidKind,
    Uids,
    all_segments,
    equipment,
    labels_of,
    planes_of,
    require_highdicom,
    series_number,
)
from voxelrt.io.dicom.quiet import quiet_pydicom
from voxelrt.io.dicom.run_lengths import encode_frames
from voxelrt.io.dicom.single_images import REFUSED, as_single_images, numbers_of_planes, refer
from voxelrt.io.image import DicomSource
from voxelrt.volume import Volume

SegKind = Literal["binary", "labelmap"]

NOISY = 0.25  # share of voxels that differ from the one before


def write_segmentation(
    labels: Volume,
    path: str | os.PathLike[str],
    source: DicomSource,
    segments: Sequence[Segment],
    algorithm: Algorithm,
    *,
    kind: SegKind = "binary",
    uids: UidKind = "fresh",
) -> Any:
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
        each slice with a label (Label Map Segmentation Storage), as run lengths (RLE Lossless) but for noise.
    uids
        "fresh", or "reproducible": the same labels of the same series by the same algorithm give the same file.

    Returns
    -------
    made : the object, without its frames, for reports that refer to its segments.

    Raises
    ------
    UsageError : labels that are no integers in one channel; interpolated planes, which are no slices of the source.
    GeometryError : the labels are not on the source's grid.
    InputError : a source without study or frame of reference, or whose header cannot be read again.
    OutputError : the source's elements or the file cannot be written.
    MissingExtraError : highdicom is not installed.
    """
    require_highdicom()
    planes = labels_of(labels)
    frames = planes_of(labels, source)
    described = all_segments(planes, segments)
    new = Uids(uids, "SEG", kind, planes, labels.affine, source.sop_instance_uids, described, algorithm)
    if not planes.any():
        planes, frames = planes[:1], frames[:1]  # an object has a frame, and one says as much as all of them
    try:
        with quiet_pydicom():
            images = as_single_images(frames, source)
            numbers = [s.value if kind == "labelmap" else index for index, s in enumerate(described, start=1)]
            table = np.zeros(described[-1].value + 1, np.uint8 if max(numbers) < 256 else np.uint16)
            table[[s.value for s in described]] = numbers
            numbered, apart = table[planes], kind == "binary" and bool(planes.any())
            shown = np.ones((len(planes), 1, 1), np.uint8) if apart else numbered
            for image in images:
                image.Rows, image.Columns = shown.shape[1:]
            made = _make(shown, images, described, numbers, algorithm, kind, new, series_number(frames))
            order = numbers_of_planes(made)
            refer(made, frames)
            new.settle(made, images[0])
            if kind == "labelmap":
                _compress(made)
            tail = take_frames(made, [numbered[z] for z in order], len(numbers)) if apart else []
            with atomic_path(path) as temporary:
                made.save_as(temporary)
                with open(temporary, "ab") as stream:
                    stream.writelines(tail)
            return made
    except REFUSED as error:
        raise OutputError(
            f"no DICOM segmentation can be made of this series: an element of its header is not what the standard "
            f"allows ({type(error).__name__}); write NIfTI instead"
        ) from None


def _make(
    planes: NDArray[Any],
    images: Sequence[Any],
    segments: Sequence[Segment],
    numbers: Sequence[int],
    algorithm: Algorithm,
    kind: SegKind,
    new: Uids,
    number: int,
) -> Any:
    """highdicom's object."""
    from highdicom.content import AlgorithmIdentificationSequence
    from highdicom.seg import Segmentation
    from pydicom.sr.codedict import codes

    identification = AlgorithmIdentificationSequence(
        name=algorithm.name[:64],
        family=codes.cid7162.ArtificialIntelligence,
        version=algorithm.version,
        source=MAKER,
        parameters={"plan_sha256": algorithm.plan_sha256, "precision": algorithm.precision},
    )
    return Segmentation(
        source_images=images,
        pixel_array=planes,
        segmentation_type="BINARY" if kind == "binary" else "LABELMAP",
        segment_descriptions=[
            segment_description(s.name, index, s.value, s.code, s.colour, identification)
            for index, s in zip(numbers, segments, strict=True)
        ],
        series_instance_uid=new("series"),
        series_number=number,
        sop_instance_uid=new("instance"),
        instance_number=1,
        manufacturer=MAKER,
        manufacturer_model_name=MAKER,
        software_versions=algorithm.version,
        device_serial_number=algorithm.plan_sha256[:16],
        content_label="SEGMENTATION",
        content_description=f"Made by {algorithm.name}"[:64],
        series_description=f"Segmentation by {algorithm.name}"[:64],
        transfer_syntax_uid=str(ExplicitVRLittleEndian),
        omit_empty_frames=bool(planes.any()),
        specific_character_set="ISO_IR 192",
        contributing_equipment=[equipment(algorithm, "Segmentation")],
    )


def _compress(made: Any) -> None:
    """Label maps are even, so their runs are long; noise would grow."""
    dtype = np.dtype("<u2" if made.BitsAllocated == 16 else np.uint8)
    count = int(made.NumberOfFrames) * made.Rows * made.Columns
    frames = np.frombuffer(made.PixelData, dtype, count).reshape(-1, made.Rows, made.Columns)
    if np.count_nonzero(frames[:, :, 1:] != frames[:, :, :-1]) > NOISY * frames.size:
        return
    made.PixelData = encapsulate(encode_frames(list(frames)))
    made["PixelData"].VR, made["PixelData"].is_undefined_length = "OB", True
    made.file_meta.TransferSyntaxUID = RLELossless
