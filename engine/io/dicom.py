"""A DICOM series of single-frame images in: one volume, sorted by position, in modality units, or a refusal.

Enhanced multi-frame objects, colour and mosaics are refused by name: read as plain images they would give a wrong
volume without an error.
"""

from __future__ import annotations

import io
import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.config import IGNORE
from pydicom.filereader import read_partial
from pydicom.pixels import get_decoder
from pydicom.uid import UID

from voxelrt.errors import GeometryError, InputError, MissingExtraError
from voxelrt.io.dicom_files import DAMAGE, SliceHeader, find_series
from voxelrt.io.dicom_geometry import place_slices
from voxelrt.io.dicom_quiet import quiet_pydicom
from voxelrt.io.image import MAX_VOLUME_BYTES, DicomSource, Image
from voxelrt.volume import Volume

# Slices of one volume must agree in these; orientation and spacing up to rounding.
SAME_ORIENTATION = 1e-4
SAME_SPACING = 1e-4

INT16 = np.iinfo(np.int16)
PIXEL_DATA = 0x7FE00010


def read_dicom_series(
    path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], *, series: int | None = None
) -> Image:
    """Read one series of single-frame DICOM images (CT, MR, PET and the like).

    Parameters
    ----------
    path
        A folder (searched with its subfolders; files are told by content), a file, or the files.
    series
        SeriesNumber of the wanted series, where there are several.

    Returns
    -------
    image
        Volume (1, Z, Y, X): slices sorted along their normal, rows and columns as stored; affine to LPS mm; modality
        set. Values after rescale: int16 where every slice has slope 1 and whole results that fit, else float32
        (float64 where more than 24 bits are stored).

    Raises
    ------
    InputError : no images, several series, a damaged or truncated file, colour, multi-frame, mosaic.
    GeometryError : no position, mixed sizes, orientations, spacings or frames of reference, repeated positions, gaps,
        uneven spacing, a tilted gantry.
    MissingExtraError : compressed pixels without a decoder.
    UsageError : no series of this number.
    """
    paths = Path(path) if isinstance(path, (str, os.PathLike)) else [Path(p) for p in path]
    if isinstance(paths, Path) and not paths.exists():
        raise InputError(f"{paths.name!r} does not exist")
    headers, warnings = find_series(paths, series=series)
    for header in headers:
        _refuse_other_kinds(header)
    positions, orientation, spacing = _common_geometry(headers)
    thickness = headers[0].floats("SliceThickness")
    order, affine, odd = place_slices(positions, orientation, spacing, thickness[0] if thickness else None)
    headers = [headers[i] for i in order]
    array, notes = _read_pixels(headers)
    first = headers[0]
    volume = Volume(array, affine, modality=first.code("Modality"))
    source = DicomSource(
        files=tuple(header.path for header in headers),
        sop_instance_uids=tuple(header.text("SOPInstanceUID") for header in headers),
        sop_class_uid=first.text("SOPClassUID"),
        study_uid=first.text("StudyInstanceUID"),
        series_uid=first.text("SeriesInstanceUID"),
        frame_of_reference_uid=first.text("FrameOfReferenceUID"),
        affine=volume.affine,
        shape_zyx=volume.shape_zyx,
        body_part=first.text("BodyPartExamined"),
        series_description=first.text("SeriesDescription"),
    )
    return Image(volume, tuple(warnings + odd + notes), source)


def _refuse_other_kinds(header: SliceHeader) -> None:
    """Refuse what would be read wrongly as a plain grey slice."""
    frames = header.text("NumberOfFrames")
    if frames not in ("", "1"):
        raise InputError(f"{header.number} is a multi-frame object; only series of single frames are read")
    if "MOSAIC" in header.text("ImageType").upper().split("\\"):
        raise InputError(f"{header.number} is a mosaic of slices in one picture; convert it with a tool of its maker")
    photometric = header.text("PhotometricInterpretation").upper()
    if not photometric:
        raise InputError(f"{header.number} holds no image or is truncated: no PhotometricInterpretation")
    if header.numbers.get("SamplesPerPixel", 1) != 1 or not photometric.startswith("MONOCHROME"):
        kind = header.code("PhotometricInterpretation") or "unusual"
        raise InputError(f"{header.number} is not a grey image (PhotometricInterpretation {kind})")
    if header.text("ModalityLUTSequence"):
        raise InputError(
            f"{header.number} has a modality look-up table, which is not read; only slope and intercept are"
        )
    missing = [n for n in ("Rows", "Columns", "BitsAllocated", "BitsStored") if not header.numbers.get(n)]
    if missing:
        raise InputError(f"{header.number} is damaged or truncated: no {', '.join(missing)}")
    allocated, stored = header.numbers["BitsAllocated"], header.numbers["BitsStored"]
    high = header.numbers.get("HighBit", stored - 1)
    if allocated not in (8, 16, 32) or not 1 <= stored <= allocated or high != stored - 1:
        raise InputError(f"{header.number}: {stored} of {allocated} bits with high bit {high} are not read")


def _common_geometry(
    headers: list[SliceHeader],
) -> tuple[NDArray[np.float64], NDArray[np.float64], tuple[float, float]]:
    """Positions (n, 3), the one orientation (6,) and PixelSpacing of slices that must agree in all but position."""
    positions = np.array([_vector(h, "ImagePositionPatient", 3) for h in headers])
    orientations = np.array([_vector(h, "ImageOrientationPatient", 6) for h in headers])
    spacings = np.array([_vector(h, "PixelSpacing", 2) for h in headers])
    sizes = np.array([(h.numbers["Rows"], h.numbers["Columns"]) for h in headers])
    frames = np.array([h.text("FrameOfReferenceUID") for h in headers])
    # The stray slices are to be named, not the rest that differ from a stray one that happened to come first.
    usual = _commonest(
        list(zip(map(tuple, orientations), map(tuple, sizes), map(tuple, spacings), frames, strict=True))
    )
    checks = (
        ("orientation", np.abs(orientations - orientations[usual]).max(axis=1) > SAME_ORIENTATION),
        ("size in rows and columns", (sizes != sizes[usual]).any(axis=1)),
        ("pixel spacing", np.abs(spacings - spacings[usual]).max(axis=1) > SAME_SPACING),
        ("frame of reference", frames != frames[usual]),
    )
    for what, differs in checks:
        if differs.any():
            x, y, z = positions[int(np.flatnonzero(differs)[0])]
            raise GeometryError(
                f"the series mixes slices of different {what}: {int(differs.sum())} of {len(headers)} differ from the "
                f"others, one at ({x:.2f}, {y:.2f}, {z:.2f}) mm; split the series first"
            )
    return positions, orientations[usual], (float(spacings[usual][0]), float(spacings[usual][1]))


def _commonest(keys: list[Any]) -> int:
    """The index of the first of the most frequent keys."""
    return keys.index(Counter(keys).most_common(1)[0][0])


def _vector(header: SliceHeader, name: str, count: int) -> tuple[float, ...]:
    values = header.floats(name)
    if values is None:
        raise GeometryError(f"{header.number} has no {name}, so its voxels cannot be placed in the patient")
    if len(values) != count:
        raise GeometryError(f"{header.number}: {name} has {len(values)} values instead of {count}; the file is damaged")
    return values


def _read_pixels(headers: list[SliceHeader]) -> tuple[NDArray[Any], list[str]]:
    """All slices in modality units, (Z, Y, X), and what there is to say about them."""
    rows, columns = headers[0].numbers["Rows"], headers[0].numbers["Columns"]
    wide: type[np.floating[Any]] = np.float64 if max(h.numbers["BitsStored"] for h in headers) > 24 else np.float32
    needed = len(headers) * rows * columns * np.dtype(wide).itemsize
    if needed > MAX_VOLUME_BYTES:
        raise InputError(f"a series of {len(headers)} slices of {rows} × {columns} is more than is read into memory")
    for header in headers:
        _refuse_short(header)
    # Start narrow; the first slice that does not fit widens the whole stack.
    stack: NDArray[Any] = np.empty((len(headers), rows, columns), dtype=np.int16)
    for index, header in enumerate(headers):
        values = _rescaled(_stored(header), header)
        if stack.dtype == np.int16 and not _fits_int16(values):
            widened = np.empty(stack.shape, dtype=wide)
            widened[:index] = stack[:index]
            stack = widened
        stack[index] = values
    notes = []
    inverted = sum(h.text("PhotometricInterpretation").upper() == "MONOCHROME1" for h in headers)
    if inverted:
        notes.append(f"{inverted} of {len(headers)} slices are MONOCHROME1 (low values are bright); kept as stored")
    return stack, notes


def _rescaled(stored: NDArray[Any], header: SliceHeader) -> NDArray[Any]:
    """Stored values × slope + intercept: int64 if both keep whole numbers, else float64."""
    slope = (header.floats("RescaleSlope") or (1.0,))[0]
    intercept = (header.floats("RescaleIntercept") or (0.0,))[0]
    if not (np.isfinite(slope) and np.isfinite(intercept)) or slope == 0:
        raise InputError(f"{header.number}: rescale slope {slope:g} and intercept {intercept:g} give no values")
    if slope == 1 and intercept == int(intercept):
        return stored.astype(np.int64) + int(intercept)
    return stored.astype(np.float64) * slope + intercept


def _fits_int16(values: NDArray[Any]) -> bool:
    return values.dtype.kind == "i" and int(values.min()) >= INT16.min and int(values.max()) <= INT16.max


def _refuse_short(header: SliceHeader) -> None:
    """Refuse a file that cannot hold its own pixels, before anything is allocated by its word."""
    syntax = _syntax(header)
    if not syntax.is_transfer_syntax or syntax.is_private:
        raise InputError(f"{header.number}: its transfer syntax is not known; the file is damaged or private")
    if syntax.is_compressed:
        if not _decoder(syntax, header).is_available:
            raise MissingExtraError("pylibjpeg", "dicom-codecs", f"reading {syntax.name} pixel data")
        return
    needed = header.numbers["Rows"] * header.numbers["Columns"] * header.numbers["BitsAllocated"] // 8
    size = header.path.stat().st_size
    if size < needed and not syntax.is_deflated:
        raise InputError(f"{header.number} is truncated: {size} bytes, and its pixels alone need {needed}")


def _decoder(syntax: UID, header: SliceHeader) -> Any:
    """pydicom's decoder of a transfer syntax. Raises InputError if it knows none."""
    try:
        return get_decoder(syntax)
    except NotImplementedError:
        raise InputError(f"{header.number}: pixel data in {syntax.name} is not read") from None


def _syntax(header: SliceHeader) -> UID:
    """The transfer syntax, without pydicom's remark where it is none."""
    return UID(header.transfer_syntax, validation_mode=IGNORE)


def _stored(header: SliceHeader) -> NDArray[Any]:
    """The stored values of one slice (rows, columns), unused high bits cleared, sign extended."""
    try:
        content = io.BytesIO(header.path.read_bytes())
        with quiet_pydicom():
            # Nothing after the pixels is read: some files end in thousands of empty elements.
            dataset = read_partial(content, stop_when=_after_pixels(), force=True)
            if "TransferSyntaxUID" not in dataset.file_meta:
                dataset.file_meta.TransferSyntaxUID = _syntax(header)
            values: NDArray[Any] = dataset.pixel_array
    except RuntimeError:
        syntax = _syntax(header)
        if syntax.is_compressed and _decoder(syntax, header).missing_dependencies:
            raise MissingExtraError("pylibjpeg", "dicom-codecs", f"reading {syntax.name} pixel data") from None
        raise InputError(f"{header.number} is damaged: its pixels cannot be decoded") from None
    except OSError as error:
        raise InputError(f"cannot read {header.number}: {error.strerror or type(error).__name__}") from None
    except DAMAGE:
        raise InputError(f"{header.number} is damaged or truncated: no whole pixel data") from None
    expected = (header.numbers["Rows"], header.numbers["Columns"])
    if values.shape != expected:
        raise InputError(f"{header.number} is damaged: its pixels are {values.shape}, its header says {expected}")
    unused = values.dtype.itemsize * 8 - header.numbers["BitsStored"]
    # Old files keep overlays in the unused bits; shifting left and back clears them and repeats the sign.
    return (values << unused) >> unused if unused > 0 else values


def _after_pixels() -> Callable[[Any, str | None, int], bool]:
    """A condition for one read: true from the element after the pixel data on, whatever its tag."""
    seen = False

    def stop(tag: Any, vr: str | None, length: int) -> bool:
        nonlocal seen
        if seen:
            return True
        seen = tag == PIXEL_DATA
        return False

    return stop
