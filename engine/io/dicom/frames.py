"""Frames: the planes of a series, whether each is a file, a frame of an enhanced object, or a tile of a mosaic.

What places and scales a frame is looked up in its own functional group, then in the shared one (PS3.3 C.7.6.16), then
in the elements of the file.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from voxelrt.errors import GeometryError, InputError
from voxelrt.io.dicom.header import CSA, GE_B, MOSAIC_COUNT, PHILIPS_B, SIEMENS_B, Header

Vector = tuple[float, ...]

# Frames that one object may hold, so that nothing is built by the word of a damaged file.
MAX_FRAMES = 100_000


@dataclass(frozen=True, eq=False)
class Frame:
    """One plane.

    Parameters
    ----------
    header
        The file that it is in.
    index
        Which of the file's frames, from 0; a derived object's ReferencedFrameNumber is one more.
    position, orientation
        ImagePositionPatient (3,) and ImageOrientationPatient (6,), mm and cosines in LPS; None where nothing says.
    spacing
        PixelSpacing: the distance of rows, then of columns, in mm; None where nothing says.
    slope, intercept
        From stored values to modality units.
    marks
        What may tell volumes of one series apart: "temporal position", "b-value", "echo time" ... -> value.
    tile
        Of a mosaic: (first row, first column) of the plane in the picture.
    size
        (rows, columns) of the plane.
    """

    header: Header = field(repr=False)
    index: int
    position: Vector | None
    orientation: Vector | None
    spacing: Vector | None
    slope: float
    intercept: float
    marks: Mapping[str, float | str]
    size: tuple[int, int]
    tile: tuple[int, int] | None = None

    @property
    def sop_instance_uid(self) -> str:
        """Of the file, for references."""
        return self.header.text("SOPInstanceUID")

    @property
    def is_numbered(self) -> bool:
        """Whether a reference names its number in the file: not of the only frame of a plain image, which some writers
        count."""
        return self.tile is None and (self.is_enhanced or self.header.frames > 1)

    @property
    def is_enhanced(self) -> bool:
        """Whether functional groups describe it."""
        return bool(self.header.nested.get("PerFrameFunctionalGroupsSequence"))

    @property
    def name(self) -> str:
        """Which plane this is, for messages."""
        return self.header.number if self.header.frames == 1 else f"frame {self.index + 1} of {self.header.number}"


def frames_of(header: Header) -> list[Frame]:
    """The planes of one file. Raises InputError for damaged ones, GeometryError for a mosaic without its layout."""
    if "MOSAIC" in header.words("ImageType"):
        return _mosaic(header)
    shared = _first(header.nested.get("SharedFunctionalGroupsSequence"))
    each = header.nested.get("PerFrameFunctionalGroupsSequence")
    count = header.frames
    if count > MAX_FRAMES:
        raise InputError(f"{header.number} says that it holds {count} frames; at most {MAX_FRAMES} are read")
    if each is not None and len(each) not in (0, count):
        raise InputError(f"{header.number} is damaged: {count} frames and {len(each)} functional groups")
    groups: list[Any] = list(each) if each else [None] * count
    return [_frame(header, index, (group, shared)) for index, group in enumerate(groups)]


def _frame(header: Header, index: int, groups: tuple[Any, Any]) -> Frame:
    """One frame from its functional groups, or from the file's own elements where there are none."""

    def numbers(sequence: str, name: str) -> Vector | None:
        item = _group_item(groups, sequence)
        value = item.get(name) if item is not None else None
        if value is None:
            return header.floats(name)
        return tuple(float(part) for part in (value if hasattr(value, "__len__") else [value]))

    try:
        position = numbers("PlanePositionSequence", "ImagePositionPatient")
        orientation = numbers("PlaneOrientationSequence", "ImageOrientationPatient")
        spacing = numbers("PixelMeasuresSequence", "PixelSpacing")
        slope = numbers("PixelValueTransformationSequence", "RescaleSlope")
        intercept = numbers("PixelValueTransformationSequence", "RescaleIntercept")
        return Frame(
            header=header,
            index=index,
            position=_vector(position, 3, header, "ImagePositionPatient"),
            orientation=_vector(orientation, 6, header, "ImageOrientationPatient"),
            spacing=_vector(spacing, 2, header, "PixelSpacing"),
            slope=1.0 if slope is None else slope[0],
            intercept=0.0 if intercept is None else intercept[0],
            marks=_marks(header, groups),
            size=(header.integer("Rows"), header.integer("Columns")),
        )
    except (ValueError, TypeError, AttributeError, IndexError, OverflowError):
        raise InputError(f"{header.number} is damaged: the functional group of frame {index + 1}") from None


def _vector(values: Vector | None, count: int, header: Header, name: str) -> Vector | None:
    if values is not None and len(values) != count:
        raise GeometryError(f"{header.number}: {name} has {len(values)} values instead of {count}; the file is damaged")
    return values


def _first(sequence: Any) -> Any:
    return sequence[0] if sequence else None


def _group_item(groups: tuple[Any, Any], sequence: str) -> Any:
    for group in groups:
        found = group.get(sequence) if group is not None else None
        if found:
            return found[0]
    return None


def _marks(header: Header, groups: tuple[Any, Any]) -> dict[str, float | str]:
    """What may tell volumes apart, of one frame."""
    found: dict[str, float | str] = {}
    for mark, look in MARKS.items():
        value = look(header, groups)
        if value is not None and not (isinstance(value, float) and not math.isfinite(value)):
            found[mark] = value
    return found


def _either(sequence: str, nested: str, flat: str) -> Callable[[Header, tuple[Any, Any]], float | None]:
    """A number from a functional group, or from the file's element of another name."""

    def look(header: Header, groups: tuple[Any, Any]) -> float | None:
        item = _group_item(groups, sequence)
        value = item.get(nested) if item is not None else None
        return header.number_of(flat) if value is None else float(value)

    return look


def _b_value(header: Header, groups: tuple[Any, Any]) -> float | None:
    """The b-value in s/mm²: the standard's element, else those of Siemens, GE and Philips."""
    item = _group_item(groups, "MRDiffusionSequence")
    if item is not None and item.get("DiffusionBValue") is not None:
        return float(item.DiffusionBValue)
    if "DiffusionBValue" in header.numbers:
        return header.numbers["DiffusionBValue"]
    makers = ((SIEMENS_B, "SIEMENS MR HEADER"), (GE_B, "GEMS_PARM_01"), (PHILIPS_B, "PHILIPS IMAGING DD 001"))
    for tag, creator in makers:
        raw = header.nested.get(tag)
        if isinstance(raw, bytes) and _creator(header, tag[0]) == creator:
            return _private_number(raw)
    return None


def _creator(header: Header, group: int) -> str:
    raw = header.nested.get((group, 0x0010))
    return raw.decode("ascii", "replace").strip(" \0").upper() if isinstance(raw, bytes) else ""


def _private_number(raw: bytes) -> float | None:
    """The first number of an integer string, or of a float of four bytes where it is none. GE adds 10^9 to b-values."""
    text = re.match(rb"\s*(\d{1,12})", raw)
    if text:
        return float(int(text[1]) % 1_000_000)
    return float(struct.unpack("<f", raw)[0]) if len(raw) == 4 else None


def _direction(header: Header, groups: tuple[Any, Any]) -> str | None:
    """The direction of the diffusion gradient, rounded, as text."""
    item = _group_item(groups, "MRDiffusionSequence")
    inner = _first(item.get("DiffusionGradientDirectionSequence")) if item is not None else None
    value = inner.get("DiffusionGradientOrientation") if inner is not None else None
    value = header.nested.get("DiffusionGradientOrientation") if value is None else value
    return None if value is None else " ".join(f"{float(part):.3f}" for part in value)


def _image_kind(header: Header, groups: tuple[Any, Any]) -> str | None:
    """The words of ImageType (or FrameType) behind the second, such as M, P, W, F."""
    item = _group_item(groups, "MRImageFrameTypeSequence") or _group_item(groups, "CTImageFrameTypeSequence")
    value = item.get("FrameType") if item is not None else None
    words = [str(part) for part in value] if value else header.words("ImageType")
    kept = [word for word in words[2:] if re.fullmatch(r"[A-Z0-9_]{1,16}", word)]
    return " ".join(kept) or None


def _clock(name: str) -> Callable[[Header, tuple[Any, Any]], float | None]:
    """A time of day in seconds."""

    def look(header: Header, groups: tuple[Any, Any]) -> float | None:
        found = re.match(r"(\d\d)(\d\d)(\d\d(?:\.\d{1,6})?)", header.text(name))
        return int(found[1]) * 3600 + int(found[2]) * 60 + float(found[3]) if found else None

    return look


def _stack(header: Header, groups: tuple[Any, Any]) -> str | None:
    item = _group_item(groups, "FrameContentSequence")
    value = str(item.get("StackID") or "") if item is not None else ""
    return value if re.fullmatch(r"[A-Z0-9_]{1,8}", value) else None


def _instance(header: Header, groups: tuple[Any, Any]) -> float | None:
    return header.number_of("InstanceNumber")


MARKS: dict[str, Callable[[Header, tuple[Any, Any]], float | str | None]] = {
    "time": _either("FrameContentSequence", "TemporalPositionIndex", "TemporalPositionIdentifier"),
    "b-value": _b_value,
    "echo time": _either("MREchoSequence", "EffectiveEchoTime", "EchoTime"),
    "trigger time": _either("CardiacSynchronizationSequence", "NominalCardiacTriggerDelayTime", "TriggerTime"),
    "acquisition": _either("FrameContentSequence", "FrameAcquisitionNumber", "AcquisitionNumber"),
    "gradient": _direction,
    "stack": _stack,
    "kind": _image_kind,
    "acquisition time": _clock("AcquisitionTime"),
    "instance": _instance,
}


def _mosaic(header: Header) -> list[Frame]:
    """The slices of a Siemens mosaic: equal tiles in reading order in one picture, placed by the maker's header.

    ImagePositionPatient is that of a slice as large as the whole mosaic about the same centre, so the first slice's
    corner lies half the difference of the sizes inward.
    """
    csa = _csa(header)
    count = int(csa["NumberOfImagesInMosaic"][0]) if csa.get("NumberOfImagesInMosaic") else _mosaic_count(header)
    rows, columns = header.integer("Rows"), header.integer("Columns")
    side = math.isqrt(max(0, count - 1)) + 1
    if not 1 <= count <= 4096 or rows % side or columns % side or not rows or not columns:
        raise GeometryError(f"{header.number} is a mosaic that does not say how many slices it holds")
    base = _frame(header, 0, (None, None))
    normal, gap = csa.get("SliceNormalVector", []), header.number_of("SpacingBetweenSlices")
    if base.position is None or base.orientation is None or base.spacing is None or not gap or len(normal) < 3:
        raise GeometryError(f"{header.number} is a mosaic that does not say where its slices lie")
    row, column = np.array(base.orientation[:3]), np.array(base.orientation[3:])
    height, width = rows // side, columns // side
    inward = row * base.spacing[1] * (columns - width) / 2 + column * base.spacing[0] * (rows - height) / 2
    corner, step = np.array(base.position) + inward, np.array(normal[:3]) * gap
    return [
        Frame(
            header=header,
            index=0,
            position=tuple(float(v) for v in corner + k * step),
            orientation=base.orientation,
            spacing=base.spacing,
            slope=base.slope,
            intercept=base.intercept,
            marks=base.marks,
            size=(height, width),
            tile=(k // side * height, k % side * width),
        )
        for k in range(count)
    ]


def _mosaic_count(header: Header) -> int:
    raw = header.nested.get(MOSAIC_COUNT)
    if not isinstance(raw, bytes) or _creator(header, MOSAIC_COUNT[0]) != "SIEMENS MR HEADER":
        return 0
    return int.from_bytes(raw, "little") if len(raw) == 2 else int(_private_number(raw) or 0)


def _csa(header: Header) -> dict[str, list[float]]:
    """The numbers of Siemens' own header ("SV10": name, count, values, each padded to four bytes); {} if it is none."""
    raw = header.nested.get(CSA)
    if not isinstance(raw, bytes) or raw[:4] != b"SV10" or _creator(header, CSA[0]) != "SIEMENS CSA HEADER":
        return {}
    found: dict[str, list[float]] = {}
    try:
        (count,) = struct.unpack_from("<I", raw, 8)
        place = 16
        for _ in range(min(count, 1024)):
            name, _, _, _, items, _ = struct.unpack_from("<64si4siii", raw, place)
            place += 84
            values: list[bytes] = []
            for _ in range(min(max(items, 0), 1024)):
                length = struct.unpack_from("<4i", raw, place)[1]
                if not 0 <= length <= len(raw):
                    return found
                values.append(raw[place + 16 : place + 16 + length])
                place += 16 + (length + 3) // 4 * 4
            found[name.split(b"\0")[0].decode("ascii", "replace")] = _floats(values)
    except struct.error:
        return found
    return found


def _floats(values: list[bytes]) -> list[float]:
    made = []
    for value in values:
        try:
            made.append(float(value.split(b"\0")[0]))
        except ValueError:
            continue
    return made
