"""Slides: pictures too large for memory, in levels of tiles. A part is read by decoding the tiles that it touches."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxelrt.errors import InputError, UsageError
from voxelrt.volume import Lengths, Volume

Array = NDArray[Any]

# Decoded tiles that are kept, so that windows side by side do not decode the same tiles again.
CACHE_BYTES = 64 * 2**20
# A level that is read as a whole.
MAX_WHOLE_BYTES = 2 * 2**30
OUTSIDE = 255  # glass is white


@dataclass(frozen=True)
class Level:
    """One resolution of a slide.

    Parameters
    ----------
    size
        (rows, columns) of the whole.
    tile
        (rows, columns) of a tile.
    spacing_mm
        The distance of rows, then of columns; None where nothing tells it.
    plane
        Which of several pictures of this size it is, such as "focal plane 2 of 3"; "" for the only one.
    """

    size: tuple[int, int]
    tile: tuple[int, int]
    spacing_mm: tuple[float, float] | None
    plane: str = ""

    @property
    def tiles(self) -> tuple[int, int]:
        """How many rows and columns of tiles."""
        return -(-self.size[0] // self.tile[0]), -(-self.size[1] // self.tile[1])

    @property
    def words(self) -> str:
        """Its size and resolution."""
        per_pixel = "unknown size" if self.spacing_mm is None else f"{self.spacing_mm[0] * 1000:.4g} µm a pixel"
        which = f", {self.plane}" if self.plane else ""
        tiles = f"tiles of {self.tile[1]} × {self.tile[0]}"
        return f"{self.size[1]} × {self.size[0]} pixels, {per_pixel}, in {tiles}{which}"


@dataclass(eq=False)
class Slide(ABC):
    """A slide, open for reading from several threads.

    Parameters
    ----------
    kind
        Of the file, for messages.
    levels
        The finest first.
    warnings
        Sentences for the user.
    """

    kind: str
    levels: tuple[Level, ...]
    warnings: tuple[str, ...] = ()
    _held: OrderedDict[tuple[int, int, int], Array] = field(default_factory=OrderedDict, repr=False)
    _bytes: int = field(default=0, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @abstractmethod
    def decode(self, level: int, row: int, column: int) -> Array | None:
        """Tile (row, column) of a level as (rows, columns, 3) uint8; None where the slide has none.

        Raises
        ------
        InputError : damaged.
        MissingExtraError : a compression without a decoder.
        """

    def read(self, level: int, row: int, column: int, height: int, width: int) -> Array:
        """A part of a level, (3, height, width) uint8; what lies outside of it, or was not scanned, is white.

        Raises
        ------
        InputError, MissingExtraError : as `decode`.
        """
        one = self.levels[level]
        made: Array = np.full((height, width, 3), OUTSIDE, np.uint8)
        below, beside = min(row + height, one.size[0]), min(column + width, one.size[1])
        for tile_row in range(max(row, 0) // one.tile[0], -(-below // one.tile[0])):
            for tile_column in range(max(column, 0) // one.tile[1], -(-beside // one.tile[1])):
                tile = self._tile(level, tile_row, tile_column)
                if tile is None:
                    continue
                top, left = tile_row * one.tile[0], tile_column * one.tile[1]
                y0, y1 = max(row, top, 0), min(below, top + tile.shape[0])
                x0, x1 = max(column, left, 0), min(beside, left + tile.shape[1])
                if y0 < y1 and x0 < x1:
                    part = tile[y0 - top : y1 - top, x0 - left : x1 - left]
                    made[y0 - row : y1 - row, x0 - column : x1 - column] = part
        return made.transpose(2, 0, 1)

    def _tile(self, level: int, row: int, column: int) -> Array | None:
        key = (level, row, column)
        with self._lock:
            if key in self._held:
                self._held.move_to_end(key)
                return self._held[key]
        tile = self.decode(level, row, column)
        if tile is not None:
            with self._lock:
                if key not in self._held:
                    self._held[key] = tile
                    self._bytes += tile.nbytes
                while self._bytes > CACHE_BYTES and len(self._held) > 1:
                    self._bytes -= self._held.popitem(last=False)[1].nbytes
        return tile

    def chosen(self, which: int | str | None, spacing_mm: tuple[float, float] | None = None) -> int:
        """The index of a level: by its number from 1, else the one nearest to a spacing, else the finest.

        Raises
        ------
        UsageError : no such level.
        InputError : no level within a tenth of the spacing that is asked for; several focal planes and none named.
        """
        if which is not None:
            text = str(which).lower().removeprefix("level").strip()
            if not text.isdigit() or not 1 <= int(text) <= len(self.levels):
                raise UsageError(f"the slide has no level {str(which)[:40]!r}; it has {self.listed}")
            return int(text) - 1
        if spacing_mm is None:
            return self._only(0)
        ratios = [
            np.inf if level.spacing_mm is None else abs(np.log(level.spacing_mm[0] / spacing_mm[0]))
            for level in self.levels
        ]
        best = int(np.argmin(ratios))
        if ratios[best] > np.log(1.1):
            raise InputError(
                f"the model sees {spacing_mm[0] * 1000:.4g} µm a pixel, and no level of the slide is within a tenth of "
                f"it: {self.listed}; to take one all the same name it (--volume NUMBER)"
            )
        return self._only(best)

    def _only(self, level: int) -> int:
        """The level, which must be the only picture of its size. Raises InputError."""
        if sum(one.size == self.levels[level].size for one in self.levels) > 1:
            raise self.several()
        return level

    @property
    def listed(self) -> str:
        """Its levels in words."""
        return "; ".join(f"{number}: {level.words}" for number, level in enumerate(self.levels, start=1))

    def several(self) -> InputError:
        """The error where one level is needed and none is named."""
        what = "levels and focal planes" if any(level.plane for level in self.levels) else "levels"
        return InputError(
            f"the slide has {len(self.levels)} {what} ({self.listed}): choose one by its number (--volume, volume=...)"
        )

    def affine(self, level: int) -> Array:
        """(4, 4) voxel (x, y, z) -> mm of a level; the directions mean nothing."""
        y, x = self.levels[level].spacing_mm or (1.0, 1.0)
        return np.diag([x, y, 1.0, 1.0])

    def whole(self, level: int) -> Volume:
        """A level as a volume (3, 1, rows, columns). Raises InputError if it is too large for that."""
        rows, columns = self.levels[level].size
        if 3 * rows * columns > MAX_WHOLE_BYTES:
            smaller = [n for n, one in enumerate(self.levels, 1) if 3 * one.size[0] * one.size[1] <= MAX_WHOLE_BYTES]
            advice = f"take a coarser level (--volume {smaller[0]})" if smaller else "it has no coarser level"
            raise InputError(
                f"level {level + 1} of the slide is {columns} × {rows} pixels, too much to be read as a whole: {advice}"
                ', or run a model whose recipe has input.window = "sliding" and a 2-D layout, which reads tile by tile'
            )
        array = self.read(level, 0, 0, rows, columns)[:, None]
        lengths: Lengths = "none" if self.levels[level].spacing_mm is None else "plane"
        return Volume(array, self.affine(level), modality="SM", placed=False, lengths=lengths, colour=True)


class ArraySlide(Slide):
    """A picture in memory, (3, rows, columns) or (C, rows, columns), as a slide of one level and one tile."""

    def __init__(self, array: Array, spacing_mm: tuple[float, float] | None) -> None:
        size = (array.shape[1], array.shape[2])
        super().__init__("picture", (Level(size, size, spacing_mm),))
        self._array = array

    def decode(self, level: int, row: int, column: int) -> Array | None:
        return self._array.transpose(1, 2, 0)

    def read(self, level: int, row: int, column: int, height: int, width: int) -> Array:
        made = np.zeros((len(self._array), height, width), self._array.dtype)
        below, beside = min(row + height, self.levels[0].size[0]), min(column + width, self.levels[0].size[1])
        top, left = max(row, 0), max(column, 0)
        made[:, top - row : below - row, left - column : beside - column] = self._array[:, top:below, left:beside]
        return made
