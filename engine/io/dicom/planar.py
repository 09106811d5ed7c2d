"""Pictures among DICOM objects (CR, DX, mammograms, ultrasound, fundus, visible light): what tells them and their size.

They have no place in the patient. Each file is an image of its own, a cine's frames are its planes; lengths come from
what the object says of its pixels, and every such source is named, because a length at the detector is none in the
patient.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxelrt.errors import InputError
from voxelrt.io.dicom.frames import Frame
from voxelrt.io.dicom.geometry import GeometryReport, Placement
from voxelrt.io.dicom.header import Header
from voxelrt.io.orientation import axis_codes
from voxelrt.volume import Lengths

Floats = NDArray[np.float64]

# SOP classes of pictures (PS3.4 B.5), by the beginning of their UID; those of volumes that begin alike are left out.
PICTURES = (
    "1.2.840.10008.5.1.4.1.1.1", "1.2.840.10008.5.1.4.1.1.3", "1.2.840.10008.5.1.4.1.1.6",
    "1.2.840.10008.5.1.4.1.1.12", "1.2.840.10008.5.1.4.1.1.77.1",
)  # fmt: skip
NO_PICTURES = (
    "1.2.840.10008.5.1.4.1.1.6.2", "1.2.840.10008.5.1.4.1.1.77.1.5.4", "1.2.840.10008.5.1.4.1.1.77.1.6",
    "1.2.840.10008.5.1.4.1.1.12.3",
)  # fmt: skip
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
# Radiographs and photographs often come wrapped as secondary captures; of other modalities these are screenshots.
CAPTURED = ("CR", "DX", "MG", "IO", "PX", "US", "OP", "XC", "ES", "GM", "SM", "DM")

SIDES = {"L": "left", "R": "right", "B": "both sides", "U": ""}
UNKNOWN = "---"
# PS3.3 C.8.5.5.1.1: units of an ultrasound region, and the kinds of data in it.
CENTIMETRES = 3
REGION_KINDS = {1: "tissue", 2: "colour flow", 3: "spectrum of flow", 4: "ECG"}
# A patient-relative direction in LPS (PS3.3 C.7.6.1.1.1).
TOWARDS = {"L": (0, 1), "R": (0, -1), "P": (1, 1), "A": (1, -1), "H": (2, 1), "F": (2, -1)}
MOST_REGIONS = 64


def is_picture(header: Header) -> bool:
    """Whether this object is an image without a place in the patient."""
    sop_class = header.text("SOPClassUID")
    if _is_any(sop_class, (SECONDARY_CAPTURE,)):
        return header.code("Modality") in CAPTURED
    return _is_any(sop_class, PICTURES) and not _is_any(sop_class, NO_PICTURES)


def _is_any(uid: str, roots: Sequence[str]) -> bool:
    return any(uid == root or uid.startswith(root + ".") for root in roots)


def name_pictures(headers: Sequence[Header]) -> list[str]:
    """A name for each picture of a series: side and view where the files say, else its number; [""] for one alone."""
    if len(headers) == 1:
        return [""]
    names: list[str] = []
    for index, header in enumerate(headers, start=1):
        number = header.number_of("InstanceNumber")
        name = view_of(header) or f"image {index if number is None else int(min(abs(number), 10**9))}"
        names.append(name if name not in names else f"{name} ({index})")
    return names


def view_of(header: Header) -> str:
    """Side and view, such as "right MLO"; "" where the file does not say."""
    side = header.code("ImageLaterality") or header.code("Laterality")
    parts = (SIDES.get(side, ""), header.code("ViewPosition") or _view_code(header))
    return " ".join(part for part in parts if part)


def _view_code(header: Header) -> str:
    """The view of a mammogram by its code (PS3.16 CID 4014), in the words of ViewPosition."""
    items: Any = header.nested.get("ViewCodeSequence")
    value = str(items[0].get("CodeValue", "")) if isinstance(items, Sequence) and len(items) else ""
    return VIEWS.get(value, "")


# SNOMED's old and new values of the views.
VIEWS = {
    "R-10242": "CC", "399162004": "CC", "R-10226": "MLO", "399368009": "MLO", "R-10224": "ML", "399260004": "ML",
    "R-10228": "LM", "399352003": "LM",
}  # fmt: skip


def place_picture(frames: Sequence[Frame]) -> Placement:
    """The grid of a picture or cine: millimetres where the object tells them, directions where it says them.

    Returns
    -------
    placement : affine to LPS mm with its origin at the first pixel; report and what was assumed.

    Raises
    ------
    InputError : frames of different sizes.
    """
    header = frames[0].header
    if len({frame.size for frame in frames}) > 1:
        raise InputError(f"{header.number} is damaged: its frames have different sizes")
    found: list[str] = []
    known = _spacing(frames[0], found)
    lengths: Lengths = "none" if known is None else "plane"
    rows, columns = known or _assumed_spacing(header)
    directions = _directions(header)
    affine = np.eye(4)
    affine[:3, :3] = directions if directions is not None else np.eye(3)
    affine[:3, :3] *= (columns, rows, 1.0)
    codes = f"{axis_codes(affine)[:2]}-" if directions is not None else UNKNOWN
    if directions is None:
        found.append("the file does not say where rows and columns point to in the patient")
    found.append(_depth(header, len(frames)))
    found += _remarks(header)
    report = GeometryReport(len(frames), (1.0, rows, columns), codes, found=tuple(found), lengths=lengths)
    return Placement(np.arange(len(frames), dtype=np.int64), affine, report)


def _depth(header: Header, count: int) -> str:
    if count == 1:
        return "a picture has no depth: it counts as 1 mm"
    time = header.number_of("FrameTime")
    apart = f", {time:g} ms apart" if time is not None and 0 < time < 1e7 else ""
    return f"the {count} planes are frames in time{apart}; each counts as 1 mm deep"


def _spacing(frame: Frame, found: list[str]) -> tuple[float, float] | None:
    """The distance of rows and of columns in mm, by the best that the file has (PS3.3 10.7.1.3); None for none."""
    header = frame.header
    region = _region_spacing(frame, found)
    if region is not None:
        return region
    detector = _pair(header, "ImagerPixelSpacing")
    if frame.spacing is not None and _usable(frame.spacing):
        if detector is not None and not np.allclose(frame.spacing, detector, rtol=1e-3):
            found.append(
                f"lengths are calibrated: PixelSpacing {frame.spacing[0]:g} mm, where pixels of the detector lie "
                f"{detector[0]:g} mm apart"
            )
        elif detector is not None:
            found.append("lengths are those at the detector (PixelSpacing is ImagerPixelSpacing)")
        return frame.spacing[0], frame.spacing[1]
    if detector is not None:
        magnified = header.number_of("EstimatedRadiographicMagnificationFactor")
        if magnified is not None and 1 <= magnified < 10:
            found.append(f"lengths are those at the detector divided by the magnification {magnified:g} of the file")
            return detector[0] / magnified, detector[1] / magnified
        found.append("lengths are those at the detector (ImagerPixelSpacing), which are larger than in the patient")
        return detector
    scanned = _pair(header, "NominalScannedPixelSpacing")
    if scanned is not None:
        found.append("lengths are those on the scanned film (NominalScannedPixelSpacing)")
        return scanned
    found.append("the file tells no lengths: a pixel counts as 1 mm")
    return None


def _assumed_spacing(header: Header) -> tuple[float, float]:
    """A pixel's width is 1, its height what PixelAspectRatio says (PS3.3 C.7.6.3.1.7: vertical, horizontal)."""
    aspect = _pair(header, "PixelAspectRatio")
    return (aspect[0] / aspect[1], 1.0) if aspect is not None else (1.0, 1.0)


def _pair(header: Header, name: str) -> tuple[float, float] | None:
    try:
        values = header.floats(name)
    except InputError:
        return None
    return (values[0], values[1]) if values is not None and len(values) == 2 and _usable(values) else None


def _usable(spacing: Sequence[float]) -> bool:
    return bool(np.isfinite(spacing).all() and min(spacing) > 1e-6 and max(spacing) < 1e4)


def _regions(header: Header) -> list[Any]:
    """The ultrasound regions; [] where there are none, or where a damaged file has something else there."""
    found = header.nested.get("SequenceOfUltrasoundRegions")
    return list(found)[:MOST_REGIONS] if isinstance(found, Sequence) else []


def _region_spacing(frame: Frame, found: list[str]) -> tuple[float, float] | None:
    """Of ultrasound: the largest region that is measured in centimetres both ways (PS3.3 C.8.5.5); each is named."""
    best: tuple[float, tuple[float, float]] | None = None
    header = frame.header
    for number, region in enumerate(_regions(header), 1):
        try:
            left, top = int(region.RegionLocationMinX0), int(region.RegionLocationMinY0)
            right, bottom = int(region.RegionLocationMaxX1), int(region.RegionLocationMaxY1)
            units = (int(region.PhysicalUnitsXDirection), int(region.PhysicalUnitsYDirection))
            spacing = (abs(float(region.PhysicalDeltaY)) * 10, abs(float(region.PhysicalDeltaX)) * 10)
            kind = REGION_KINDS.get(int(region.RegionDataType), "other data")
        except (AttributeError, TypeError, ValueError, OverflowError):
            found.append(f"ultrasound region {number} is not calibrated")
            continue
        where = f"ultrasound region {number} ({kind}): columns {left} to {right}, rows {top} to {bottom}"
        if right >= frame.size[1] or bottom >= frame.size[0]:
            found.append(f"{where}, outside of the picture, which was made smaller: no lengths are taken from it")
            continue
        if units != (CENTIMETRES, CENTIMETRES) or not _usable(spacing):
            found.append(f"{where}, not measured in lengths")
            continue
        found.append(f"{where}, pixels of {spacing[0]:.4g} × {spacing[1]:.4g} mm")
        area = float(max(0, right - left + 1)) * max(0, bottom - top + 1)
        if best is None or area > best[0]:
            if best is not None and not np.allclose(best[1], spacing, rtol=1e-3):
                found.append("regions differ in their pixels; those of the largest count")
            best = (area, spacing)
    return None if best is None else best[1]


def _directions(header: Header) -> Floats | None:
    """Unit vectors in LPS along a row, along a column and their normal, from PatientOrientation's first letters."""
    said = header.words("PatientOrientation")
    if len(said) != 2 or not all(re.fullmatch(r"[LRPAHF]{1,3}", word) for word in said):
        return None
    vectors = np.zeros((3, 3))
    for column, word in enumerate(said):
        axis, sign = TOWARDS[word[0]]
        vectors[axis, column] = sign
    vectors[:, 2] = np.cross(vectors[:, 0], vectors[:, 1])
    return vectors if vectors[:, 2].any() else None


def _remarks(header: Header) -> list[str]:
    """What else a user should know."""
    view = view_of(header)
    said = [f"view: {view}"] if view else []
    if header.text("PresentationIntentType").upper() == "FOR PROCESSING":
        said.append("the values are the detector's (FOR PROCESSING), not those made for viewing")
    if header.text("BurnedInAnnotation").upper() == "YES":
        said.append("text is burned into the pixels (BurnedInAnnotation): it may name the patient")
    return said
