"""What one DICOM file says of its images: the elements that place and scale them, none that names the patient.

Elements are read by tag and as raw text: names and identifiers of the patient are never parsed. Messages count files
and give numbers of series; they hold no names of files, no UIDs and no descriptions, because any of these may name a
patient.
"""

from __future__ import annotations

import io
import re
import struct
import zipfile
import zlib
from dataclasses import dataclass, field
from typing import IO, Any, Literal, cast

import pydicom
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.tag import Tag
from pydicom.uid import UID

from voxelrt.errors import InputError
from voxelrt.io.dicom.contents import START, Content, DeflatedContent
from voxelrt.io.dicom.quiet import quiet_pydicom

# What pydicom and zipfile raise on damaged files (there is no single class for it). Their messages quote bytes of the
# file, so these are never chained to ours: a printed traceback would show them.
DAMAGE = (
    InvalidDicomError, BytesLengthException, EOFError, ValueError, KeyError, TypeError, AttributeError, IndexError,
    NotImplementedError, OverflowError, RecursionError, struct.error, zlib.error, zipfile.BadZipFile, AssertionError,
    MemoryError,
)  # fmt: skip

TEXTS = (
    "ImageType", "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID",
    "Modality", "BodyPartExamined", "SeriesDescription", "SeriesNumber", "InstanceNumber", "Manufacturer",
    "SliceThickness", "SpacingBetweenSlices", "GantryDetectorTilt", "ImagePositionPatient", "ImageOrientationPatient",
    "PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "PixelAspectRatio",
    "EstimatedRadiographicMagnificationFactor", "PhotometricInterpretation", "PresentationIntentType",
    "NumberOfFrames", "RescaleSlope", "RescaleIntercept", "RescaleType", "WindowCenter", "WindowWidth",
    "VOILUTFunction", "PresentationLUTShape", "TemporalPositionIdentifier", "AcquisitionNumber", "EchoTime",
    "EchoNumbers", "TriggerTime", "ContentTime", "AcquisitionTime", "AcquisitionDate", "SeriesTime", "SeriesDate",
    "FrameTime", "Units", "DecayCorrection", "CorrectedImage", "PatientWeight", "ImageLaterality", "Laterality",
    "ViewPosition", "PatientOrientation", "BurnedInAnnotation", "ConcatenationUID",
)  # fmt: skip
# Binary numbers; DiffusionBValue is the standard's own.
NUMBERS = (
    "SamplesPerPixel", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation",
    "PlanarConfiguration", "DiffusionBValue", "PixelPaddingValue", "PixelPaddingRangeLimit",
    "TotalPixelMatrixRows", "TotalPixelMatrixColumns", "TotalPixelMatrixFocalPlanes", "NumberOfOpticalPaths",
)  # fmt: skip
# What is a sequence, or private: kept as pydicom read it.
NESTED = (
    "ModalityLUTSequence", "VOILUTSequence", "RadiopharmaceuticalInformationSequence", "SequenceOfUltrasoundRegions",
    "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "ViewCodeSequence",
    "DiffusionGradientOrientation", "TotalPixelMatrixOriginSequence", "ImageOrientationSlide",
    "DimensionOrganizationType",
)  # fmt: skip
# Siemens keeps the mosaic's size and the b-value in private elements, GE and Philips the b-value.
MOSAIC_COUNT, SIEMENS_B, CSA = (0x0019, 0x100A), (0x0019, 0x100C), (0x0029, 0x1010)
GE_B, PHILIPS_B = (0x0043, 0x1039), (0x2001, 0x1003)
PRIVATE = (MOSAIC_COUNT, SIEMENS_B, CSA, GE_B, PHILIPS_B)
CREATORS = ((0x0019, 0x0010), (0x0029, 0x0010), (0x0043, 0x0010), (0x2001, 0x0010))
PIXELS = ((0x7FE0, 0x0010), (0x7FE0, 0x0008), (0x7FE0, 0x0009))  # integers, float32, float64

WANTED = [*(Tag(name) for name in (*TEXTS, *NUMBERS, *NESTED)), *(Tag(tag) for tag in (*PRIVATE, *CREATORS))]

SERIES = Tag("SeriesInstanceUID")
# PS3.5 6.2: what a code string (CS) or an integer string (IS) may hold, short enough to hold no name.
CODE = re.compile(r"[A-Z0-9_]{1,12}")
EXPLICIT_LITTLE_ENDIAN, IMPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
DEFLATED = "1.2.840.10008.1.2.1.99"
BIG_ENDIAN = "1.2.840.10008.1.2.2"
META_BYTES = 4096  # meta information is shorter
# What is read of elements before the pixels. The headers of the largest enhanced objects take some ten MiB; a file of
# empty elements would keep the parser for hours.
MAX_HEADER_BYTES = 64 * 2**20


@dataclass(frozen=True)
class PixelPlace:
    """Where the pixel data element's value lies in the file.

    Parameters
    ----------
    offset, length
        Bytes; a length of None is undefined: frames follow as items (PS3.5 A.4).
    kind
        "integer", "float32" or "float64".
    vr
        The value representation that the file states.
    """

    offset: int
    length: int | None
    kind: str = "integer"
    vr: str = "OW"


@dataclass(frozen=True, eq=False)
class Header:
    """What one file says of itself; everything but the pixels and the patient."""

    content: Content = field(repr=False)
    number: str
    texts: dict[str, str] = field(repr=False)
    numbers: dict[str, float] = field(repr=False)
    nested: dict[Any, Any] = field(repr=False)
    transfer_syntax: str = field(repr=False)
    pixels: PixelPlace | None

    def text(self, name: str) -> str:
        """The element's value, "" where the file does not have it."""
        return self.texts.get(name, "")

    def code(self, name: str) -> str:
        """The element's value if it is a short code, else "": text for a message must not be whatever a damaged file
        holds at that place."""
        text = self.text(name)
        return text if CODE.fullmatch(text) else ""

    def words(self, name: str) -> list[str]:
        """The values of a code string."""
        return self.text(name).upper().split("\\")

    def integer(self, name: str, default: int = 0) -> int:
        """A binary whole number."""
        return int(self.numbers.get(name, default))

    def floats(self, name: str) -> tuple[float, ...] | None:
        """A decimal string's values, None where the file does not have it. Raises InputError if they are no numbers."""
        text = self.text(name)
        if not text:
            return None
        try:
            return tuple(float(part) for part in text.split("\\"))
        except ValueError:
            raise InputError(f"{self.number}: {name} is not made of numbers; the file is damaged") from None

    def number_of(self, name: str) -> float | None:
        """The first value of a decimal string, None where there is none that is a number."""
        try:
            values = self.floats(name)
        except InputError:
            return None
        return values[0] if values else None

    @property
    def frames(self) -> int:
        """NumberOfFrames, 1 where it is not said. Raises InputError if it is no whole number above 0."""
        text = self.text("NumberOfFrames") or "1"
        if not text.lstrip("+").isdigit() or not 1 <= int(text) <= 2**24:
            raise InputError(f"{self.number}: NumberOfFrames is not a count of frames; the file is damaged")
        return int(text)

    @property
    def syntax(self) -> UID:
        """The transfer syntax, without pydicom's remark where it is none."""
        return UID(self.transfer_syntax, validation_mode=pydicom.config.IGNORE)

    def source_elements(self) -> Any:
        """Everything the file says except the pixels, as a pydicom Dataset: for what is derived from it.

        It names the patient; what is made of it may be written into DICOM objects and nowhere else.

        Raises
        ------
        InputError : the file is gone or damaged.
        """
        try:
            with self.content.open() as stream, quiet_pydicom():
                dataset = pydicom.dcmread(stream, stop_before_pixels=True, force=True)
                dataset.file_meta.TransferSyntaxUID = self.syntax
                return dataset
        except OSError as error:
            raise InputError(f"cannot read {self.number}: {error.strerror or type(error).__name__}") from None
        except DAMAGE as error:
            raise InputError(f"{self.number} is damaged: its header cannot be read ({type(error).__name__})") from None


def read_header(content: Content, number: str) -> Header | None:
    """Read one file's header; None if the file is not DICOM. Raises InputError if it is, and is damaged."""
    try:
        with content.open() as stream:
            if not looks_like_dicom(stream.read(START)):
                return None
            stream.seek(0)
            with quiet_pydicom():
                return _parse(content, stream, number)
    except OSError as error:
        raise InputError(f"cannot read {number}: {error.strerror or type(error).__name__}") from None
    except (*DAMAGE, RuntimeError) as error:
        raise InputError(f"{number} is damaged: its header cannot be read ({type(error).__name__})") from None


def series_said(content: Content) -> str:
    """The SeriesInstanceUID of a file whose header cannot be read as a whole; "" if its elements are lost before it."""
    try:
        with content.open() as stream, quiet_pydicom():
            if _behind_deflated_meta(stream):
                return ""  # what of a damaged code can still be inflated is not known to be right
            stream.seek(0)
            dataset = pydicom.filereader.read_partial(
                cast(IO[bytes], _Bounded(stream)),
                stop_when=lambda tag, vr, length: tag > SERIES,
                specific_tags=[SERIES],
                force=True,
            )
            raw = dataset.get_item(SERIES)
            # What a cut file has of it is no UID.
            whole = raw is not None and isinstance(raw.value, bytes) and len(raw.value) == raw.length
            return str(raw.value.decode("ascii")).strip(" \0") if whole else ""
    except (*DAMAGE, OSError, RuntimeError, InputError):
        return ""


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


def _parse(content: Content, stream: IO[bytes], number: str) -> Header:
    behind = _behind_deflated_meta(stream)
    if behind:
        content = DeflatedContent(content, behind)
        stream = content.open()
    stream.seek(0)
    if behind or content.size() > MAX_HEADER_BYTES:
        stream = cast(IO[bytes], _Bounded(stream))
    dataset = pydicom.dcmread(stream, stop_before_pixels=True, force=True, specific_tags=WANTED)
    texts, numbers, nested = _values(dataset)
    if not texts.get("SOPClassUID"):  # a DICOMDIR says it in its meta information only
        texts["SOPClassUID"] = str(dataset.file_meta.get("MediaStorageSOPClassUID", "") or "")
    implicit = bool(dataset.original_encoding[0])
    syntax = str(dataset.file_meta.get("TransferSyntaxUID", "") or "")
    if not syntax:
        syntax = IMPLICIT_LITTLE_ENDIAN if implicit else EXPLICIT_LITTLE_ENDIAN
    pixels = _pixel_place(stream, implicit=implicit, little=syntax != BIG_ENDIAN)
    return Header(content, number, texts, numbers, nested, syntax, pixels)


class _Bounded(io.BufferedIOBase):
    """A stream that ends where more was read of it than any header has; what is skipped does not count."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self._left = stream, MAX_HEADER_BYTES

    def read(self, count: int | None = -1, /) -> bytes:
        piece = self._stream.read(self._left + 1 if count is None or count < 0 else count)
        self._left -= len(piece)
        if self._left < 0:
            raise InputError(f"a DICOM file has more than {MAX_HEADER_BYTES >> 20} MiB of elements before its pixels")
        return piece

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()


def _behind_deflated_meta(stream: IO[bytes]) -> int:
    """Where the deflated part of a file begins; 0 for every other transfer syntax. The stream is at its start."""
    start = stream.read(START + META_BYTES)
    # Most files are not deflated: look for the one UID before anything is parsed.
    if DEFLATED.encode() not in start:
        return 0
    stream.seek(START if start[128:132] == b"DICM" else 0)
    meta = pydicom.filereader.read_dataset(
        stream, is_implicit_VR=False, is_little_endian=True, stop_when=lambda tag, vr, length: tag.group != 2
    )
    return stream.tell() if str(meta.get("TransferSyntaxUID", "")) == DEFLATED else 0


def _pixel_place(stream: IO[bytes], *, implicit: bool, little: bool) -> PixelPlace | None:
    """The pixel data element at the stream's position, None if the file ends here or something else follows."""
    order: Literal["little", "big"] = "little" if little else "big"
    start = stream.read(12)
    if len(start) < 8:
        return None
    tag = tuple(int.from_bytes(start[k : k + 2], order) for k in (0, 2))
    if tag not in PIXELS:
        return None
    # Implicit: tag, length. Explicit OB, OW, OF and OD: tag, VR, two empty bytes, length; others: a short length.
    if implicit:
        size, raw = 8, start[4:8]
    elif start[4:6] in (b"OB", b"OW", b"OF", b"OD", b"UN"):
        size, raw = 12, start[8:12]
    else:
        size, raw = 8, start[6:8]
    length = int.from_bytes(raw, order)
    offset = stream.tell() - len(start) + size
    kind = ("integer", "float32", "float64")[PIXELS.index(tag)]
    vr = start[4:6].decode("ascii", "replace") if size == 12 else "OW"
    return PixelPlace(offset, None if length == 0xFFFFFFFF else length, kind, vr if vr in ("OB", "OW") else "OW")


def _values(dataset: Any) -> tuple[dict[str, str], dict[str, float], dict[Any, Any]]:
    """The wanted elements: text as it stands, binary numbers, and what is nested."""
    texts: dict[str, str] = {}
    numbers: dict[str, float] = {}
    nested: dict[Any, Any] = {}
    for tag in list(dataset.keys()):
        name = NAMES.get(tag)
        if name in BINARY:
            value = dataset[tag].value
            if isinstance(value, (int, float)):
                numbers[name] = value
        elif name in TEXT_NAMES:
            raw = dataset.get_item(tag).value
            texts[name] = raw.decode("ascii", "replace").strip(" \0") if isinstance(raw, bytes) else ""
        elif name is not None:
            value = dataset[tag].value
            if dataset[tag].VR == "SQ":
                _settle(value)
            if value is not None and value != "":
                nested[name] = value
        elif tag in PRIVATE_TAGS:
            nested[(tag.group, tag.element)] = dataset.get_item(tag).value
    return texts, numbers, nested


def _settle(sequence: Any) -> None:
    """Read all that is nested now, while pydicom is quiet: later it would fail, and quote, wherever it is looked at.

    What cannot be read is taken out: it counts as not there.
    """
    for item in sequence:
        for tag in list(item.keys()):
            try:
                element = item[tag]
                if element.VR == "SQ":
                    _settle(element.value)
            except (*DAMAGE, OSError):
                del item[tag]


NAMES = {Tag(name): name for name in (*TEXTS, *NUMBERS, *NESTED)}
TEXT_NAMES, BINARY = frozenset(TEXTS), frozenset(NUMBERS)
PRIVATE_TAGS = frozenset(Tag(tag) for tag in (*PRIVATE, *CREATORS))
