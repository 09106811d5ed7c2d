"""What all DICOM objects that are made of a series share: who made them, on which planes, under which UIDs and dates.

Patient and study come from the source; everything else of an object is its own. With reproducible UIDs the same content
gives the same file, byte for byte, so the clock is left out: the study's date and time stand in its place.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.uid import UID, generate_uid

from voxelrt.errors import GeometryError, InputError, MissingExtraError, UsageError
from voxelrt.io.dicom.frames import Frame
from voxelrt.io.image import DicomSource
from voxelrt.volume import Volume

UidKind = Literal["fresh", "reproducible"]

MAKER = "VoxelRT"
SERIES_NUMBERS_AFTER = 1000
SOFTWARE = "Research software, not a medical device"
# Two grids are one if no voxel lies further off than this (mm).
SAME_GRID_MM = 1e-2
# Identifiers that highdicom draws by itself, and what it takes from the clock.
DRAWN = ("DimensionOrganizationUID", "UID", "DeviceUID")
DATES = ("ContentDate", "InstanceCreationDate", "SeriesDate", "StructureSetDate", "InstanceCoercionDate")
TIMES = ("ContentTime", "InstanceCreationTime", "SeriesTime", "StructureSetTime")
MOMENTS = ("ContributionDateTime", "ObservationDateTime", "DateTime")


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
    """What made a result.

    Parameters
    ----------
    name
        Of the model or method.
    version
        Of VoxelRT.
    plan_sha256
        64 hexadecimal digits that tell the plan, or the method with all its settings.
    precision
        In which it computed.
    """

    name: str
    version: str
    plan_sha256: str
    precision: str


class Uids:
    """New UIDs: drawn, or made of a digest of the content.

    Parameters
    ----------
    kind
        "fresh": never twice the same. "reproducible": the same content, source and algorithm give the same again.
    content
        What tells this object from others; arrays are taken with dtype and shape.
    """

    def __init__(self, kind: UidKind, *content: Any) -> None:
        if kind not in ("fresh", "reproducible"):
            raise UsageError(f'uids is {kind!r}; choose "fresh" or "reproducible"')
        self.reproducible = kind == "reproducible"
        self.now = datetime.now()
        self._digest = digest(*content) if self.reproducible else ""
        self._given: dict[str, UID] = {}

    def __call__(self, role: str) -> UID:
        """The UID of this part of the object, the same whenever it is asked for."""
        if role not in self._given:
            sources = [self._digest, role] if self.reproducible else None
            self._given[role] = UID(generate_uid(entropy_srcs=sources))
        return self._given[role]

    def settle(self, made: Dataset, source: Dataset) -> None:
        """Where UIDs are reproducible: replace what was drawn or read from a clock while the object was made."""
        if self.reproducible:
            date, time = str(source.get("StudyDate") or "19000101"), str(source.get("StudyTime") or "000000")
            self._settle(made, {}, date, time)

    def _settle(self, item: Dataset, drawn: dict[str, UID], date: str, time: str) -> None:
        for element in item:
            if element.VR == "SQ":
                for inner in element.value:
                    self._settle(inner, drawn, date, time)
            elif element.keyword in DRAWN and element.value:
                known = str(element.value)
                element.value = drawn.setdefault(known, self(f"drawn {len(drawn)}"))
            elif element.value and element.keyword in (*DATES, *TIMES, *MOMENTS):
                whole = {**dict.fromkeys(DATES, date), **dict.fromkeys(TIMES, time)}
                element.value = whole.get(element.keyword, date + time)


def digest(*content: Any) -> str:
    """SHA-256 of arrays, with their dtypes and shapes, and of what else is said by its ``repr``."""
    made = hashlib.sha256()
    for part in content:
        if isinstance(part, np.ndarray):
            made.update(f"{part.dtype.str} {part.shape} ".encode())
            made.update(np.ascontiguousarray(part).view(np.uint8).reshape(-1).data)
        else:
            made.update(repr(part).encode() + b"\0")
    return made.hexdigest()


def require_highdicom() -> None:
    """Raises MissingExtraError where highdicom is not installed."""
    try:
        import highdicom  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("highdicom", "dicom-out", "writing DICOM") from error


def refuse_source(source: DicomSource) -> None:
    """Raise UsageError or InputError for a series on which no derived object can lie."""
    refuse_whole(source)
    if source.volume is not None and any(frame.position is None for frame in source.volume.frames):
        raise InputError(
            "the pictures of this series have no place in the patient, so nothing can lie on them; write .png, .nii.gz "
            "or a capture (--format capture) instead"
        )
    if not source.frame_of_reference_uid:
        raise InputError("the series has no FrameOfReferenceUID, so nothing can refer to it; write NIfTI instead")


def refuse_whole(source: DicomSource) -> None:
    """Raise UsageError or InputError for a series to which, as a whole, no object can refer."""
    if source.volume is None:
        raise UsageError("the source does not say its slices; read the series again with voxelrt")
    if source.volume.placement.between:
        raise UsageError(
            f"{len(source.volume.placement.between)} planes were interpolated (repair), not slices of the series: "
            "DICOM objects cannot refer to them; write NIfTI instead"
        )
    missing = {
        "StudyInstanceUID": not source.study_uid,
        "SeriesInstanceUID": not source.series_uid,
        "SOPInstanceUID": not all(source.sop_instance_uids),
    }
    for name in (name for name, gone in missing.items() if gone):
        raise InputError(f"the series has no {name}, so nothing can refer to it; write NIfTI instead")


def planes_of(volume: Volume, source: DicomSource) -> list[Frame]:
    """The source's planes, one for each of the volume's. Raises GeometryError for another grid, as `refuse_source`."""
    refuse_source(source)
    corner = np.append(np.array(source.shape_zyx[::-1]) - 1, 1)
    apart = float(np.abs((volume.affine - source.affine) * corner).sum(axis=1).max())
    if volume.shape_zyx != source.shape_zyx or apart > SAME_GRID_MM:
        raise GeometryError(f"the volume {volume.shape_zyx} is not on the grid of the series {source.shape_zyx}")
    if source.volume is None:  # refused above
        raise UsageError("the source does not say its slices")
    return list(source.volume.frames)


def labels_of(labels: Volume) -> NDArray[Any]:
    """(Z, Y, X) of a label volume. Raises UsageError for what is no labels."""
    array = labels.array
    if array.dtype.kind not in "ub" and (array.dtype.kind != "i" or array.min(initial=0) < 0):
        raise UsageError(f"labels are whole numbers from 0; these are {array.dtype}")
    if array.shape[0] != 1 or int(array.max(initial=0)) > 65535:
        raise UsageError(f"a segmentation has one channel of values up to 65535; this has {array.shape[0]}")
    planes: NDArray[Any] = array[0]
    return planes


def all_segments(array: NDArray[Any], segments: Sequence[Segment]) -> list[Segment]:
    """By value, those that have no name included. Raises UsageError if there is none at all."""
    found = {segment.value: segment for segment in segments if segment.value != 0}
    for value in np.flatnonzero(np.bincount(array.reshape(-1))):
        if value != 0:
            found.setdefault(int(value), Segment(int(value), f"label {value}"))
    if not found:
        raise UsageError("the labels have no names and no voxel is labelled: there is no segment to write")
    return [found[value] for value in sorted(found)]


def series_number(frames: Sequence[Frame]) -> int:
    """Of a new series beside that of the frames."""
    number = frames[0].header.number_of("SeriesNumber") or 0
    return int(min(abs(number), 2**30)) + SERIES_NUMBERS_AFTER


def said_of(algorithm: Algorithm, what: str) -> str:
    """The sentence that names the maker in an object."""
    return f"{what} by {algorithm.name}, plan sha256 {algorithm.plan_sha256}"


def equipment(algorithm: Algorithm, what: str) -> Any:
    """An item of ContributingEquipmentSequence (PS3.3 C.12.1.1.5): VoxelRT, its version, the algorithm, the plan."""
    from highdicom import ContributingEquipment
    from pydicom.sr.codedict import codes

    return ContributingEquipment(
        MAKER,
        codes.DCM.ProcessingEquipment,
        manufacturer_model_name=MAKER,
        software_versions=algorithm.version,
        contribution_description=said_of(algorithm, what),
    )


def code_item(value: str, scheme: str, meaning: str) -> Dataset:
    """A coded term as an item of a code sequence."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning[:64]
    return item
