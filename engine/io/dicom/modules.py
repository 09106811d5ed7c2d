"""Modules that a derived object copies from its source or fills in: patient, study, equipment, dates (PS3.3 C.7).

highdicom does this for what it makes; here it is for what highdicom has no class for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydicom import DataElement, Dataset
from pydicom.datadict import dictionary_VR

from voxelrt.errors import InputError
from voxelrt.io.dicom.derived import MAKER, SOFTWARE, Algorithm, Uids, code_item, said_of
from voxelrt.io.dicom.header import DAMAGE, Header
from voxelrt.io.dicom.single_images import is_valid

# Patient (C.7.1.1), General Study (C.7.2.1), Patient Study (C.7.2.2), Clinical Trial Subject and Study (C.7.1.3).
PATIENT_AND_STUDY = (
    "PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex", "OtherPatientIDs",
    "PatientIdentityRemoved", "DeidentificationMethod", "DeidentificationMethodCodeSequence",
    "StudyInstanceUID", "StudyDate", "StudyTime", "ReferringPhysicianName", "StudyID", "AccessionNumber",
    "StudyDescription", "PatientAge", "PatientSize", "PatientWeight",
    "ClinicalTrialSponsorName", "ClinicalTrialProtocolID", "ClinicalTrialProtocolName", "ClinicalTrialSiteID",
    "ClinicalTrialSiteName", "ClinicalTrialSubjectID", "ClinicalTrialSubjectReadingID", "ClinicalTrialTimePointID",
)  # fmt: skip
# May be empty, must be there.
TYPE_2 = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "ReferringPhysicianName",
    "StudyID", "AccessionNumber",
)  # fmt: skip


def decoded_elements(header: Header) -> Dataset:
    """All elements of a file but its pixels, texts in Unicode. Raises InputError if they cannot be decoded."""
    made: Dataset = header.source_elements()
    try:
        made.decode()
    except DAMAGE as error:
        raise InputError(f"{header.number}: its texts cannot be decoded ({type(error).__name__})") from None
    made.SpecificCharacterSet = "ISO_IR 192"
    return made


def copy_patient_and_study(made: Dataset, header: Header) -> Dataset:
    """Copy these modules; a date or time that is none is left empty. Returns all the file's elements."""
    first = decoded_elements(header)
    made.SpecificCharacterSet = "ISO_IR 192"
    for name in PATIENT_AND_STUDY:
        if name in first and is_valid(first[name]):
            made[name] = first[name]
    fill_empty(made, TYPE_2)
    return first


def fill_empty(made: Dataset, names: Sequence[str]) -> None:
    """Put what must be there and may be empty."""
    for name in names:
        if name not in made:
            made[name] = DataElement(name, dictionary_VR(name), [] if dictionary_VR(name) == "SQ" else "")


def fill_laterality(made: Dataset) -> None:
    """Where the body part is not said it may be a paired one, whose side is then to be said, or left empty."""
    if not made.get("BodyPartExamined"):
        fill_empty(made, () if made.get("ImageLaterality") else ("Laterality",))


def add_equipment(made: Dataset, first: Dataset, algorithm: Algorithm, what: str) -> None:
    """VoxelRT as the maker; the scanner as a contributor (C.7.5.1, C.12.1)."""
    made.Manufacturer = made.ManufacturerModelName = MAKER
    made.SoftwareVersions = algorithm.version
    made.DeviceSerialNumber = algorithm.plan_sha256[:16]
    contribute(made, first, algorithm, what)


def contribute(made: Dataset, first: Dataset, algorithm: Algorithm, what: str) -> None:
    """Append VoxelRT, and the scanner where the source names it, to those who contributed."""
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = [code_item("109102", "DCM", "Processing Equipment")]
    item.Manufacturer = item.ManufacturerModelName = MAKER
    item.SoftwareVersions = algorithm.version
    item.ContributionDescription = f"{said_of(algorithm, what)}. {SOFTWARE}."
    items = [*first.get("ContributingEquipmentSequence", []), item]
    if first.get("Manufacturer"):
        scanner = Dataset()
        scanner.PurposeOfReferenceCodeSequence = [code_item("109101", "DCM", "Acquisition Equipment")]
        for name in ("Manufacturer", "ManufacturerModelName", "SoftwareVersions", "DeviceSerialNumber"):
            if first.get(name):
                scanner[name] = first[name]
        items.append(scanner)
    made.ContributingEquipmentSequence = items


def add_moment(made: Dataset, prefixes: Sequence[str], new: Uids, first: Dataset) -> None:
    """When the UIDs were made, as date and time; the study's own where these are reproducible."""
    date, time = new.now.strftime("%Y%m%d"), new.now.strftime("%H%M%S")
    for prefix in prefixes:
        setattr(made, f"{prefix}Date", date)
        setattr(made, f"{prefix}Time", time)
    new.settle(made, first)


def reference(sop_class: str, sop_instance: str, purpose: tuple[str, str, str] | None = None) -> Any:
    """An item that refers to an instance."""
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, sop_instance
    if purpose is not None:
        item.PurposeOfReferenceCodeSequence = [code_item(*purpose)]
    return item
