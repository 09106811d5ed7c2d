"""The planes of a volume as highdicom takes them, and the references of what it makes of them.

A plane is a file, a frame of an enhanced object or a tile of a mosaic. highdicom is shown them all as single images
with numbers for UIDs, so that every kind goes one way; the references are then written as what the planes really are.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from pydicom import DataElement, Dataset
from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.uid import CTImageStorage
from pydicom.valuerep import DA, TM, format_number_as_ds

from voxelrt.errors import InputError
from voxelrt.io.dicom.frames import Frame
from voxelrt.io.dicom.header import DAMAGE
from voxelrt.io.image import DicomSource

# What highdicom copies without asking whether it is there; all are type 2 (may be empty) but the study's UID.
MAY_BE_EMPTY = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate",
    "StudyTime",
)  # fmt: skip
MULTIFRAME = (
    "NumberOfFrames", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "DimensionIndexSequence",
)  # fmt: skip
# PS3.3 C.7.1.1, PS3.5 6.2.
ENUMERATED = {"PatientSex": "[MFO]", "PatientAge": r"\d{3}[DWMY]"}
# highdicom's own classes of errors; their messages quote elements of the source, so they are never chained to ours.
REFUSED = (ValueError, TypeError, AttributeError, KeyError, IndexError, NotImplementedError, OverflowError)


def as_single_images(frames: Sequence[Frame], source: DicomSource) -> list[Dataset]:
    """Each plane as a single image that is numbered by its UID; the first with all that its file says."""
    first = frames[0].header.source_elements()
    try:
        first.decode()
    except DAMAGE as error:
        raise InputError(f"{frames[0].header.number}: its texts cannot be decoded ({type(error).__name__})") from None
    for name in MULTIFRAME:
        if name in first:
            delattr(first, name)
    for name in MAY_BE_EMPTY:
        if name not in first or not is_valid(first[name]):
            first[name] = DataElement(name, dictionary_VR(name), "")
    if "PatientAge" in first and not is_valid(first["PatientAge"]):
        del first.PatientAge
    depth = float(np.linalg.norm(source.affine[:3, 2]))
    images = []
    for number, frame in enumerate(frames, start=1):
        image = first if number == 1 else Dataset()
        image.SOPClassUID, image.SOPInstanceUID = CTImageStorage, f"2.25.{number}"
        image.StudyInstanceUID, image.SeriesInstanceUID = source.study_uid, source.series_uid
        image.FrameOfReferenceUID = source.frame_of_reference_uid
        image.Rows, image.Columns = frame.size
        image.ImagePositionPatient = list(frame.position or ())
        image.ImageOrientationPatient = unit_vectors(frames[0].orientation)
        image.PixelSpacing = list(frames[0].spacing or ())
        image.SliceThickness = frame.header.number_of("SliceThickness") or depth
        image.SpacingBetweenSlices = None
        images.append(image)
    return images


def unit_vectors(orientation: Sequence[float] | None) -> list[str]:
    """ImageOrientationPatient as it is used: files round it, and readers take it at its word."""
    if orientation is None:
        return []
    vectors = np.array(orientation).reshape(2, 3)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return [format_number_as_ds(float(value)) for value in vectors.reshape(-1)]


def is_valid(element: DataElement) -> bool:
    """Whether a date, time, sex or age is one; what is none is left empty rather than copied."""
    if element.keyword in ENUMERATED:
        return not element.value or bool(re.fullmatch(ENUMERATED[element.keyword], str(element.value)))
    # What a file calls its VR does not make a date of it.
    known = dictionary_has_tag(element.tag)
    kind = {"DA": DA, "TM": TM}.get(dictionary_VR(element.tag) if known else element.VR)
    try:
        return kind is None or kind(element.value) is not None
    except REFUSED:
        return False


def numbers_of_planes(made: Any) -> list[int]:
    """Of each frame which plane it is, from 0: highdicom sorts them its own way. To be asked before `refer`."""
    items = made.PerFrameFunctionalGroupsSequence
    return [_number(item.DerivationImageSequence[0].SourceImageSequence[0]) for item in items]


def refer(made: Any, frames: Sequence[Frame]) -> None:
    """Write what the planes are into the references, in place of their numbers."""
    numbered = [
        reference
        for item in made.PerFrameFunctionalGroupsSequence
        for reference in item.DerivationImageSequence[0].SourceImageSequence
    ]
    # Frames of one plane share their reference.
    for reference in {id(reference): reference for reference in numbered}.values():
        _write_reference(reference, frames[_number(reference)])
    unique = {frame.sop_instance_uid: frame for frame in frames}
    references = []
    for frame in unique.values():
        reference = Dataset()
        reference.ReferencedSOPClassUID = frame.header.text("SOPClassUID")
        reference.ReferencedSOPInstanceUID = frame.sop_instance_uid
        references.append(reference)
    if "SourceImageSequence" in made:
        made.SourceImageSequence = references
    made.ReferencedSeriesSequence[0].ReferencedInstanceSequence = references


def _number(reference: Dataset) -> int:
    return int(str(reference.ReferencedSOPInstanceUID).rpartition(".")[2]) - 1


def _write_reference(reference: Dataset, frame: Frame) -> None:
    reference.ReferencedSOPClassUID = frame.header.text("SOPClassUID")
    reference.ReferencedSOPInstanceUID = frame.sop_instance_uid
    if frame.tile is not None:
        reference.SpatialLocationsPreserved = "NO"  # a tile is not the picture's frame
    elif frame.is_numbered:
        reference.ReferencedFrameNumber = frame.index + 1
