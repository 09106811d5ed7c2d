"""Whole slides in DICOM (VL Whole Slide Microscopy, PS3.3 A.32.8), full or sparse: one tile at a time.

Each file is a level. Labels and overviews, which show the patient's name, are never read.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
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

WHOLE_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"
MAX_TILE_BYTES = 64 * 2**20
MAX_TILES = 2**22


def is_slide(header: Header) -> bool:
    """Whether this is an object of whole slide microscopy."""
    return header.text("SOPClassUID") == WHOLE_SLIDE


@dataclass(frozen=True, eq=False)
class _Part:
    """A file: which frame holds a tile, and where each frame's code lies in the file."""

    header: Header
    frames: dict[tuple[int, int], int]
    places: list[list[tuple[int, int]]]


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
    InputError : no level in it, damaged files, several focal planes or optical paths, concatenations.
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
    parts = sorted((_part(header) for header in kept), key=lambda part: -part[1].size[1])
    sizes = [level.size for _, level in parts]
    if len(set(sizes)) != len(sizes):
        raise InputError(
            "the slide has several images of one size (focal planes, channels or parts), which is not read"
        )
    said = [f"{other} {'image' if other == 1 else 'images'} of the label or an overview left out"] if other else []
    return DicomSlide([part for part, _ in parts], tuple(level for _, level in parts), tuple(said))


def _part(header: Header) -> tuple[_Part, Level]:
    refuse_what_is_not_read(header, colour=True)
    size = (header.integer("TotalPixelMatrixRows"), header.integer("TotalPixelMatrixColumns"))
    tile = (header.integer("Rows"), header.integer("Columns"))
    if min(size) < 1 or frame_bytes(header) > MAX_TILE_BYTES or header.frames > MAX_TILES:
        raise InputError(
            f"{header.number} is damaged: a slide of {size[1]} × {size[0]} pixels in {header.frames} tiles"
        )
    level = Level(size, tile, _spacing(header))
    rows, columns = level.tiles
    groups = header.nested.get("PerFrameFunctionalGroupsSequence")
    if header.text("DimensionOrganizationType").upper() == "TILED_FULL" or not groups:
        if header.frames != rows * columns:
            raise InputError(
                f"{header.number}: {header.frames} tiles where {rows * columns} cover the slide; several focal planes "
                "or optical paths are not read"
            )
        frames = {(k // columns, k % columns): k for k in range(header.frames)}
    else:
        frames = _sparse(header, groups, level)
    return _Part(header, frames, _places(header) if header.syntax.is_encapsulated else []), level


def _sparse(header: Header, groups: Any, level: Level) -> dict[tuple[int, int], int]:
    """(row, column) of a tile -> its frame, by the place of its first pixel, counted from 1."""
    frames: dict[tuple[int, int], int] = {}
    for index, group in enumerate(groups):
        try:
            place = group.PlanePositionSlideSequence[0]
            row = int(place.RowPositionInTotalImagePixelMatrix) - 1
            column = int(place.ColumnPositionInTotalImagePixelMatrix) - 1
        except (AttributeError, IndexError, TypeError, ValueError):
            raise InputError(f"{header.number} is damaged: tile {index + 1} does not say where it lies") from None
        if row % level.tile[0] or column % level.tile[1]:
            raise InputError(f"{header.number}: tile {index + 1} does not lie on the grid of tiles, which is not read")
        key = (row // level.tile[0], column // level.tile[1])
        if key in frames:
            raise InputError(
                f"{header.number}: several tiles at one place (focal planes or optical paths) are not read"
            )
        frames[key] = index
    return frames


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
