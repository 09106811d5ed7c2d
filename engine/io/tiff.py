"""TIFF in, by tifffile: a picture, or a stack of equal pages. Sizes are held against the file before they are taken."""

from __future__ import annotations

import json
import logging
import math
import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxelrt.errors import InputError, MissingExtraError
from voxelrt.io.image import MAX_VOLUME_BYTES

Array = NDArray[Any]
Spacing = tuple[float | None, float, float]

STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# What is read as a whole; larger ones are slides.
MAX_BYTES = min(4 * 2**30, MAX_VOLUME_BYTES)
# The best coder of a constant picture makes a byte of some thousand pixels.
MOST_PACKED = 2**14
CENTIMETRE = 3
OWN_CODES = (1, 8, 32946)  # none and Deflate, which tifffile has without imagecodecs
MOST_PAGES, MOST_TAGS = 2**16, 4096
_NUMBER = re.compile(r"(.+)_\d{4}")

# What tifffile and its codecs raise on damaged files; their messages may quote them.
DAMAGE = (
    ValueError, TypeError, KeyError, IndexError, EOFError, OverflowError, MemoryError, struct.error, zlib.error,
    AttributeError, RuntimeError, ZeroDivisionError, NotImplementedError, AssertionError, RecursionError, OSError,
)  # fmt: skip

# Its remarks on damaged files quote their texts; other users of tifffile keep theirs.
_reading: ContextVar[bool] = ContextVar("_reading", default=False)
logging.getLogger("tifffile").addFilter(lambda record: not _reading.get())


@contextmanager
def quiet_tifffile() -> Iterator[None]:
    """No log records of tifffile from this thread inside."""
    token = _reading.set(True)
    try:
        yield
    finally:
        _reading.reset(token)


def is_tiff(start: bytes) -> bool:
    """Whether a file that begins so is a TIFF or BigTIFF."""
    return start.startswith(STARTS)


def refuse_loops(path: Path) -> None:
    """Walk the chain of pages before tifffile does, which follows one that runs in circles for hours.

    Raises
    ------
    InputError : pages that come back to themselves, or more pages and tags than any file has.
    """
    with open(path, "rb") as stream:
        start = stream.read(16)
        order = "<" if start[:2] == b"II" else ">"
        big = struct.unpack(order + "H", start[2:4])[0] == 43
        # Of an IFD: the count of tags, then the tags, then the place of the next (TIFF 6.0, section 2; BigTIFF).
        count_form, tag_bytes, next_form = ("Q", 20, "Q") if big else ("H", 12, "I")
        (place,) = struct.unpack_from(order + next_form, start, 8 if big else 4)
        seen: set[int] = set()
        while place:
            stream.seek(place)
            raw = stream.read(struct.calcsize(count_form))
            tags = struct.unpack(order + count_form, raw)[0] if len(raw) == struct.calcsize(count_form) else 0
            if place in seen or len(seen) >= MOST_PAGES or not 1 <= tags <= MOST_TAGS:
                raise InputError(f"{path.name!r} is damaged: its chain of pages is broken")
            seen.add(place)
            stream.seek(place + len(raw) + tags * tag_bytes)
            raw = stream.read(struct.calcsize(next_form))
            place = struct.unpack(order + next_form, raw)[0] if len(raw) == struct.calcsize(next_form) else 0


def read_tiff(path: Path) -> tuple[Array, Spacing | None, list[str], bool]:
    """Read a TIFF as a whole.

    Returns
    -------
    array : (C, Z, Y, X).
    spacing : z, y, x in mm; z is None of a picture that has no depth, all is None where nothing tells it.
    notes : sentences.
    colour : whether the channels are red, green and blue.

    Raises
    ------
    InputError : damaged, larger than is read, more axes than a stack of pictures has.
    MissingExtraError : a compression that needs imagecodecs.
    """
    import tifffile

    try:
        refuse_loops(path)
        with quiet_tifffile(), tifffile.TiffFile(path) as opened:
            series = opened.series[0]
            axes, shape, page = series.axes, series.shape, series.keyframe
            _refuse(path, shape, page, series.nbytes)
            # One thread: others are used for other studies.
            array = series.asarray(maxworkers=1)
            spacing, notes = _lengths(path, opened, page, axes)
            made, more = _as_volume(array, axes, path.name)
    except (InputError, MissingExtraError):
        raise
    except DAMAGE as error:
        _refuse_missing_codec(error)
        raise InputError(f"{path.name!r} is damaged: the TIFF cannot be decoded") from None
    return made, spacing, notes + more, "S" in axes and len(made) == 3


def _refuse(path: Path, shape: tuple[int, ...], page: Any, size: int) -> None:
    declared = math.prod(int(n) for n in shape) * int(page.bitspersample or 8) // 8
    if max(declared, int(size)) > MAX_BYTES:
        raise InputError(
            f"{path.name!r} has {declared / 2**30:.1f} GiB of pixels; at most {MAX_BYTES / 2**30:.0f} GiB are read as "
            "a whole"
        )
    if min(shape, default=0) < 1 or declared > path.stat().st_size * MOST_PACKED:
        raise InputError(f"{path.name!r} is damaged: it declares more pixels than it can hold")
    refuse_uncoded(page)


def refuse_uncoded(page: Any) -> None:
    """Raise MissingExtraError for a compression that needs imagecodecs where that is not installed."""
    if int(page.compression) not in OWN_CODES:
        _require_codecs()


def _require_codecs() -> None:
    try:
        import imagecodecs  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("imagecodecs", "pathology", "reading compressed TIFF") from error


def _refuse_missing_codec(error: BaseException) -> None:
    if "imagecodecs" in str(error):
        _require_codecs()


def _as_volume(array: Array, axes: str, name: str) -> tuple[Array, list[str]]:
    """(C, Z, Y, X) of what tifffile calls its axes: S are samples, C channels, Y and X the picture, others stack."""
    kept = [axis for axis, size in zip(axes, array.shape, strict=True) if size > 1 or axis in "YX"]
    array = array.reshape([size for axis, size in zip(axes, array.shape, strict=True) if size > 1 or axis in "YX"])
    stacked = [axis for axis in kept if axis not in "SCYX"]
    if len(stacked) > 1 or kept.count("Y") != 1 or kept.count("X") != 1 or ("S" in kept and "C" in kept):
        raise InputError(f"{name!r} has the axes {axes}; a picture or one stack of pictures is read")
    order = [kept.index(axis) for axis in (*(a for a in "SC" if a in kept), *stacked, "Y", "X")]
    array = array.transpose(order)
    if not any(axis in kept for axis in "SC"):
        array = array[None]
    if not stacked:
        array = array[:, None]
    notes = []
    if "S" in kept and array.shape[0] in (2, 4):
        notes, array = ["transparency is left out"], array[:-1]
    if array.dtype == np.bool_:
        array = array.astype(np.uint8)
    if array.dtype.kind not in "iuf":
        raise InputError(f"{name!r} has pixels of type {array.dtype}, which is not read")
    return np.ascontiguousarray(array), notes


def _lengths(path: Path, opened: Any, page: Any, axes: str) -> tuple[Spacing | None, list[str]]:
    beside = _beside(path)
    if beside is not None:
        return beside, ["lengths are those of the .json beside the file"]
    known = per_mm(page)
    if known is None:
        return None, []
    said = dict(opened.imagej_metadata or {}) if opened.is_imagej else {}
    depth = said.get("spacing")
    stacked = any(axis not in "SCYX" for axis in axes)
    depth_mm = abs(float(depth)) / 1000 if isinstance(depth, (int, float)) and said.get("unit") == "micron" else 0.0
    y, x = 1 / known[1], 1 / known[0]
    if not 1e-6 < depth_mm < 1e4:
        of_pages = "; the distance of pages is taken as 1 mm" if stacked else ""
        return (None, y, x), [f"pixels are {y:.4g} × {x:.4g} mm by the file{of_pages}"]
    return (depth_mm, y, x), [f"pixels are {y:.4g} × {x:.4g} mm by the file"]


def per_mm(page: Any) -> tuple[float, float] | None:
    """Pixels per millimetre along x and y. Inches are what a printer is told, not lengths of what is seen."""
    try:
        if int(page.resolutionunit) != CENTIMETRE:
            return None
        x, y = (float(value) / 10 for value in page.resolution)
    except DAMAGE:
        return None
    good = math.isfinite(x) and math.isfinite(y) and min(x, y) > 1e-3 and max(x, y) < 1e6
    return (x, y) if good else None


def _beside(path: Path) -> Spacing | None:
    """The spacing (z, y, x) of ``<case>.json`` beside ``<case>_0000.tif``, as nnU-Net keeps it; None without one."""
    named = _NUMBER.fullmatch(path.stem)
    beside = path.with_name(f"{named[1] if named else path.stem}.json")
    if not beside.is_file() or beside.stat().st_size > 2**16:
        return None
    try:
        z, y, x = (float(value) for value in json.loads(beside.read_text("utf-8"))["spacing"])
    except (ValueError, TypeError, KeyError, OSError):
        return None
    return (z, y, x) if all(1e-6 < value < 1e4 for value in (z, y, x)) else None
