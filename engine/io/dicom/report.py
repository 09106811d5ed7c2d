"""Measurements as DICOM Structured Report (PS3.16 TID 1500) by highdicom: one group for each label."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from pydicom import Dataset

from voxelrt.errors import OutputError, UsageError
from voxelrt.io.atomic import atomic_path
from voxelrt.io.dicom.coded_terms import category_of, code_of, short_text
from voxelrt.io.dicom.derived import (
    MAKER,
    Algorithm,
    Segment,
    UidKind,
    Uids,
    equipment,
    planes_of,
    require_highdicom,
    series_number,
)
from voxelrt.io.dicom.frames import Frame
from voxelrt.io.dicom.quiet import quiet_pydicom
from voxelrt.io.dicom.single_images import REFUSED, as_single_images
from voxelrt.io.dicom.suv import suv_factor
from voxelrt.io.image import DicomSource
from voxelrt.postprocess.measurements import Measured
from voxelrt.volume import Volume

Term = tuple[str, str, str]

# Modality -> what a mean of it is called and its unit: scheme, value, meaning of each.
INTENSITIES = {
    "CT": (("DCM", "112031", "Attenuation Coefficient"), ("UCUM", "[hnsf'U]", "Hounsfield unit")),
    "MR": (("DCM", "110852", "MR signal intensity"), ("UCUM", "1", "no units")),
    "PT": (("DCM", "126401", "SUVbw"), ("UCUM", "g/ml{SUVbw}", "Standardized Uptake Value body weight")),
}
OTHER_INTENSITY = (("99VOXELRT", "intensity", "Intensity"), ("UCUM", "1", "no units"))
PIXELS = ("99VOXELRT", "pixels", "Number of pixels")
BECQUEREL = (("DCM", "110821", "Nuclear Medicine Tomographic Activity"), ("UCUM", "Bq/ml", "Becquerels/milliliter"))


def write_report(
    measured: Sequence[Measured],
    image: Volume,
    path: str | os.PathLike[str],
    source: DicomSource,
    segments: Sequence[Segment],
    algorithm: Algorithm,
    *,
    segmentation: Any = None,
    uids: UidKind = "fresh",
) -> Any:
    """Write the labels' measurements as one DICOM object (Comprehensive 3D SR), whole or not at all.

    Parameters
    ----------
    measured
        Of each label, as `measure` gives them; labels without a voxel are reported with volume 0 and nothing else.
    image
        What was measured: tells the modality; on the source's grid.
    path
        The file.
    source
        The series, as the reader returned it. Its patient and study are copied.
    segments
        Names and codes. A finding is coded only where the recipe codes it; else it is a "Tissue" with its name.
    algorithm
        What made the labels.
    segmentation
        What `write_segmentation` returned: each group then refers to its segment (TID 1411). Without it the groups
        refer to the slices on which the finding lies (TID 1501).
    uids
        "fresh" or "reproducible".

    Raises
    ------
    UsageError : nothing measured. GeometryError, InputError : as `write_segmentation`.
    OutputError : the source's elements or the file cannot be written. MissingExtraError : highdicom is missing.
    """
    require_highdicom()
    frames = planes_of(image, source)
    if not measured:
        raise UsageError("the labels have no names and no voxel is labelled: there is nothing to report")
    new = Uids(uids, "SR", list(measured), image.affine, source.sop_instance_uids, list(segments), algorithm)
    try:
        with quiet_pydicom():
            images = as_single_images(frames, source)
            evidence = evidence_of(frames, images[0])
            groups = _groups(measured, frames, segments, algorithm, segmentation, _intensity(image, frames), new)
            made = document_of(groups, evidence, segmentation, algorithm, new, series_number(frames) + 1)
            new.settle(made, images[0])
            with atomic_path(path) as temporary:
                made.save_as(temporary)
            return made
    except REFUSED as error:
        raise OutputError(
            f"no DICOM report can be made of this series: an element of its header is not what the standard allows "
            f"({type(error).__name__}); write a table instead"
        ) from None


def _intensity(image: Volume, frames: Sequence[Frame]) -> tuple[Term, Term]:
    """What values of the image are, and in what unit: as the reader gave them (`to_modality`)."""
    if image.modality != "PT":
        return INTENSITIES.get(image.modality, OTHER_INTENSITY)
    units = frames[0].header.code("Units")
    if units == "BQML" and suv_factor([frame.header for frame in frames])[0] is None:
        return BECQUEREL
    return INTENSITIES["PT"] if units in ("BQML", "GML") else OTHER_INTENSITY


def evidence_of(frames: Sequence[Frame], first: Dataset) -> list[Dataset]:
    """The files of the planes; the first with all that it says of patient and study, as `as_single_images` gave it."""
    made: list[Dataset] = []
    for frame in {frame.sop_instance_uid: frame for frame in frames}.values():
        one = Dataset() if made else first
        one.StudyInstanceUID, one.SeriesInstanceUID = first.StudyInstanceUID, first.SeriesInstanceUID
        one.SOPClassUID, one.SOPInstanceUID = frame.header.text("SOPClassUID"), frame.sop_instance_uid
        made.append(one)
    return made


def _groups(
    measured: Sequence[Measured],
    frames: Sequence[Frame],
    segments: Sequence[Segment],
    algorithm: Algorithm,
    segmentation: Any,
    intensity: tuple[Term, Term],
    new: Uids,
) -> list[Any]:
    from highdicom import sr

    known = {segment.value: segment for segment in segments}
    made_by = sr.AlgorithmIdentification(
        name=algorithm.name[:64], version=algorithm.version, parameters=[f"plan_sha256={algorithm.plan_sha256}"]
    )
    numbers = _segment_numbers(segmentation)
    groups = []
    for one in measured:
        code = known[one.value].code if one.value in known else None
        tracking = sr.TrackingIdentifier(uid=new(f"finding {one.value}"), identifier=short_text(one.name))
        common: dict[str, Any] = {
            "tracking_identifier": tracking,
            "finding_type": code_of(code),
            "finding_category": category_of(code),
            "measurements": _measurements(one, intensity),
        }
        if one.value in numbers:
            referred = sr.ReferencedSegment(
                sop_class_uid=segmentation.SOPClassUID,
                sop_instance_uid=segmentation.SOPInstanceUID,
                segment_number=numbers[one.value],
                source_series=sr.SourceSeriesForSegmentation(frames[0].header.text("SeriesInstanceUID")),
            )
            group = sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
                referenced_segment=referred, algorithm_id=made_by, **common
            )
        else:
            slices = [slice_of(frame) for frame in frames[slice(*one.slices)] or frames[:1]]
            group = sr.MeasurementsAndQualitativeEvaluations(source_images=slices, algorithm_id=made_by, **common)
        groups.append(group)
    return groups


def _segment_numbers(segmentation: Any) -> dict[int, int]:
    """Value -> SegmentNumber."""
    items = [] if segmentation is None else segmentation.SegmentSequence
    return {int(i.SegmentDescription.split()[1]): int(i.SegmentNumber) for i in items if i.SegmentNumber}


def slice_of(frame: Frame) -> Any:
    """A reference to a plane as the source of a group."""
    from highdicom import sr

    return sr.SourceImageForMeasurementGroup(
        referenced_sop_class_uid=frame.header.text("SOPClassUID"),
        referenced_sop_instance_uid=frame.sop_instance_uid,
        referenced_frame_numbers=[frame.index + 1] if frame.is_numbered else None,
    )


def _measurements(one: Measured, intensity: tuple[Term, Term]) -> list[Any]:
    from highdicom import sr
    from pydicom.sr.codedict import codes

    made = []
    if one.volume_ml is not None:
        made.append(sr.Measurement(codes.SCT.Volume, one.volume_ml, coded("UCUM", "ml", "milliliter")))
    elif one.area_mm2 is not None:
        made.append(sr.Measurement(codes.SCT.Area, one.area_mm2, coded("UCUM", "mm2", "square millimeter")))
    else:
        made.append(sr.Measurement(coded(*PIXELS), one.voxels, coded("UCUM", "{pixels}", "pixels")))
    if one.mean is not None:
        name, unit = (coded(*term) for term in intensity)
        made.append(sr.Measurement(name=name, value=one.mean, unit=unit, derivation=codes.SCT.Mean))
    if one.diameter_mm is not None:
        millimetre = codes.UCUM.Millimeter
        made.append(sr.Measurement(codes.SCT.Diameter, one.diameter_mm, millimetre, derivation=codes.SCT.Maximum))
    return made


def coded(scheme: str, value: str, meaning: str) -> Any:
    """A coded term."""
    from highdicom.sr import CodedConcept

    return CodedConcept(value, scheme, meaning)


def document_of(
    groups: list[Any], evidence: list[Dataset], segmentation: Any, algorithm: Algorithm, new: Uids, number: int
) -> Any:
    """The object (TID 1500) of groups of measurements."""
    from highdicom import sr
    from pydicom.sr.codedict import codes

    device = sr.DeviceObserverIdentifyingAttributes(
        uid=new("observer"), name=MAKER, manufacturer_name=MAKER, model_name=MAKER, serial_number=algorithm.version
    )
    observer = sr.ObserverContext(observer_type=codes.DCM.Device, observer_identifying_attributes=device)
    content = sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=observer),
        procedure_reported=coded("SCT", "363679005", "Imaging procedure"),
        imaging_measurements=groups,
        title=codes.DCM.ImagingMeasurementReport,
    )
    return sr.Comprehensive3DSR(
        evidence=[*evidence, *([] if segmentation is None else [segmentation])],
        content=content,
        series_instance_uid=new("series"),
        series_number=number,
        sop_instance_uid=new("instance"),
        instance_number=1,
        manufacturer=MAKER,
        manufacturer_model_name=MAKER,
        software_versions=algorithm.version,
        specific_character_set="ISO_IR 192",
        is_complete=True,
        is_final=False,
        is_verified=False,
        series_description=f"Measurements by {algorithm.name}"[:64],
        contributing_equipment=[equipment(algorithm, "Measurements")],
    )
