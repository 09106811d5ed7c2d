"""Slides in TIFF (tiled, pyramidal; SVS and other scanners' kinds), by tifffile: one tile at a time."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxelrt.errors import InputError
from voxelrt.io.slide import Level, Slide
from voxelrt.io.tiff import DAMAGE, is_tiff, per_mm, quiet_tifffile, refuse_loops, refuse_uncoded

Array = NDArray[Any]

# A tiled TIFF larger than this is a slide even with one level.
WHOLE_PIXELS = 2**26
MAX_TILE_BYTES = 64 * 2**20
# Aperio's description states micrometres a pixel.
MPP = re.compile(r"\bMPP\s*=\s*(\d{1,4}\.?\d{0,12})\b")


class TiffSlide(Slide):
    """A slide in a TIFF file."""

    def __init__(self, path: Path, opened: Any, pages: list[Any], levels: tuple[Level, ...]) -> None:
        super().__init__("TIFF slide", levels)
        self.path, self._opened, self._pages = path, opened, pages

    def decode(self, level: int, row: int, column: int) -> Array | None:
        page, index = self._pages[level], row * self.levels[level].tiles[1] + column
        try:
            with quiet_tifffile():
                offset, count = int(page.dataoffsets[index]), int(page.databytecounts[index])
                if count == 0:
                    return None
                if count > MAX_TILE_BYTES:
                    raise InputError(f"{self.path.name!r} is damaged: a tile of {count} bytes")
                handle = self._opened.filehandle
                with handle.lock:
                    handle.seek(offset)
                    code = handle.read(count)
                tile = page.decode(code, index, jpegtables=page.jpegtables)[0]
        except InputError:
            raise
        except DAMAGE:
            raise InputError(f"{self.path.name!r} is damaged: a tile cannot be decoded") from None
        if tile is None:
            return None
        colours = np.asarray(tile)[0]
        return np.repeat(colours, 3, axis=2) if colours.shape[2] == 1 else np.ascontiguousarray(colours[..., :3])


def open_tiff_slide(path: Path) -> TiffSlide | None:
    """A TIFF as a slide; None if it is no TIFF, or a picture that is read as a whole.

    Raises
    ------
    InputError : damaged.
    MissingExtraError : a compression that needs imagecodecs.
    """
    import tifffile

    try:
        with open(path, "rb") as stream:
            if not is_tiff(stream.read(8)):
                return None
        refuse_loops(path)
        with quiet_tifffile():
            opened = tifffile.TiffFile(path)
            opened.filehandle.set_lock(True)
            pages = _pages(opened.series[0])
            if not pages:
                opened.close()
                return None
            refuse_uncoded(pages[0])
            first = _spacing(pages[0])
            rows = int(pages[0].imagelength)
            levels = tuple(_level(page, first, rows) for page in pages)
            return TiffSlide(path, opened, pages, levels)
    except DAMAGE:
        raise InputError(f"{path.name!r} is damaged: the TIFF cannot be read") from None


def _pages(series: Any) -> list[Any]:
    """The page of each level, the finest first; [] for what is no slide."""
    kept = []
    for level in series.levels:
        page = level.keyframe
        good = page.is_tiled and len(level.pages) == 1 and page.bitspersample == 8 and page.samplesperpixel in (1, 3, 4)
        good = good and (page.samplesperpixel == 1 or int(page.planarconfig) == 1) and int(page.imagedepth) == 1
        if good and int(page.tilewidth) * int(page.tilelength) * 4 <= MAX_TILE_BYTES:
            kept.append(page)
    large = bool(kept) and int(kept[0].imagelength) * int(kept[0].imagewidth) > WHOLE_PIXELS
    if not kept or (len(kept) == 1 and not large):
        return []
    return sorted(kept, key=lambda page: -int(page.imagewidth))


def _level(page: Any, first: tuple[float, float] | None, rows: int) -> Level:
    size = (int(page.imagelength), int(page.imagewidth))
    if min(size) < 1 or min(int(page.tilelength), int(page.tilewidth)) < 1:
        raise ValueError("no size")
    # Coarser levels often repeat, or lack, the resolution of the finest.
    spacing = None if first is None else (first[0] * rows / size[0], first[1] * rows / size[0])
    level = Level(size, (int(page.tilelength), int(page.tilewidth)), spacing)
    if len(page.dataoffsets) < level.tiles[0] * level.tiles[1]:
        raise ValueError("fewer tiles than the size needs")
    return level


def _spacing(page: Any) -> tuple[float, float] | None:
    stated = MPP.search(str(page.description)[:4096])
    if stated and 1e-3 < float(stated[1]) < 1e3:
        return float(stated[1]) / 1000, float(stated[1]) / 1000
    known = per_mm(page)
    return None if known is None else (1 / known[1], 1 / known[0])
