"""A picture of a result as DICOM Secondary Capture (PS3.3 A.8.1), for viewers that show nothing else, by highdicom."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from PIL import Image as Pillow

from voxelrt.errors import OutputError
from voxelrt.io.atomic import atomic_path
from voxelrt.io.dicom.derived import (
    MAKER,
    SOFTWARE,
    Algorithm,
    UidKind,
    Uids,
    equipment,
    refuse_whole,
    require_highdicom,
    said_of,
    series_number,
)
from voxelrt.io.dicom.modules import fill_laterality, reference
from voxelrt.io.dicom.quiet import quiet_pydicom
from voxelrt.io.dicom.single_images import REFUSED, as_single_images
from voxelrt.io.image import DicomSource


def write_capture(
    picture: Pillow.Image,
    path: str | os.PathLike[str],
    source: DicomSource,
    algorithm: Algorithm,
    *,
    uids: UidKind = "fresh",
) -> Any:
    """Write a picture as one DICOM object in the source's study, whole or not at all.

    Parameters
    ----------
    picture
        In colour. It must show nothing that names the patient: the object says that it does not (BurnedInAnnotation).
    path
        The file.
    source
        The series that the picture was made of; all its planes are referred to.
    algorithm
        What made the result that is shown.
    uids
        "fresh" or "reproducible".

    Raises
    ------
    UsageError, InputError : as `refuse_whole`. OutputError : the elements or the file cannot be written.
    MissingExtraError : highdicom is not installed.
    """
    require_highdicom()
    refuse_whole(source)
    frames = list(source.volume.frames) if source.volume is not None else []
    pixels = np.asarray(picture.convert("RGB"))
    new = Uids(uids, "SC", pixels, source.sop_instance_uids, algorithm)
    try:
        with quiet_pydicom():
            first = as_single_images(frames, source)[0]
            made = _make(pixels, first, algorithm, new, series_number(frames) + 4)
            unique = {frame.sop_instance_uid: frame for frame in frames}.values()
            made.SourceImageSequence = [
                reference(frame.header.text("SOPClassUID"), frame.sop_instance_uid) for frame in unique
            ]
            new.settle(made, first)
            with atomic_path(path) as temporary:
                made.save_as(temporary)
            return made
    except REFUSED as error:
        raise OutputError(
            f"no secondary capture can be made of this series: an element of its header is not what the standard "
            f"allows ({type(error).__name__}); write .png instead"
        ) from None


def _make(pixels: Any, first: Any, algorithm: Algorithm, new: Uids, number: int) -> Any:
    from highdicom.sc import SCImage

    made = SCImage(
        pixel_array=pixels,
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=("L", "P"),
        study_instance_uid=first.StudyInstanceUID,
        series_instance_uid=new("series"),
        series_number=number,
        sop_instance_uid=new("instance"),
        instance_number=1,
        manufacturer=MAKER,
        manufacturer_model_name=MAKER,
        software_versions=algorithm.version,
        patient_id=first.PatientID,
        patient_name=first.PatientName,
        patient_birth_date=first.PatientBirthDate,
        patient_sex=first.PatientSex or None,
        accession_number=first.AccessionNumber,
        study_id=first.StudyID,
        study_date=first.StudyDate or None,
        study_time=first.StudyTime or None,
        referring_physician_name=first.get("ReferringPhysicianName", ""),
        specific_character_set="ISO_IR 192",
        series_description=f"Overlay by {algorithm.name}"[:64],
        contributing_equipment=[equipment(algorithm, "Overlay")],
    )
    made.PatientOrientation = ""  # three views have no one orientation
    for name in ("BodyPartExamined", "Laterality"):
        if first.get(name):
            made[name] = first[name]
    fill_laterality(made)
    made.ImageType = ["DERIVED", "SECONDARY", "OTHER", "OVERLAY"]
    made.BurnedInAnnotation = "NO"
    made.DerivationDescription = f"{said_of(algorithm, 'Overlay')}. {SOFTWARE}."
    return made
