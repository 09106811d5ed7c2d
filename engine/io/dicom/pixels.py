"""Stored values of many frames into one array: decoded on threads, each frame straight into its plane.

Uncompressed pixels are read where they lie in the file; others go through pydicom's decoders, whose plugins the extra
``dicom-codecs`` brings. Declared sizes are compared with what the file has before anything is allocated by them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from pydicom.encaps import generate_fragmented_frames
from pydicom.pixels import get_decoder

from voxelrt import environment
from voxelrt.errors import InputError, MissingExtraError
from voxelrt.io.dicom.codecs import as_stored, is_whole, side_by_side
from voxelrt.io.dicom.contents import FileContent
from voxelrt.io.dicom.frames import Frame
from voxelrt.io.dicom.header import BIG_ENDIAN, DAMAGE, Header, PixelPlace
from voxelrt.io.dicom.quiet import quiet_pydicom
from voxelrt.io.image import MAX_VOLUME_BYTES

Array = NDArray[Any]
KEYWORDS = {"integer": "PixelData", "float32": "FloatPixelData", "float64": "DoubleFloatPixelData"}
FLOATS: dict[str, np.dtype[Any]] = {"float32": np.dtype("<f4"), "float64": np.dtype("<f8")}


@dataclass(frozen=True, eq=False)
class Job:
    """One picture of a file, and the planes that it fills: one, or the tiles of a mosaic."""

    header: Header
    index: int
    planes: tuple[tuple[int, tuple[int, int] | None], ...]


def read_stored(frames: Sequence[Frame], *, threads: int | None = None) -> Array:
    """The stored values of frames of one size, unused high bits cleared and the sign extended.

    Parameters
    ----------
    frames
        Grey, all of the same size.
    threads
        How many decode at once, default ``environment.threads()``.

    Returns
    -------
    stored : (frames, rows, columns) in the narrowest dtype that holds every file's.

    Raises
    ------
    InputError : not a grey image, damaged, truncated, more than is read.
    MissingExtraError : compressed pixels without a decoder.
    """
    jobs = jobs_of(frames)
    kinds = set()
    for job in jobs:
        refuse_what_is_not_read(job.header)
        kinds.add(stored_dtype(job.header))
    dtype = np.result_type(*kinds)
    rows, columns = frames[0].size
    if len(frames) * rows * columns * max(4, dtype.itemsize) > MAX_VOLUME_BYTES:
        raise InputError(f"a series of {len(frames)} slices of {rows} × {columns} is more than is read into memory")
    stack: Array = np.empty((len(frames), rows, columns), dtype=dtype)
    shelf = Shelf(jobs)
    count = min(len(jobs), threads or environment.threads())
    if count == 1:
        for job in jobs:
            _fill(stack, job, shelf)
        return stack
    with ThreadPoolExecutor(count, thread_name_prefix="voxelrt-dicom") as pool:
        waiting = [pool.submit(_fill, stack, job, shelf) for job in jobs]
        try:
            for future in waiting:
                future.result()
        finally:
            for future in waiting:
                future.cancel()
    return stack


def refuse_what_is_not_read(header: Header, *, colour: bool = False) -> None:
    """Raise InputError or MissingExtraError for pixels that are not read, before anything is allocated for them."""
    photometric = header.text("PhotometricInterpretation").upper()
    if not photometric:
        raise InputError(f"{header.number} holds no image or is truncated: no PhotometricInterpretation")
    if not colour and (header.integer("SamplesPerPixel", 1) != 1 or not photometric.startswith("MONOCHROME")):
        kind = header.code("PhotometricInterpretation") or "unusual"
        raise InputError(f"{header.number} is not a grey image (PhotometricInterpretation {kind})")
    names = ("Rows", "Columns", "BitsAllocated") + (("BitsStored",) if _kind(header) == "integer" else ())
    missing = [name for name in names if header.integer(name) <= 0]
    if missing:
        raise InputError(f"{header.number} is damaged or truncated: no {', '.join(missing)}")
    allocated, stored = header.integer("BitsAllocated"), header.integer("BitsStored", header.integer("BitsAllocated"))
    high = header.integer("HighBit", stored - 1)
    good = allocated in (8, 16, 32) and 1 <= stored <= high + 1 <= allocated
    if not good and _kind(header) == "integer":
        raise InputError(f"{header.number}: {stored} of {allocated} bits with high bit {high} are not read")
    if header.pixels is None:
        raise InputError(f"{header.number} is damaged or truncated: no whole pixel data")
    _refuse_short(header, header.pixels)


def stored_dtype(header: Header) -> np.dtype[Any]:
    """The dtype of a file's stored values."""
    kind = _kind(header)
    if kind != "integer":
        return FLOATS[kind]
    sign = "i" if header.integer("PixelRepresentation") == 1 else "u"
    return np.dtype(f"{sign}{header.integer('BitsAllocated') // 8}")


def _kind(header: Header) -> str:
    return header.pixels.kind if header.pixels is not None else "integer"


def frame_bytes(header: Header) -> int:
    """Bytes of one uncompressed frame."""
    samples = header.integer("SamplesPerPixel", 1)
    return header.integer("Rows") * header.integer("Columns") * samples * header.integer("BitsAllocated") // 8


def _refuse_short(header: Header, place: PixelPlace) -> None:
    syntax = header.syntax
    if not syntax.is_transfer_syntax or syntax.is_private:
        raise InputError(f"{header.number}: its transfer syntax is not known; the file is damaged or private")
    if syntax.is_compressed and syntax.is_encapsulated:
        if not _decoder(header).is_available and side_by_side(header) is None:
            raise MissingExtraError("pylibjpeg", "dicom-codecs", f"reading {syntax.name} pixel data")
        # The best coder of a constant picture makes some ten bytes of it; nothing makes a million pixels of one byte.
        if frame_bytes(header) > 2**20 * max(1, header.content.size()):
            raise InputError(f"{header.number} is damaged: more pixels than its compressed data can hold")
        return
    needed = frame_bytes(header) * header.frames
    if header.text("PhotometricInterpretation").upper() == "YBR_FULL_422":
        needed = needed // 3 * 2
    size = header.content.size()
    present = min(size - place.offset, place.length if place.length is not None else size)
    if present < needed:
        raise InputError(f"{header.number} is truncated: {present} bytes of pixels, and {needed} are needed")


def _decoder(header: Header) -> Any:
    """pydicom's decoder of a transfer syntax. Raises InputError if it knows none."""
    try:
        return get_decoder(header.syntax)
    except NotImplementedError:
        raise InputError(f"{header.number}: pixel data in {header.syntax.name} is not read") from None


def jobs_of(frames: Sequence[Frame]) -> list[Job]:
    """The pictures that frames are in, each with the planes that it fills."""
    planes: dict[tuple[int, int], list[tuple[int, tuple[int, int] | None]]] = {}
    headers: dict[int, Header] = {}
    for plane, frame in enumerate(frames):
        headers[id(frame.header)] = frame.header
        planes.setdefault((id(frame.header), frame.index), []).append((plane, frame.tile))
    return [Job(headers[key], index, tuple(targets)) for (key, index), targets in planes.items()]


class Codes(Protocol):
    """Where the code of a compressed frame comes from."""

    def fragments(self, header: Header, index: int) -> bytes:
        """The code of one frame. Raises InputError if the file has fewer."""


class Shelf:
    """The compressed frames of files that hold several: taken apart once, kept until the last is decoded."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._left: dict[int, int] = {}
        for job in jobs:
            self._left[id(job.header)] = self._left.get(id(job.header), 0) + 1
        self._frames: dict[int, list[tuple[bytes, ...]]] = {}
        self._lock = threading.Lock()

    def fragments(self, header: Header, index: int) -> bytes:
        """The code of one frame. Raises InputError if the file has fewer."""
        key = id(header)
        with self._lock:
            if key not in self._frames:
                self._frames[key] = _fragmented(header)
            found = self._frames[key]
            self._left[key] = self._left.get(key, 1) - 1
            if self._left[key] <= 0:
                del self._frames[key]
        if index >= len(found):
            raise InputError(f"{header.number} is damaged: it has {len(found)} frames and says {header.frames}")
        return b"".join(found[index])


def _fragmented(header: Header) -> list[tuple[bytes, ...]]:
    place = header.pixels
    if place is None:
        raise InputError(f"{header.number} is damaged: its compressed pixels are not in items")
    try:
        # The length should be undefined; some writers state it, which changes nothing.
        left = header.content.size() - place.offset
        code = header.content.read(place.offset, left if place.length is None else min(left, place.length))
        with quiet_pydicom():
            return list(generate_fragmented_frames(code, number_of_frames=header.frames))
    except DAMAGE:
        raise InputError(f"{header.number} is damaged or truncated: no whole pixel data") from None


def _fill(stack: Array, job: Job, shelf: Shelf) -> None:
    """Decode one picture into its planes."""
    (first, tile), header = job.planes[0], job.header
    place = header.pixels
    native = place is not None and not header.syntax.is_encapsulated and header.transfer_syntax != BIG_ENDIAN
    if native and tile is None and stored_dtype(header) == stack.dtype:
        _read_raw(header, job.index, stack[first])
        _clear_unused(stack[first], header)
        for plane, _ in job.planes[1:]:
            stack[plane] = stack[first]
        return
    values = decode_picture(header, job.index, shelf)
    for plane, corner in job.planes:
        if corner is None:
            stack[plane] = values
        else:
            rows, columns = stack.shape[1:]
            stack[plane] = values[corner[0] : corner[0] + rows, corner[1] : corner[1] + columns]


def _read_raw(header: Header, index: int, plane: Array) -> None:
    """Little endian pixels from the file straight into memory."""
    place, content = header.pixels, header.content
    offset = (place.offset if place else 0) + index * plane.nbytes
    try:
        if isinstance(content, FileContent):
            with open(content.path, "rb", buffering=0) as stream:
                stream.seek(offset)
                view = plane.reshape(-1).view(np.uint8).data
                done = 0
                while done < plane.nbytes:
                    count = stream.readinto(view[done:])
                    if not count:
                        raise InputError(f"{header.number} is truncated: no whole pixel data")
                    done += count
            return
        plane[...] = np.frombuffer(content.read(offset, plane.nbytes), plane.dtype).reshape(plane.shape)
    except OSError as error:
        raise InputError(f"cannot read {header.number}: {error.strerror or type(error).__name__}") from None
    except ValueError:
        raise InputError(f"{header.number} is truncated: no whole pixel data") from None


def decode_picture(header: Header, index: int, shelf: Codes) -> Array:
    """One picture of a file, through pydicom's decoder: (rows, columns), or (rows, columns, 3) as RGB.

    Raises
    ------
    InputError, MissingExtraError : as `read_stored`.
    """
    syntax, place = header.syntax, header.pixels
    if place is None:
        raise InputError(f"{header.number} is damaged or truncated: no whole pixel data")
    try:
        if syntax.is_encapsulated:
            code: Any = shelf.fragments(header, index)
            fast = side_by_side(header)
            if fast is not None and is_whole(header, code):
                return _of_code(header, code, fast)
            code = _item(code)
        else:
            count = frame_bytes(header)
            if header.text("PhotometricInterpretation").upper() == "YBR_FULL_422":
                count = count // 3 * 2
            # The last byte of a big endian word comes first, so an odd frame is read with the byte that pads it.
            code = header.content.read(place.offset + index * count, count + count % 2 * (header.frames == 1))
        values = _decode(header, code)
    except OSError as error:
        raise InputError(f"cannot read {header.number}: {error.strerror or type(error).__name__}") from None
    except RuntimeError:
        if syntax.is_encapsulated and _decoder(header).missing_dependencies and not _decoder(header).is_available:
            raise MissingExtraError("pylibjpeg", "dicom-codecs", f"reading {syntax.name} pixel data") from None
        raise InputError(f"{header.number} is damaged: its pixels cannot be decoded") from None
    except DAMAGE:
        raise InputError(f"{header.number} is damaged or truncated: no whole pixel data") from None
    expected = (header.integer("Rows"), header.integer("Columns"))
    if values.shape[:2] != expected:
        raise InputError(f"{header.number} is damaged: its pixels are {values.shape}, its header says {expected}")
    return _clear_unused(np.array(values), header)


def _of_code(header: Header, code: bytes, decode: Callable[[bytes], Array]) -> Array:
    """One frame by a decoder that does not know DICOM; in the values' own bits. Raises InputError."""
    try:
        values = np.asarray(decode(code))
    except Exception:  # noqa: BLE001 - each codec has its own errors for damaged codes, which quote the code
        raise InputError(f"{header.number} is damaged: its pixels cannot be decoded") from None
    expected = (header.integer("Rows"), header.integer("Columns"))
    if values.shape != expected or values.dtype.kind not in "iu":
        raise InputError(f"{header.number} is damaged: its pixels are {values.shape}, its header says {expected}")
    return _clear_unused(as_stored(values, stored_dtype(header)), header)


def _item(code: bytes) -> bytes:
    """One frame as a whole encapsulated value: an empty offset table, the frame, the end (PS3.5 A.4)."""
    code += b"\0" * (len(code) % 2)
    start, end = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0\0\0\0\0"
    return start + bytes(4) + start + len(code).to_bytes(4, "little") + code + end


def _decode(header: Header, code: bytes) -> Array:
    place = header.pixels
    options: dict[str, Any] = {
        "rows": header.integer("Rows"),
        "columns": header.integer("Columns"),
        "samples_per_pixel": header.integer("SamplesPerPixel", 1),
        "photometric_interpretation": header.text("PhotometricInterpretation").upper(),
        "bits_allocated": header.integer("BitsAllocated"),
        "bits_stored": header.integer("BitsStored", header.integer("BitsAllocated")),
        "number_of_frames": 1,
        "pixel_keyword": KEYWORDS[_kind(header)],
        "pixel_vr": place.vr if place is not None else "OW",
    }
    if _kind(header) == "integer":
        options["pixel_representation"] = header.integer("PixelRepresentation")
    if options["samples_per_pixel"] > 1:
        options["planar_configuration"] = header.integer("PlanarConfiguration")
    with quiet_pydicom():
        values, _ = _decoder(header).as_array(code, index=0, raw=options["samples_per_pixel"] == 1, **options)
    return np.asarray(values)


def _clear_unused(values: Array, header: Header) -> Array:
    """Clear, in place, the bits outside the value (old files keep overlays there), and repeat the sign."""
    if _kind(header) != "integer" or values.dtype.kind not in "iu":
        return values
    allocated = values.dtype.itemsize * 8
    stored = header.integer("BitsStored")
    high = header.integer("HighBit", stored - 1)
    above, unused = allocated - 1 - high, allocated - stored
    if header.syntax.is_encapsulated:
        above = unused  # decoders give values whose lowest bit is the value's
    if unused > 0:
        np.left_shift(values, above, out=values)
        np.right_shift(values, unused, out=values)
    return values
