"""Find the DICOM images of one series in a folder: look at every file's content, skip what is no image, and say so.

Elements are read by tag and as raw text: names and identifiers of the patient are never parsed. Messages count files
and give numbers of series; they hold no names of files, no UIDs and no descriptions, because any of these may name a
patient.
"""

from __future__ import annotations

import io
import os
import re
import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pydicom
from pydicom.errors import BytesLengthException, InvalidDicomError

from voxelrt.errors import InputError, UsageError
from voxelrt.io.dicom_quiet import quiet_pydicom

# What pydicom raises on damaged files (it has no single class for it). Its messages quote bytes of the file, so these
# are never chained to ours: a printed traceback would show them.
DAMAGE = (
    InvalidDicomError, BytesLengthException, EOFError, ValueError, KeyError, TypeError, AttributeError, IndexError,
    NotImplementedError, OverflowError, RecursionError, struct.error, zlib.error,
)  # fmt: skip

TAGS = (
    "ImageType", "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID",
    "Modality", "BodyPartExamined", "SeriesDescription",
    "SeriesNumber", "SliceThickness", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing",
    "SamplesPerPixel", "PhotometricInterpretation", "NumberOfFrames", "Rows", "Columns", "BitsAllocated", "BitsStored",
    "HighBit", "PixelRepresentation", "RescaleSlope", "RescaleIntercept", "ModalityLUTSequence",
)  # fmt: skip

# SOP classes that hold no slices of a volume, by the beginning of their UID (PS3.4 B.5, PS3.6 A).
NO_SLICES = (
    ("1.2.840.10008.1.3.10", "DICOMDIR"),
    ("1.2.840.10008.5.1.4.1.1.7", "secondary capture"),
    ("1.2.840.10008.5.1.4.1.1.9", "waveform"),
    ("1.2.840.10008.5.1.4.1.1.11", "presentation state"),
    ("1.2.840.10008.5.1.4.1.1.66", "segmentation, registration or raw data"),
    ("1.2.840.10008.5.1.4.1.1.88", "structured report"),
    ("1.2.840.10008.5.1.4.1.1.104", "encapsulated document"),
    ("1.2.840.10008.5.1.4.1.1.481", "radiotherapy object"),
)
# PS3.5 6.2: what a code string (CS) or an integer string (IS) may hold, short enough to hold no name.
CODE = re.compile(r"[A-Z0-9_]{1,12}")
LOCALISER = "localiser"
EXPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"


@dataclass(frozen=True)
class SliceHeader:
    """What one file says of itself; everything but the pixels and the patient."""

    path: Path = field(repr=False)
    number: str
    texts: dict[str, str] = field(repr=False)
    numbers: dict[str, int] = field(repr=False)
    transfer_syntax: str = field(repr=False)

    def text(self, name: str) -> str:
        """The element's value, "" where the file does not have it."""
        return self.texts.get(name, "")

    def code(self, name: str) -> str:
        """The element's value if it is a short code, else "": text for a message must not be whatever a damaged file
        holds at that place."""
        text = self.text(name)
        return text if CODE.fullmatch(text) else ""

    def floats(self, name: str) -> tuple[float, ...] | None:
        """A decimal string's values, None where the file does not have it. Raises InputError if they are no numbers."""
        text = self.text(name)
        if not text:
            return None
        try:
            return tuple(float(part) for part in text.split("\\"))
        except ValueError:
            raise InputError(f"{self.number}: {name} is not made of numbers; the file is damaged") from None


def find_series(
    paths: Path | Sequence[Path], *, series: int | None = None
) -> tuple[list[SliceHeader], list[str]]:  # fmt: skip
    """The headers of the one series of images among the files.

    Parameters
    ----------
    paths
        A folder, searched with all its subfolders, a file, or files.
    series
        SeriesNumber of the wanted one, where there are several.

    Returns
    -------
    headers : of one series, in the order of the files' names.
    warnings : what was skipped, and how many.

    Raises
    ------
    InputError : no images, several series and no choice, a damaged file.
    UsageError : no series of this number.
    """
    files = _files(paths)
    found: list[SliceHeader] = []
    skipped: dict[str, int] = {}
    for index, path in enumerate(files):
        number = f"DICOM file {index + 1} of {len(files)}" if len(files) > 1 else "the DICOM file"
        try:
            header = read_header(path, number)
        except OSError as error:
            raise InputError(f"cannot read {number}: {error.strerror or type(error).__name__}") from None
        reason = _no_slice(header) if header else "not DICOM"
        if header is None or reason:
            skipped[reason] = skipped.get(reason, 0) + 1
        else:
            found.append(header)
    warnings = [f"skipped {count} {'file' if count == 1 else 'files'}: {what}" for what, count in skipped.items()]
    if not found:
        listed = ", ".join(f"{count} {what}" for what, count in skipped.items())
        raise InputError(f"no DICOM images of a volume here ({listed or 'no files'})")
    return _without_copies(_one_series(found, series), warnings), warnings


def read_header(path: Path, number: str) -> SliceHeader | None:
    """Read one file's header; None if the file is not DICOM. Raises InputError if it is, and is damaged."""
    with open(path, "rb") as stream:
        start = stream.read(132)
    if not looks_like_dicom(start):
        return None
    try:
        content = io.BytesIO(path.read_bytes())
        with quiet_pydicom():
            dataset = pydicom.dcmread(content, stop_before_pixels=True, force=True, specific_tags=list(TAGS))
            texts, numbers = _values(dataset)
            syntax = str(dataset.file_meta.get("TransferSyntaxUID", "") or EXPLICIT_LITTLE_ENDIAN)
    except DAMAGE as error:
        raise InputError(f"{number} is damaged: its header cannot be read ({type(error).__name__})") from None
    return SliceHeader(path, number, texts, numbers, syntax)


def looks_like_dicom(start: bytes) -> bool:
    """Whether a file that begins so is DICOM: the mark after the preamble, or, without one, a first element 0008,xxxx.

    Old tools write no preamble; then the file begins with group 2 or 8, little endian, and a short element.
    """
    if start[128:132] == b"DICM":
        return True
    if len(start) < 132 or start[:2] not in (b"\x02\0", b"\x08\0"):
        return False
    vr_or_length = start[4:6]
    explicit = vr_or_length.isalpha() and vr_or_length.isupper()
    return start[3] == 0 and (explicit or int.from_bytes(start[4:8], "little") < 256)


def _values(dataset: Any) -> tuple[dict[str, str], dict[str, int]]:
    """The wanted elements: text as it stands, binary numbers as int."""
    texts: dict[str, str] = {}
    numbers: dict[str, int] = {}
    for name in TAGS:
        if name not in dataset:
            continue
        raw = dataset.get_item(name).value
        if isinstance(raw, bytes) and name not in BINARY:
            texts[name] = raw.decode("ascii", "replace").strip(" \0")
        elif name in BINARY:
            value = dataset[name].value
            if value is not None:
                numbers[name] = int(value)
        else:
            texts[name] = "present" if raw else ""
    return texts, numbers


BINARY = frozenset(
    {"SamplesPerPixel", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"}
)


def _files(paths: Path | Sequence[Path]) -> list[Path]:
    if not isinstance(paths, Path):
        return sorted(Path(path) for path in paths)
    if not paths.is_dir():
        return [paths]
    # A folder that cannot be listed must not look like an empty one.
    failures: list[OSError] = []
    found = [Path(folder) / name for folder, _, names in os.walk(paths, onerror=failures.append) for name in names]
    if failures:
        raise InputError(f"cannot list the folder or one below it: {failures[0].strerror}")
    return sorted(path for path in found if path.is_file())


def _no_slice(header: SliceHeader) -> str:
    """Why this object is no slice of a volume, "" if it may be one."""
    sop_class = header.text("SOPClassUID")
    for prefix, what in NO_SLICES:
        if sop_class == prefix or sop_class.startswith(prefix + "."):
            return what
    # CT and MR scouts have the SOP class of the images; the third value of ImageType tells them (PS3.3 C.8.2.1.1.1).
    if "LOCALIZER" in header.text("ImageType").upper().split("\\"):
        return LOCALISER
    return ""


def _one_series(found: list[SliceHeader], wanted: int | None) -> list[SliceHeader]:
    by_uid: dict[str, list[SliceHeader]] = {}
    for header in found:
        by_uid.setdefault(header.text("SeriesInstanceUID"), []).append(header)
    if wanted is not None:
        kept = [s for s in by_uid.values() if s[0].text("SeriesNumber").lstrip("0+") == str(wanted).lstrip("0")]
        if not kept:
            raise UsageError(f"no series has the number {wanted}; there are: {_list_series(by_uid.values())}")
        by_uid = {str(n): s for n, s in enumerate(kept)}
    if len(by_uid) > 1:
        raise InputError(
            f"{len(by_uid)} series where one is needed: {_list_series(by_uid.values())}; choose one by its number "
            "(series=...), or give the folder of one"
        )
    return next(iter(by_uid.values()))


def _list_series(series: Iterable[list[SliceHeader]]) -> str:
    lines = []
    for headers in series:
        modality = headers[0].code("Modality") or "unknown modality"
        count = f"{len(headers)} {'image' if len(headers) == 1 else 'images'}"
        lines.append(f"{modality} series {headers[0].code('SeriesNumber') or 'without number'} ({count})")
    return ", ".join(sorted(lines))


def _without_copies(headers: list[SliceHeader], warnings: list[str]) -> list[SliceHeader]:
    """Keep the first of files with the same SOP Instance UID: by the standard they are the same object."""
    kept: dict[str, SliceHeader] = {}
    for index, header in enumerate(headers):
        kept.setdefault(header.text("SOPInstanceUID") or f"without {index}", header)
    if len(kept) < len(headers):
        warnings.append(f"skipped {len(headers) - len(kept)} files: copies of others (same SOP Instance UID)")
    return list(kept.values())
