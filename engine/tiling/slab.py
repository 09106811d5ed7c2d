"""Where the sums of windows are kept: in memory, or in a scratch file where memory is scarce.

A slab is a ring of planes, each (C, Y, X). In the file it is cut into cells along the windows' own edges, so that a
window is made of whole cells, and a cell's plane is one stretch of the file.
"""

from __future__ import annotations

import itertools
import math
import mmap
import os
import shutil
import tempfile
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from voxelrt.errors import OutputError
from voxelrt.kernels import stitch

Floats = NDArray[np.float32]


class Slab(Protocol):
    """A ring of planes of sums."""

    def add(self, slots: slice, rows: slice, columns: slice, logits: Floats, weights: Floats, share: float) -> None:
        """Add ``share * weights * logits`` of a window, logits (C, Z, Y, X), to the planes of the slots."""

    def plane(self, slot: int) -> Floats:
        """A plane (C, Y, X), finished: nothing is added to it any more. It and the one asked for before stay."""

    def clear(self, slot: int) -> None:
        """Set a plane to zero."""


class MemorySlab:
    """A slab in memory; ``half`` rounds every sum to half precision."""

    def __init__(self, planes: int, channels: int, size_yx: tuple[int, int], *, half: bool = False) -> None:
        self._half = half
        self._sums = np.zeros((planes, channels, *size_yx), np.float32)

    def add(self, slots: slice, rows: slice, columns: slice, logits: Floats, weights: Floats, share: float) -> None:
        sums = self._sums[slots, :, rows, columns]
        stitch(sums, logits, weights, share=share, half=self._half, out=sums)

    def plane(self, slot: int) -> Floats:
        plane: Floats = self._sums[slot]
        return plane

    def clear(self, slot: int) -> None:
        self._sums[slot] = 0


class _Kept:
    """All planes of a cell in memory: which of them are here, and which the file does not have yet."""

    def __init__(self, sums: Floats) -> None:
        self.sums = sums
        self.here, self.changed = np.zeros((2, len(sums)), bool)


class FileSlab:
    """A slab in a scratch file, which has no name and is gone with the process.

    The mirrored forms of a place come one after the other, and windows that overlap soon. So cells stay in memory, and
    go to the file only where they take more than `kept_bytes`: first those that no window at this depth touches any
    more, then those that the next row of windows comes to last.

    Parameters
    ----------
    planes, channels, size_yx : of the slab.
    starts_y, starts_x : where windows begin, in the order of their coming.
    window_yx : their size.
    kept_bytes : of sums that may be in memory, beside what ``bytes_for`` says.
    half : round every sum to half precision.

    Raises
    ------
    OutputError : there is no room for the file.
    """

    def __init__(
        self,
        planes: int,
        channels: int,
        size_yx: tuple[int, int],
        starts_y: Sequence[int],
        starts_x: Sequence[int],
        window_yx: tuple[int, int],
        *,
        kept_bytes: int = 0,
        half: bool = False,
    ) -> None:
        self._half = half
        self._planes, self._channels, self._starts_y, self._window = planes, channels, starts_y, window_yx
        self._cells = _cells(size_yx, (starts_y, starts_x), window_yx)
        places, end = [], 0
        for rows, columns in self._cells:
            places.append(end)
            end += 4 * planes * channels * (rows.stop - rows.start) * (columns.stop - columns.start)
        self._places = places
        self._empty = np.ones((len(places), planes), bool)
        self._kept: dict[int, _Kept] = {}
        self._room = kept_bytes
        self._spare: Floats | None = None  # memory of a cell that went to the file, for the next
        self._held = [(-1, np.empty((channels, *size_yx), np.float32)) for _ in range(2)]  # slot and its plane
        free = shutil.disk_usage(tempfile.gettempdir()).free
        if free < end:
            raise OutputError(
                f"the sums of the windows need a scratch file of {end / 2**30:.1f} GiB, and the folder for such files "
                f"has {free / 2**30:.1f} GiB left; give more memory, or set TMPDIR to a folder with room"
            )
        self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - lives as long as the slab

    @staticmethod
    def bytes_for(channels: int, size_yx: tuple[int, int], window_yx: tuple[int, int]) -> int:
        """The memory it takes: two planes, and a cell's part of one."""
        return 4 * channels * (2 * size_yx[0] * size_yx[1] + window_yx[0] * window_yx[1])

    def add(self, slots: slice, rows: slice, columns: slice, logits: Floats, weights: Floats, share: float) -> None:
        place = (rows.start, columns.start)
        for index, (cell_rows, cell_columns) in enumerate(self._cells):
            if not (_inside(cell_rows, rows) and _inside(cell_columns, columns)):
                continue
            here_y = slice(cell_rows.start - rows.start, cell_rows.stop - rows.start)
            here_x = slice(cell_columns.start - columns.start, cell_columns.stop - columns.start)
            here = (logits[:, :, here_y, here_x], weights[:, here_y, here_x])
            kept = self._kept.get(index) or self._keep(index, place)
            step = slots.stop - slots.start if kept is not None else self._at_once(index)
            for first in range(slots.start, slots.stop, step):
                part = slice(first, min(first + step, slots.stop))
                planes = _moved(part, slots)
                self._add(index, kept, part, here[0][:, planes], here[1][planes], share)
            self._empty[index, slots] = False

    def plane(self, slot: int) -> Floats:
        if slot not in (held for held, _ in self._held):
            plane = self._held.pop()[1]
            for index, (rows, columns) in enumerate(self._cells):
                kept = self._kept.get(index)
                if kept is None or not kept.here[slot]:
                    sums = np.empty((1, *self._shape(index)), np.float32)
                    self._read(index, slice(slot, slot + 1), sums)
                    plane[:, rows, columns] = sums[0]
                else:
                    plane[:, rows, columns] = kept.sums[slot]
            self._held.insert(0, (slot, plane))
        elif self._held[0][0] != slot:
            self._held.reverse()
        return self._held[0][1]

    def clear(self, slot: int) -> None:
        for kept in self._kept.values():
            kept.here[slot] = kept.changed[slot] = False
        self._empty[:, slot] = True
        self._held = [(-1 if held == slot else held, plane) for held, plane in self._held]

    def _add(self, index: int, kept: _Kept | None, slots: slice, logits: Floats, weights: Floats, share: float) -> None:
        """Add a window's part of some planes of a cell, in memory or through it."""
        if kept is None:
            sums = np.empty((slots.stop - slots.start, *self._shape(index)), np.float32)
            self._read(index, slots, sums)
        else:
            sums = kept.sums[slots]
            for slot in range(slots.start, slots.stop):
                if not kept.here[slot]:
                    self._read(index, slice(slot, slot + 1), kept.sums[slot : slot + 1])
            kept.here[slots] = kept.changed[slots] = True
        stitch(sums, logits, weights, share=share, half=self._half, out=sums)
        if kept is None:
            self._write(index, slots.start, sums)

    def _keep(self, index: int, place: tuple[int, int]) -> _Kept | None:
        """Memory for a cell, if need be in place of one that is needed later; None where there is none."""
        shape = (self._planes, *self._shape(index))
        size = 4 * math.prod(shape)
        while self._room < size:
            latest = max(self._kept, key=lambda one: self._needed(one, place), default=index)
            if self._needed(latest, place) <= self._needed(index, place):
                return None
            self._let_go(latest)
        sums = self._spare if self._spare is not None and self._spare.shape == shape else _mapped(shape)
        self._spare, self._kept[index] = None, _Kept(sums)
        self._room -= size
        return self._kept[index]

    def _needed(self, index: int, place: tuple[int, int]) -> tuple[int, int, int]:
        """When a cell is needed next: a larger value is later. The windows have come to this place (y, x)."""
        y, x = (part.start for part in self._cells[index])
        next_row = next((start for start in self._starts_y if start > place[0]), self._cells[-1][0].stop)
        if y < place[0] or (y < next_row and x < place[1]):
            return 2, y, x  # when windows have come deeper
        return (0, x, y) if x >= place[1] and y < place[0] + self._window[0] else (1, y, x)

    def _let_go(self, index: int) -> None:
        """Put a cell into the file; its memory is used again."""
        kept = self._kept.pop(index)
        for slot in np.flatnonzero(kept.changed):
            self._write(index, int(slot), kept.sums[slot : slot + 1])
        self._spare = kept.sums
        self._room += kept.sums.nbytes

    def _at_once(self, index: int) -> int:
        """How many planes of a cell go through memory at once: as much as one plane of a window."""
        return max(1, math.prod(self._window) // math.prod(self._shape(index)[1:]))

    def _shape(self, index: int) -> tuple[int, int, int]:
        rows, columns = self._cells[index]
        return self._channels, rows.stop - rows.start, columns.stop - columns.start

    def _read(self, index: int, slots: slice, sums: Floats) -> None:
        """Planes of a cell out of the file, or zeros where nothing was added."""
        for slot, plane in zip(range(slots.start, slots.stop), sums, strict=True):
            if self._empty[index, slot]:
                plane[...] = 0
                continue
            at, left = self._places[index] + slot * plane.nbytes, plane.data.cast("B")
            while left:
                count = os.preadv(self._file.fileno(), [left], at)
                if count == 0:
                    raise OutputError("the scratch file of the windows' sums ended early; is the disk damaged?")
                at, left = at + count, left[count:]

    def _write(self, index: int, slot: int, sums: Floats) -> None:
        """Planes of a cell from this one on into the file."""
        at, left = self._places[index] + slot * sums[0].nbytes, sums.data.cast("B")
        while left:
            try:
                count = os.pwrite(self._file.fileno(), left, at)
            except OSError as error:
                raise OutputError(f"cannot keep the windows' sums in a scratch file: {error.strerror}") from error
            at, left = at + count, left[count:]


def _mapped(shape: tuple[int, ...]) -> Floats:
    """Memory that is the system's again once it is let go: cells of many sizes would leave holes in the allocator's."""
    return np.frombuffer(mmap.mmap(-1, 4 * math.prod(shape)), np.float32).reshape(shape)


def _moved(part: slice, whole: slice) -> slice:
    return slice(part.start - whole.start, part.stop - whole.start)


def _cells(
    size_yx: tuple[int, int], starts: tuple[Sequence[int], Sequence[int]], window_yx: tuple[int, int]
) -> list[tuple[slice, slice]]:
    """The parts into which the windows' edges cut a plane."""
    along = []
    for size, begin, length in zip(size_yx, starts, window_yx, strict=True):
        edges = sorted({0, size, *begin, *(start + length for start in begin)})
        along.append([slice(a, b) for a, b in itertools.pairwise(edges)])
    return list(itertools.product(*along))


def _inside(part: slice, whole: slice) -> bool:
    return bool(whole.start <= part.start and part.stop <= whole.stop)
