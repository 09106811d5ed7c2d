"""Where the sums of windows are kept: in memory, or in a scratch file where memory is scarce.

A slab is a ring of planes, each (C, Y, X). In the file it is cut into cells along the windows' own edges, so that a
window is made of whole cells, and a cell's plane is one stretch of the file.
"""

from __future__ import annotations

import itertools
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


class FileSlab:
    """A slab in a scratch file, which has no name and is gone with the process.

    The mirrored forms of a place come one after the other, and windows that overlap soon. So sums stay in memory, and
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
        self._channels, self._starts_y = channels, starts_y
        self._cells = _cells(size_yx, (starts_y, starts_x), window_yx)
        places, end = [], 0
        for rows, columns in self._cells:
            places.append(end)
            end += 4 * planes * channels * (rows.stop - rows.start) * (columns.stop - columns.start)
        self._places = places
        self._empty = np.ones((len(places), planes), bool)
        self._kept: dict[int, dict[int, Floats]] = {}  # cell -> slot -> sums that the file may not have yet
        self._room = kept_bytes
        self._spare: Floats | None = None  # memory of a cell's plane that was written, for the next to be read
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
            for plane, slot in enumerate(range(slots.start, slots.stop)):
                part = slice(plane, plane + 1)
                sums = self._pop(index, slot) if slot in self._kept.get(index, ()) else self._read(index, slot)
                here = logits[:, part, here_y, here_x]
                stitch(sums[None], here, weights[part, here_y, here_x], share=share, half=self._half, out=sums[None])
                self._keep(index, slot, sums, place)

    def plane(self, slot: int) -> Floats:
        if slot not in (held for held, _ in self._held):
            plane = self._held.pop()[1]
            for index, (rows, columns) in enumerate(self._cells):
                kept = self._kept.get(index, {}).get(slot)
                plane[:, rows, columns] = self._read(index, slot) if kept is None else kept
            self._held.insert(0, (slot, plane))
        elif self._held[0][0] != slot:
            self._held.reverse()
        return self._held[0][1]

    def clear(self, slot: int) -> None:
        for index in [index for index, cell in self._kept.items() if slot in cell]:
            self._pop(index, slot)
        self._empty[:, slot] = True
        self._held = [(-1 if held == slot else held, plane) for held, plane in self._held]

    def _keep(self, index: int, slot: int, sums: Floats, place: tuple[int, int]) -> None:
        """Keep a cell's plane in memory, or in its stead one that is needed sooner."""
        self._empty[index, slot] = False
        while self._room < sums.nbytes:
            latest = max(self._kept, key=lambda one: self._needed(one, place), default=index)
            if self._needed(latest, place) <= self._needed(index, place):
                self._write(index, slot, sums)
                return
            other = next(iter(self._kept[latest]))
            self._write(latest, other, self._pop(latest, other))
        self._kept.setdefault(index, {})[slot] = sums
        self._room -= sums.nbytes

    def _needed(self, index: int, place: tuple[int, int]) -> tuple[int, int, int]:
        """When a cell is needed next: a larger value is later. The windows have come to this place (y, x)."""
        y, x = (part.start for part in self._cells[index])
        next_row = next((start for start in self._starts_y if start > place[0]), self._cells[-1][0].stop)
        if y < place[0] or (y < next_row and x < place[1]):
            return 2, y, x  # when windows have come deeper
        return int(y >= next_row), y, x

    def _pop(self, index: int, slot: int) -> Floats:
        sums = self._kept[index].pop(slot)
        if not self._kept[index]:
            del self._kept[index]
        self._room += sums.nbytes
        return sums

    def _shape(self, index: int) -> tuple[int, int, int]:
        rows, columns = self._cells[index]
        return self._channels, rows.stop - rows.start, columns.stop - columns.start

    def _read(self, index: int, slot: int) -> Floats:
        """A cell's plane that is not kept."""
        shape, sums = self._shape(index), self._spare
        if sums is None or sums.shape != shape:
            sums = np.empty(shape, np.float32)
        self._spare = None
        if self._empty[index, slot]:
            sums[...] = 0
            return sums
        at, left = self._places[index] + slot * sums.nbytes, sums.data.cast("B")
        while left:
            count = os.preadv(self._file.fileno(), [left], at)
            if count == 0:
                raise OutputError("the scratch file of the windows' sums ended early; is the disk damaged?")
            at, left = at + count, left[count:]
        return sums

    def _write(self, index: int, slot: int, sums: Floats) -> None:
        """Put a cell's plane into the file; its memory is used again."""
        at, left = self._places[index] + slot * sums.nbytes, sums.data.cast("B")
        while left:
            try:
                count = os.pwrite(self._file.fileno(), left, at)
            except OSError as error:
                raise OutputError(f"cannot keep the windows' sums in a scratch file: {error.strerror}") from error
            at, left = at + count, left[count:]
        self._spare = sums


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
