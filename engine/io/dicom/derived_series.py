"""An image that was made of a series, as a series of its own (PS3.3 C.7.6.1.1): denoised, or warped onto another.

Of a series of single images, or of the tiles of mosaics, each plane is a file; an enhanced object becomes one again.
What describes the acquisition is copied from the source, what describes stored pixels is not.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian
from pydicom.valuerep import format_number_as_ds

from voxelrt.errors import OutputError, UsageError
from voxelrt.io.atomic_folder import atomic_folder
from voxelrt.io.dicom.derived import (
    Algorithm,
    UidKind,
    Uids,
    code_item,
    planes_of,
    refuse_source,
    said_of,
    series_number,
)
from voxelrt.io.dicom.frames import Frame
from voxelrt.io.dicom.modules import (
    PATIENT_AND_STUDY,
    TYPE_2,
    add_moment,
    contribute,
    decoded_elements,
    fill_empty,
    fill_laterality,
    reference,
)
from voxelrt.io.dicom.quiet import quiet_pydicom
from voxelrt.io.dicom.single_images import REFUSED, is_valid, unit_vectors
from voxelrt.io.dicom.stored import Stored, to_stored
from voxelrt.io.dicom.suv import suv_factor
from voxelrt.io.image import DicomSource
from voxelrt.volume import Volume

PROCESSED = ("121322", "DCM", "Source image for image processing operation")

# What describes stored pixels, a signature of them, or a picture of them.
OF_PIXELS = (
    "PixelData", "FloatPixelData", "DoubleFloatPixelData", "SmallestImagePixelValue", "LargestImagePixelValue",
    "SmallestPixelValueInSeries", "LargestPixelValueInSeries", "PixelPaddingValue", "PixelPaddingRangeLimit",
    "ModalityLUTSequence", "VOILUTSequence", "RescaleSlope", "RescaleIntercept", "IconImageSequence",
    "DigitalSignaturesSequence", "MACParametersSequence", "DataSetTrailingPadding", "SourceImageSequence",
    "RealWorldValueMappingSequence", "OriginalAttributesSequence", "PixelAspectRatio", "ImagePresentationComments",
)  # fmt: skip
OF_WINDOW = ("WindowWidth", "WindowCenter", "WindowCenterWidthExplanation", "VOILUTFunction")
# Of the plane where it was acquired, which is not where a warped one lies.
OF_PLACE = (
    "SliceLocation", "GantryDetectorTilt", "TablePosition", "TableHeight", "DataCollectionDiameter",
    "ReconstructionDiameter", "ReferencedImageSequence",
)  # fmt: skip
# Must be there and may be empty: image, CT, MR, PET (PS3.3 C.7.6.1, C.8.2.1, C.8.3.1, C.8.9).
MAY_BE_EMPTY = {
    "CT": ("KVP", "AcquisitionNumber", "PatientPosition"),
    "MR": ("ScanOptions", "MRAcquisitionType", "EchoTime", "EchoTrainLength", "PatientPosition"),
}
COMMON = ("Manufacturer", "PositionReferenceIndicator", "InstanceNumber", "SliceThickness")
ROUNDED = 1e-5
FRAME_TYPES = ("CTImageFrameTypeSequence", "MRImageFrameTypeSequence", "PETFrameTypeSequence")


@dataclass(frozen=True)
class Derivation:
    """What was done.

    Parameters
    ----------
    word
        The last value of ImageType, such as "DENOISED".
    title
        The begin of the sentences, such as "Denoised".
    code
        Of PS3.16 CID 7203: value, scheme, meaning; None where no term says it.
    """

    word: str
    title: str
    code: tuple[str, str, str] | None = None


DENOISED = Derivation("DENOISED", "Denoised", ("113087", "DCM", "Smoothing"))
DEFORMED = Derivation("WARPED", "Warped", ("125027", "DCM", "Deformed for Registration"))
RESAMPLED = Derivation("WARPED", "Warped", ("113085", "DCM", "Spatial resampling"))
BY_NETWORK = Derivation("PROCESSED", "Processed")


def write_derived_series(
    volume: Volume,
    folder: str | os.PathLike[str],
    source: DicomSource,
    algorithm: Algorithm,
    derivation: Derivation,
    *,
    moving: DicomSource | None = None,
    uids: UidKind = "fresh",
) -> None:
    """Write an image as a new series into a new or empty folder; the whole series or nothing.

    Files are IM0001.dcm and so on in the order of z. Values are kept exactly where they are whole numbers of 16 bits,
    else to half a step of the chosen rescale.

    Parameters
    ----------
    volume
        (1, Z, Y, X) on the grid of `source`, in modality units.
    folder
        Where to write.
    source
        The series on whose planes the image lies; patient and study are its own.
    algorithm, derivation
        What made it, and what that was.
    moving
        Of a warped image: the series whose values these are; what describes the acquisition is copied from it.
    uids
        "fresh" or "reproducible".

    Raises
    ------
    UsageError : several channels, NaN, planes that were interpolated, an enhanced or foreign moving series.
    GeometryError : the image is not on the source's grid. InputError : a source that cannot be read again.
    OutputError : a folder that holds something or cannot be written; elements that the standard does not allow.
    """
    refuse_derived(volume, source, moving)
    planes = planes_of(volume, source)
    content = moving.volume.frames if moving is not None and moving.volume is not None else tuple(planes)
    try:
        with quiet_pydicom():
            stored = _stored(volume, content)
            new = Uids(uids, derivation, volume.array, volume.affine, source.sop_instance_uids, algorithm)
            job = _Job(stored, planes, content, algorithm, derivation, new, moving is not None)
            with atomic_folder(folder) as place:
                job.write(place, float(np.linalg.norm(volume.affine[:3, 2])))
    except REFUSED as error:
        raise OutputError(
            f"no DICOM series can be made of this one: an element of its header is not what the standard allows "
            f"({type(error).__name__}); write NIfTI instead"
        ) from None


def refuse_derived(volume: Volume | None, source: DicomSource, moving: DicomSource | None = None) -> None:
    """Say before the work what cannot be written as a series; see `write_derived_series`."""
    refuse_source(source)
    if volume is not None and volume.array.shape[0] != 1:
        raise UsageError(f"a series of slices has one channel; this image has {volume.array.shape[0]}")
    if moving is None:
        return
    refuse_source(moving)
    if moving.volume is None or source.volume is None:  # refused above
        raise UsageError("the source does not say its slices")
    first = moving.volume.frames[0]
    if first.is_enhanced:
        raise UsageError("an enhanced multi-frame series is not warped into a series of slices yet; write NIfTI")
    patients = [
        str(decoded_elements(frame.header).get("PatientID") or "") for frame in (first, source.volume.frames[0])
    ]
    if patients[0] != patients[1]:
        raise UsageError("the two series are of different patients (PatientID), so one cannot be in the other's study")


def _stored(volume: Volume, content: Sequence[Frame]) -> Stored:
    """In the units that the elements copied from the source name: PET that was read as uptake goes back to Bq/mL."""
    values, header = volume.array[0], content[0].header
    if volume.modality == "PT":
        factor = suv_factor([frame.header for frame in content])[0] if header.code("Units") == "BQML" else None
        if factor is not None:
            values = values.astype(np.float64) / factor
        return to_stored(values, through_zero=True)
    same = {frame.intercept for frame in content}
    return to_stored(values, intercept=same.pop() if len(same) == 1 else 0.0)


def _is_rounded(frame: Frame) -> bool:
    """Whether its directions are so far from unit vectors that a reader may mind."""
    vectors = np.array(frame.orientation or (1, 0, 0, 0, 1, 0), np.float64).reshape(2, 3)
    return bool(np.abs(np.linalg.norm(vectors, axis=1) - 1).max() > ROUNDED)


def _several(value: Any) -> list[Any]:
    """One value, several or none as a list."""
    if value is None or value == "":
        return []
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]


@dataclass(frozen=True, eq=False)
class _Job:
    """A series on its way into a folder."""

    stored: Stored
    planes: list[Frame]
    content: Sequence[Frame]
    algorithm: Algorithm
    derivation: Derivation
    new: Uids
    warped: bool

    def write(self, folder: Path, depth_mm: float) -> None:
        """All files."""
        if not self.warped and self.planes[0].is_enhanced:
            by_header: dict[int, list[int]] = {}
            for z, frame in enumerate(self.planes):
                by_header.setdefault(id(frame.header), []).append(z)
            for number, members in enumerate(by_header.values(), start=1):
                self._save(self._multi_frame(members, number), folder, number)
            return
        study = decoded_elements(self.planes[0].header) if self.warped else None
        template: Dataset | None = None
        for z, frame in enumerate(self.planes):
            if template is None or not self.warped:
                template = decoded_elements((self.content[0] if self.warped else frame).header)
            made = self._base(copy.copy(template) if self.warped else template, z + 1)
            if study is not None:
                self._place_in_study(made, study)
            if self.warped or frame.tile is not None:
                self._place(made, frame, depth_mm)
            elif _is_rounded(frame):
                made.ImageOrientationPatient = unit_vectors(frame.orientation)
            made.pop("NumberOfFrames", None)
            sources = self.content if self.warped else [frame]
            unique = {one.sop_instance_uid: one for one in sources}.values()
            made.SourceImageSequence = [
                reference(one.header.text("SOPClassUID"), one.sop_instance_uid, PROCESSED) for one in unique
            ]
            self._rescale(made)
            self._set_pixels(made, self.stored.array[z])
            self._save(made, folder, z + 1)

    def _base(self, elements: Dataset, number: int) -> FileDataset:
        """What all objects of the series say."""
        meta = FileMetaDataset()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        meta.MediaStorageSOPClassUID = elements.SOPClassUID
        meta.MediaStorageSOPInstanceUID = self.new(f"instance {number}")
        made = FileDataset("", elements, file_meta=meta, preamble=b"\0" * 128)
        tags = [element.tag for element in made]
        for tag in tags:
            if tag.is_private or tag.element == 0 or 0x6000 <= tag.group < 0x6100:
                del made[tag]
        for name in OF_PIXELS:
            if name in made:
                delattr(made, name)
        for element in list(made):
            if not is_valid(element):
                made[element.tag].value = ""
            elif element.VR == "SQ" and not element.value and made.get("Modality") != "PT":  # where some may be empty
                del made[element.tag]
        fill_empty(made, (*TYPE_2, *COMMON, *MAY_BE_EMPTY.get(str(made.get("Modality")), ())))
        fill_laterality(made)
        widths = _several(made.get("WindowWidth"))
        if not widths or not _several(made.get("WindowCenter")) or min(map(float, widths)) < 1:
            for name in OF_WINDOW:
                made.pop(name, None)
        first = copy.copy(made)
        made.SOPInstanceUID, made.SeriesInstanceUID = meta.MediaStorageSOPInstanceUID, self.new("series")
        made.SeriesNumber, made.InstanceNumber = series_number(self.planes) + 3, number
        title = self.derivation.title
        made.SeriesDescription = f"{title} by {self.algorithm.name}"[:64]
        made.DerivationDescription = said_of(self.algorithm, title)
        if self.derivation.code is not None:
            made.DerivationCodeSequence = [code_item(*self.derivation.code)]
        made.ImageType = self._image_type([str(word) for word in made.get("ImageType") or []])
        contribute(made, first, self.algorithm, title)
        add_moment(made, ("InstanceCreation", "Content", "Series"), self.new, first)
        return made

    def _image_type(self, words: list[str]) -> list[str]:
        kept = [word for word in words[2:] if word not in ("MOSAIC", self.derivation.word)]
        return ["DERIVED", "PRIMARY", *(kept or ["OTHER"]), self.derivation.word]

    def _place_in_study(self, made: Dataset, study: Dataset) -> None:
        """A warped image belongs to the study, and the frame of reference, of the series that it was brought to."""
        for name in (*PATIENT_AND_STUDY, "FrameOfReferenceUID", "PositionReferenceIndicator"):
            if name in made:
                delattr(made, name)
            if name in study and is_valid(study[name]):
                made[name] = study[name]
        fill_empty(made, (*TYPE_2, "PositionReferenceIndicator"))

    def _place(self, made: Dataset, frame: Frame, depth_mm: float) -> None:
        for name in (*OF_PLACE, "NumberOfFrames"):
            if name in made:
                delattr(made, name)
        made.ImagePositionPatient = [format_number_as_ds(float(v)) for v in frame.position or ()]
        made.ImageOrientationPatient = unit_vectors(self.planes[0].orientation)
        made.PixelSpacing = [format_number_as_ds(float(v)) for v in self.planes[0].spacing or ()]
        made.SliceThickness = format_number_as_ds(frame.header.number_of("SliceThickness") or depth_mm)
        if "SpacingBetweenSlices" in made:
            made.SpacingBetweenSlices = format_number_as_ds(depth_mm)

    def _rescale(self, made: Dataset) -> None:
        """MR images have no rescale in the standard, and need none where the values are stored as they are."""
        if not (self.stored.is_plain and str(made.get("Modality")) == "MR"):
            made.RescaleSlope, made.RescaleIntercept = self.stored.slope, self.stored.intercept
            if str(made.get("Modality")) != "PT":
                made.RescaleType = str(made.get("RescaleType") or ("HU" if made.get("Modality") == "CT" else "US"))

    def _set_pixels(self, made: Dataset, pixels: Any) -> None:
        made.SamplesPerPixel = 1
        made.Rows, made.Columns = pixels.shape[-2:]
        made.BitsAllocated = made.BitsStored = 16
        made.HighBit, made.PixelRepresentation = 15, int(pixels.dtype.kind == "i")
        made.PixelData = np.ascontiguousarray(pixels).astype(pixels.dtype.newbyteorder("<"), copy=False).tobytes()

    def _multi_frame(self, members: list[int], number: int) -> FileDataset:
        """An enhanced object of these planes, each with its own functional groups."""
        elements = decoded_elements(self.planes[members[0]].header)
        made = self._base(elements, number)
        old = list(made.PerFrameFunctionalGroupsSequence)
        groups = []
        for z in members:
            frame = self.planes[z]
            item = copy.deepcopy(old[frame.index])
            item.pop("PixelValueTransformationSequence", None)
            image = reference(frame.header.text("SOPClassUID"), frame.sop_instance_uid, PROCESSED)
            image.ReferencedFrameNumber = frame.index + 1
            derived = Dataset()
            derived.DerivationDescription = made.DerivationDescription
            if self.derivation.code is not None:
                derived.DerivationCodeSequence = [code_item(*self.derivation.code)]
            derived.SourceImageSequence = [image]
            item.DerivationImageSequence = [derived]
            groups.append(item)
        made.PerFrameFunctionalGroupsSequence = groups
        shared = made.SharedFunctionalGroupsSequence[0] if made.get("SharedFunctionalGroupsSequence") else Dataset()
        transform = Dataset()
        transform.RescaleSlope, transform.RescaleIntercept = self.stored.slope, self.stored.intercept
        transform.RescaleType = "HU" if made.get("Modality") == "CT" else "US"
        shared.PixelValueTransformationSequence = [transform]
        made.SharedFunctionalGroupsSequence = [shared]
        for item in (*groups, shared):
            for name in FRAME_TYPES:
                for kind in item.get(name, []):
                    kind.FrameType = self._image_type([str(word) for word in kind.get("FrameType") or []])[:4]
        made.ImageType = made.ImageType[:4]
        made.NumberOfFrames = len(members)
        self._set_pixels(made, self.stored.array[members])
        return made

    @staticmethod
    def _save(made: FileDataset, folder: Path, number: int) -> None:
        made.save_as(folder / f"IM{number:04d}.dcm", enforce_file_format=True)
