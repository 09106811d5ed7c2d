"""Whole slides in DICOM (VL Whole Slide Microscopy, PS3.3 A.32.8), full or sparse: one tile at a time.

Each file is a level, or several: one for each focal plane and optical path. Labels and overviews, which show the
patient's name, are never read.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray
from pydicom.encaps import parse_basic_offsets, parse_fragments

from voxelrt.errors import InputError
from voxelrt.io.dicom.contents import Content
from voxelrt.io.dicom.header import DAMAGE, Header
from voxelrt.io.dicom.pixels import decode_picture, frame_bytes, refuse_what_is_not_read
from voxelrt.io.dicom.quiet import quiet_pydicom
from voxelrt.io.slide import Level, Slide

Array = NDArray[Any]
Frames = dict[tuple[int, int], int]

WHOLE_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"
MAX_TILE_BYTES = 64 * 2**20
MAX_TILES = 2**22
MAX_PICTURES = 256  # focal planes and optical paths of one file


def is_slide(header: Header) -> bool:
    """Whether this is an object of whole slide microscopy."""
    return header.text("SOPClassUID") == WHOLE_SLIDE


@dataclass(frozen=True, eq=False)
class _Part:
    """A picture of a file: which frame holds a tile, where each frame's code lies, the focal plane's height or 0."""

    header: Header
    frames: Frames
    places: list[list[tuple[int, int]]]
    level: Level
    depth_um: float


class DicomSlide(Slide):
    """The levels of a series of whole slide microscopy."""

    def __init__(self, parts: Sequence[_Part], levels: tuple[Level, ...], warnings: tuple[str, ...]) -> None:
        super().__init__("DICOM slide", levels, warnings)
        self._parts = parts

    def decode(self, level: int, row: int, column: int) -> Array | None:
        part = self._parts[level]
        index = part.frames.get((row, column))
        if index is None:
            return None
        tile = decode_picture(part.header, index, _Codes(part.places))
        if tile.ndim == 2:
            tile = np.repeat(tile[..., None], 3, axis=2)
        if tile.dtype != np.uint8 or tile.shape[2] != 3:
            raise InputError(f"{part.header.number}: tiles of {tile.dtype} in {tile.shape[2:]} colours are not read")
        return tile


class _Codes:
    """The code of a frame, read where it lies; what `pixels.Shelf` is for files that are read whole."""

    def __init__(self, places: list[list[tuple[int, int]]]) -> None:
        self._places = places

    def fragments(self, header: Header, index: int) -> bytes:
        if index >= len(self._places):
            raise InputError(f"{header.number} is damaged: it has {len(self._places)} frames and says {header.frames}")
        return b"".join(header.content.read(offset, count) for offset, count in self._places[index])


def open_dicom_slide(headers: Sequence[Header]) -> DicomSlide:
    """A series of whole slide microscopy.

    Raises
    ------
    InputError : no level in it, damaged files, concatenations.
    MissingExtraError : a compression without a decoder.
    """
    kept, other = [], 0
    for header in headers:
        if "VOLUME" in header.words("ImageType") or "RESAMPLED" in header.words("ImageType")[2:3]:
            kept.append(header)
        else:
            other += 1
    if not kept:
        raise InputError("the slide has no image of the specimen, only labels or overviews, which are not read")
    parts = [one for header in kept for one in _parts(header)]
    parts.sort(key=lambda one: (-one.level.size[1], -one.level.size[0], one.depth_um))
    said = [f"{other} {'image' if other == 1 else 'images'} of the label or an overview left out"] if other else []
    return DicomSlide(parts, tuple(_levels(parts)), tuple(said))


def _levels(parts: Sequence[_Part]) -> list[Level]:
    """The parts' levels; those of one size are told apart by their number among them."""
    counts = Counter(part.level.size for part in parts)
    seen: Counter[tuple[int, int]] = Counter()
    made = []
    for part in parts:
        size = part.level.size
        seen[size] += 1
        depth = f" ({part.depth_um:+g} µm)" if part.depth_um else ""
        plane = f"focal plane or optical path {seen[size]} of {counts[size]}{depth}" if counts[size] > 1 else ""
        made.append(replace(part.level, plane=plane))
    return made


def _parts(header: Header) -> list[_Part]:
    """The pictures of a file: one, or one for each focal plane and optical path."""
    refuse_what_is_not_read(header, colour=True)
    size = (header.integer("TotalPixelMatrixRows"), header.integer("TotalPixelMatrixColumns"))
    tile = (header.integer("Rows"), header.integer("Columns"))
    if min(size) < 1 or frame_bytes(header) > MAX_TILE_BYTES or header.frames > MAX_TILES:
        raise InputError(
            f"{header.number} is damaged: a slide of {size[1]} × {size[0]} pixels in {header.frames} tiles"
        )
    if header.text("ConcatenationUID"):
        raise InputError(f"{header.number} is a part of a picture that was cut into several files, which is not read")
    level = Level(size, tile, _spacing(header))
    groups = header.nested.get("PerFrameFunctionalGroupsSequence")
    full = header.text("DimensionOrganizationType").upper() == "TILED_FULL" or not groups
    tables = _full(header, level) if full else _sparse(header, groups, level)
    places = _places(header) if header.syntax.is_encapsulated else []
    return [_Part(header, frames, places, level, depth) for depth, frames in tables]


def _full(header: Header, level: Level) -> list[tuple[float, Frames]]:
    """Tiles without places: rows of the slide, then focal planes, then optical paths (PS3.3 C.7.6.17.3)."""
    rows, columns = level.tiles
    tiles = rows * columns
    pictures = header.integer("TotalPixelMatrixFocalPlanes", 1) * header.integer("NumberOfOpticalPaths", 1)
    if not 1 <= pictures <= MAX_PICTURES or header.frames != pictures * tiles:
        raise InputError(
            f"{header.number} is damaged: {header.frames} tiles, where {tiles} cover the slide and the file declares "
            f"{pictures} focal {'plane' if pictures == 1 else 'planes and optical paths'}"
        )
    places = [divmod(k, columns) for k in range(tiles)]
    return [(0.0, {place: first + k for k, place in enumerate(places)}) for first in range(0, header.frames, tiles)]


def _sparse(header: Header, groups: Any, level: Level) -> list[tuple[float, Frames]]:
    """For each focal plane and optical path its height in µm and (row, column) of a tile -> its frame.

    Tiles lie by the place of their first pixel, counted from 1 (PS3.3 C.8.12.6.1).
    """
    pictures: dict[tuple[float, str], Frames] = {}
    for index, group in enumerate(groups):
        try:
            place = group.PlanePositionSlideSequence[0]
            row = int(place.RowPositionInTotalImagePixelMatrix) - 1
            column = int(place.ColumnPositionInTotalImagePixelMatrix) - 1
            depth = float(place.get("ZOffsetInSlideCoordinateSystem") or 0.0)
            path = group.get("OpticalPathIdentificationSequence")
            which = str(path[0].get("OpticalPathIdentifier", "")) if path else ""
        except (AttributeError, IndexError, TypeError, ValueError):
            raise InputError(f"{header.number} is damaged: tile {index + 1} does not say where it lies") from None
        if row % level.tile[0] or column % level.tile[1]:
            raise InputError(f"{header.number}: tile {index + 1} does not lie on the grid of tiles, which is not read")
        frames = pictures.setdefault((depth, which), {})
        key = (row // level.tile[0], column // level.tile[1])
        if key in frames or len(pictures) > MAX_PICTURES or not math.isfinite(depth):
            raise InputError(f"{header.number} is damaged: nothing tells apart several tiles at one place")
        frames[key] = index
    return [(depth, frames) for (depth, _), frames in sorted(pictures.items(), key=lambda item: item[0])]


def _spacing(header: Header) -> tuple[float, float] | None:
    shared: Any = header.nested.get("SharedFunctionalGroupsSequence")
    try:
        rows, columns = (float(value) for value in shared[0].PixelMeasuresSequence[0].PixelSpacing)
    except (AttributeError, IndexError, TypeError, ValueError):
        return None
    return (rows, columns) if min(rows, columns) > 1e-7 and max(rows, columns) < 1e3 else None


class _Window:
    """The pixel data of a file as a stream of its own, for pydicom's readers of offsets."""

    def __init__(self, stream: IO[bytes], start: int) -> None:
        self._stream, self._start = stream, start
        stream.seek(start)

    def read(self, count: int = -1) -> bytes:
        return self._stream.read(count)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._stream.seek(offset + (self._start if whence == 0 else 0), whence) - self._start

    def tell(self) -> int:
        return self._stream.tell() - self._start


def _places(header: Header) -> list[list[tuple[int, int]]]:
    """For each frame the (offset, bytes) of its fragments in the file; no pixel is read."""
    content: Content = header.content
    start = header.pixels.offset if header.pixels is not None else 0
    try:
        with content.open() as stream, quiet_pydicom():
            window = cast(Any, _Window(stream, start))
            basic = parse_basic_offsets(window)
            first = window.tell()
            count, offsets = parse_fragments(window)
            sizes = []
            for offset in offsets:
                window.seek(offset + 4)
                sizes.append(int.from_bytes(window.read(4), "little"))
    except OSError as error:
        raise InputError(f"cannot read {header.number}: {error.strerror or type(error).__name__}") from None
    except DAMAGE:
        raise InputError(f"{header.number} is damaged: its tiles cannot be found") from None
    fragments = [(start + offset + 8, size) for offset, size in zip(offsets, sizes, strict=True)]
    if count == header.frames:
        return [[fragment] for fragment in fragments]
    if len(basic) != header.frames:
        raise InputError(f"{header.number} is damaged: {count} pieces of code for {header.frames} tiles")
    places: list[list[tuple[int, int]]] = [[] for _ in basic]
    for fragment, offset in zip(fragments, offsets, strict=True):
        places[max(0, bisect_right(basic, offset - first) - 1)].append(fragment)
    return places
