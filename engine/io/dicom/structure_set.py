"""Labels as DICOM RT Structure Set (PS3.3 A.19, C.8.8.5, C.8.8.6, C.8.8.8): closed contours on the source's slices.

Contours run along the edges of the pixels, so whoever fills them by the pixels' centres gets the labels back exactly.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import DataElement, Dataset
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.tag import Tag
from pydicom.uid import ImplicitVRLittleEndian, RTStructureSetStorage

from voxelrt.errors import OutputError
from voxelrt.io.atomic import atomic_path
from voxelrt.io.dicom.coded_terms import short_text
from voxelrt.io.dicom.derived import (
    Algorithm,
    Segment,
    UidKind,
    Uids,
    all_segments,
    code_item,
    labels_of,
    planes_of,
    said_of,
    series_number,
)
from voxelrt.io.dicom.frames import Frame
from voxelrt.io.dicom.modules import add_equipment, add_moment, copy_patient_and_study
from voxelrt.io.dicom.quiet import quiet_pydicom
from voxelrt.io.dicom.single_images import REFUSED
from voxelrt.io.image import DicomSource
from voxelrt.postprocess.contours import outlines
from voxelrt.postprocess.measurements import boxes_of
from voxelrt.postprocess.overlay import PALETTE
from voxelrt.volume import Volume

Labels = NDArray[Any]

CONTOUR_DATA = Tag("ContourData")
# The class by which a structure set refers to a study (PS3.3 C.8.8.5), though services of it are retired.
STUDY_CLASS = "1.2.840.10008.3.1.2.3.1"


def write_structure_set(
    labels: Volume,
    path: str | os.PathLike[str],
    source: DicomSource,
    segments: Sequence[Segment],
    algorithm: Algorithm,
    *,
    uids: UidKind = "fresh",
) -> Any:
    """Write labels as one RT Structure Set, whole or not at all.

    Parameters
    ----------
    labels
        (1, Z, Y, X) integers on the grid of `source`; 0 is no structure.
    path
        The file.
    source
        The series, as the reader returned it. Its patient and study are copied into the object.
    segments
        Names, colours and codes. ROINumber is the label's value; a label that is nowhere is an ROI without contours.
    algorithm
        What made the labels.
    uids
        "fresh" or "reproducible".

    Raises
    ------
    UsageError, GeometryError, InputError : as `write_segmentation`.
    OutputError : the source's elements or the file cannot be written.
    """
    planes = labels_of(labels)
    frames = planes_of(labels, source)
    described = all_segments(planes, segments)
    new = Uids(uids, "RTSTRUCT", planes, labels.affine, source.sop_instance_uids, described, algorithm)
    try:
        with quiet_pydicom():
            made = _header(frames, algorithm, new)
            made.ReferencedFrameOfReferenceSequence = [_referenced(frames, source)]
            boxes = boxes_of(planes)
            made.StructureSetROISequence = [_roi(s, source, algorithm, boxes, planes, labels) for s in described]
            made.ROIContourSequence = [_contours(s, planes, labels, frames, boxes, k) for k, s in enumerate(described)]
            made.RTROIObservationsSequence = [_observation(s) for s in described]
            with atomic_path(path) as temporary:
                made.save_as(temporary, enforce_file_format=True)
            return made
    except REFUSED as error:
        raise OutputError(
            f"no RT Structure Set can be made of this series: an element of its header is not what the standard "
            f"allows ({type(error).__name__}); write NIfTI instead"
        ) from None


def _header(frames: Sequence[Frame], algorithm: Algorithm, new: Uids) -> FileDataset:
    """Patient, study, series, equipment and what the set is called."""
    # Contours may be longer than the 64 KiB that a decimal string can have where its VR is written.
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ImplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = RTStructureSetStorage
    meta.MediaStorageSOPInstanceUID = new("instance")
    made = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    first = copy_patient_and_study(made, frames[0].header)
    made.SOPClassUID, made.SOPInstanceUID = RTStructureSetStorage, meta.MediaStorageSOPInstanceUID
    made.Modality, made.SeriesInstanceUID = "RTSTRUCT", new("series")
    made.SeriesNumber, made.InstanceNumber = series_number(frames) + 2, 1
    made.SeriesDescription = f"Structures by {algorithm.name}"[:64]
    made.OperatorsName = ""
    made.FrameOfReferenceUID = frames[0].header.text("FrameOfReferenceUID")
    made.PositionReferenceIndicator = first.get("PositionReferenceIndicator", "")
    add_equipment(made, first, algorithm, "Structures")
    made.StructureSetLabel = "STRUCTURES"
    made.StructureSetDescription = said_of(algorithm, "Structures")
    made.ApprovalStatus = "UNAPPROVED"
    add_moment(made, ("InstanceCreation", "StructureSet", "Series"), new, first)
    return made


def _referenced(frames: Sequence[Frame], source: DicomSource) -> Dataset:
    """The frame of reference with the study, series and images on which the contours lie."""
    series = Dataset()
    series.SeriesInstanceUID = source.series_uid
    unique = {frame.sop_instance_uid: frame for frame in frames}
    series.ContourImageSequence = [_image(frame, numbered=False) for frame in unique.values()]
    study = Dataset()
    study.ReferencedSOPClassUID, study.ReferencedSOPInstanceUID = STUDY_CLASS, source.study_uid
    study.RTReferencedSeriesSequence = [series]
    made = Dataset()
    made.FrameOfReferenceUID = source.frame_of_reference_uid
    made.RTReferencedStudySequence = [study]
    return made


def _image(frame: Frame, *, numbered: bool = True) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = frame.header.text("SOPClassUID")
    item.ReferencedSOPInstanceUID = frame.sop_instance_uid
    if numbered and frame.is_numbered:
        item.ReferencedFrameNumber = frame.index + 1
    return item


def _roi(
    segment: Segment, source: DicomSource, algorithm: Algorithm, boxes: dict[int, Any], planes: Labels, labels: Volume
) -> Dataset:
    item = Dataset()
    item.ROINumber = segment.value
    item.ReferencedFrameOfReferenceUID = source.frame_of_reference_uid
    item.ROIName = short_text(segment.name)
    item.ROIGenerationAlgorithm = "AUTOMATIC"
    item.ROIGenerationDescription = f"{algorithm.name} {algorithm.version}"[:64]
    box = boxes.get(segment.value)
    voxels = 0 if box is None else int(np.count_nonzero(planes[box] == segment.value))
    if labels.voxel_ml is not None:
        item.ROIVolume = f"{voxels * labels.voxel_ml:.9g}"  # cubic centimetres (PS3.3 C.8.8.5)
    return item


def _contours(
    segment: Segment, planes: Labels, labels: Volume, frames: Sequence[Frame], boxes: dict[int, Any], number: int
) -> Dataset:
    item = Dataset()
    item.ROIDisplayColor = [int(v) for v in segment.colour or PALETTE[number % len(PALETTE)]]
    item.ReferencedROINumber = segment.value
    box = boxes.get(segment.value)
    if box is None:
        return item
    depth, rows, columns = box
    made: list[Dataset] = []
    for z in range(depth.start, depth.stop):
        for corners in outlines(planes[z, rows, columns] == segment.value):
            contour = Dataset()
            contour.ContourImageSequence = [_image(frames[z])]
            contour.ContourGeometricType = "CLOSED_PLANAR"
            contour.NumberOfContourPoints = len(corners)
            contour.ContourNumber = len(made) + 1
            contour[CONTOUR_DATA] = _in_world(corners + np.array([rows.start, columns.start]), frames[z], labels)
            made.append(contour)
    if made:
        item.ContourSequence = made
    return item


def _in_world(corners: NDArray[np.int64], frame: Frame, labels: Volume) -> DataElement:
    """(x, y, z) of each corner in mm as decimal strings, encoded: pydicom would check each of millions of numbers.

    They lie in the slice's own plane: slices may be a little off the even grid of the volume. Pixel (r, c) has its
    centre at index (c, r).
    """
    index = corners[:, ::-1] - 0.5
    points = np.array(frame.position) + index @ labels.affine[:3, :2].T
    # Nine digits: a millionth of a millimetre at a metre, and 16 characters in any case.
    text = "\\".join([f"{value:.9g}" for value in points.reshape(-1).tolist()]).encode("ascii")
    # Files with implicit VR do not say it, so bytes under any VR are the decimal strings that the tag has.
    return DataElement(CONTOUR_DATA, "OB", text + b" " * (len(text) % 2))


def _observation(segment: Segment) -> Dataset:
    item = Dataset()
    item.ObservationNumber = item.ReferencedROINumber = segment.value
    if segment.code is not None:
        scheme, value, meaning = segment.code
        item.RTROIIdentificationCodeSequence = [code_item(value, scheme, meaning)]
    item.RTROIInterpretedType = ""
    item.ROIInterpreter = ""
    return item
