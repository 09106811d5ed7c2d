"""The frames of a derived enhanced object: what each says for itself, and what all of them say (PS3.3 C.7.6.16).

Frames that stay where they were keep their functional groups. Warped ones lie on the planes of the reference: their
place is written anew, and of what describes the acquisition they say what the first frame of the moving series does.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

from pydicom import Dataset
from pydicom.tag import Tag
from pydicom.uid import UID
from pydicom.valuerep import format_number_as_ds

from voxelrt.io.dicom.derived import code_item
from voxelrt.io.dicom.frames import Frame
from voxelrt.io.dicom.modules import reference

# Groups of the place of a frame in its own series or patient coordinates, which a warped frame does not keep.
OF_FRAME_PLACE = (
    "PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence", "FrameContentSequence",
    "ReferencedImageSequence", "CTPositionSequence", "MRSpatialSaturationSequence", "PlanePositionVolumeSequence",
    "PlaneOrientationVolumeSequence",
)  # fmt: skip
# Groups of stored pixels, or of where these came from.
OF_FRAME_PIXELS = ("PixelValueTransformationSequence", "DerivationImageSequence", "RealWorldValueMappingSequence")
STACK_AND_PLACE = ("StackID", "InStackPositionNumber")


def frames_where_they_were(
    made: Dataset, frames: Sequence[Frame], purpose: tuple[str, str, str], code: tuple[str, str, str] | None
) -> None:
    """Each frame with its own functional groups and a reference to the frame that it was made of."""
    old = list(made.PerFrameFunctionalGroupsSequence)
    groups = []
    for frame in frames:
        item = copy.deepcopy(old[frame.index])
        item.pop("PixelValueTransformationSequence", None)
        item.DerivationImageSequence = [_derivation(made, [frame], purpose, code)]
        groups.append(item)
    made.PerFrameFunctionalGroupsSequence = groups


def frames_on_planes(
    made: Dataset,
    content: Sequence[Frame],
    planes: Sequence[Frame],
    depth_mm: float,
    dimensions: UID,
    purpose: tuple[str, str, str],
    code: tuple[str, str, str] | None,
) -> None:
    """Frames that lie on `planes` and were made of all frames of `content`, in one stack from first to last."""
    old = made.get("PerFrameFunctionalGroupsSequence")
    acquired = copy.deepcopy(old[content[0].index]) if old else Dataset()
    shared = made.SharedFunctionalGroupsSequence[0] if made.get("SharedFunctionalGroupsSequence") else Dataset()
    for name in (*OF_FRAME_PLACE, *OF_FRAME_PIXELS):
        acquired.pop(name, None)
        shared.pop(name, None)
    for element in acquired:
        shared[element.tag] = element
    measures, turn = Dataset(), Dataset()
    measures.PixelSpacing = [format_number_as_ds(float(v)) for v in planes[0].spacing or ()]
    measures.SliceThickness = format_number_as_ds(planes[0].header.number_of("SliceThickness") or depth_mm)
    measures.SpacingBetweenSlices = format_number_as_ds(depth_mm)
    turn.ImageOrientationPatient = [format_number_as_ds(float(v)) for v in planes[0].orientation or ()]
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [turn]
    shared.DerivationImageSequence = [_derivation(made, content, purpose, code)]
    made.SharedFunctionalGroupsSequence = [shared]
    made.PerFrameFunctionalGroupsSequence = [_placed(plane, number) for number, plane in enumerate(planes, start=1)]
    organization = Dataset()
    organization.DimensionOrganizationUID = dimensions
    made.DimensionOrganizationSequence = [organization]
    made.DimensionOrganizationType = "3D"
    made.DimensionIndexSequence = [_dimension(name, dimensions) for name in STACK_AND_PLACE]


def evidence(sources: Sequence[Frame]) -> list[Dataset]:
    """The objects that functional groups refer to, as the enhanced image modules list them (PS3.3 C.8.13.2.1.2)."""
    studies: dict[str, dict[str, dict[str, Frame]]] = {}
    for frame in sources:
        study, series = frame.header.text("StudyInstanceUID"), frame.header.text("SeriesInstanceUID")
        studies.setdefault(study, {}).setdefault(series, {})[frame.sop_instance_uid] = frame
    items = []
    for study, all_series in studies.items():
        item = Dataset()
        item.StudyInstanceUID, item.ReferencedSeriesSequence = study, []
        for series, frames in all_series.items():
            one = Dataset()
            one.SeriesInstanceUID = series
            one.ReferencedSOPSequence = [reference(f.header.text("SOPClassUID"), uid) for uid, f in frames.items()]
            item.ReferencedSeriesSequence.append(one)
        items.append(item)
    return items


def _placed(plane: Frame, number: int) -> Dataset:
    item, place, said = Dataset(), Dataset(), Dataset()
    place.ImagePositionPatient = [format_number_as_ds(float(v)) for v in plane.position or ()]
    said.StackID, said.InStackPositionNumber, said.DimensionIndexValues = "1", number, [1, number]
    item.PlanePositionSequence, item.FrameContentSequence = [place], [said]
    return item


def _dimension(name: str, dimensions: UID) -> Dataset:
    item = Dataset()
    item.DimensionOrganizationUID = dimensions
    item.DimensionIndexPointer, item.FunctionalGroupPointer = Tag(name), Tag("FrameContentSequence")
    return item


def _derivation(
    made: Dataset, sources: Sequence[Frame], purpose: tuple[str, str, str], code: tuple[str, str, str] | None
) -> Dataset:
    """What was done to which frames; those of one object are one reference."""
    by_object: dict[str, list[Frame]] = {}
    for frame in sources:
        by_object.setdefault(frame.sop_instance_uid, []).append(frame)
    derived = Dataset()
    derived.DerivationDescription = made.DerivationDescription
    if code is not None:
        derived.DerivationCodeSequence = [code_item(*code)]
    derived.SourceImageSequence = []
    for uid, frames in by_object.items():
        image = reference(frames[0].header.text("SOPClassUID"), uid, purpose)
        numbers = sorted(frame.index + 1 for frame in frames)
        image.ReferencedFrameNumber = numbers if len(numbers) > 1 else numbers[0]
        derived.SourceImageSequence.append(image)
    return derived
