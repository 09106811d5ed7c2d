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

    Parameters
    ----------
    planes, channels, size_yx : of the slab.
    edges_y, edges_x : where windows begin and end, the ends of the axes among them.
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
        edges_y: Sequence[int],
        edges_x: Sequence[int],
        *,
        half: bool = False,
    ) -> None:
        self._half = half
        self._channels, self._cells = channels, _cells(edges_y, edges_x)
        places, end = [], 0
        for rows, columns in self._cells:
            places.append(end)
            end += 4 * planes * channels * (rows.stop - rows.start) * (columns.stop - columns.start)
        self._places = places
        self._empty = np.ones((len(places), planes), bool)
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
        for index, (cell_rows, cell_columns) in enumerate(self._cells):
            if not (_inside(cell_rows, rows) and _inside(cell_columns, columns)):
                continue
            here_y = slice(cell_rows.start - rows.start, cell_rows.stop - rows.start)
            here_x = slice(cell_columns.start - columns.start, cell_columns.stop - columns.start)
            for plane, slot in enumerate(range(slots.start, slots.stop)):
                part = slice(plane, plane + 1)
                sums = self._read(index, slot)[None]
                here = logits[:, part, here_y, here_x]
                stitch(sums, here, weights[part, here_y, here_x], share=share, half=self._half, out=sums)
                self._write(index, slot, sums)

    def plane(self, slot: int) -> Floats:
        if slot not in (held for held, _ in self._held):
            plane = self._held.pop()[1]
            for index, (rows, columns) in enumerate(self._cells):
                plane[:, rows, columns] = self._read(index, slot)
            self._held.insert(0, (slot, plane))
        elif self._held[0][0] != slot:
            self._held.reverse()
        return self._held[0][1]

    def clear(self, slot: int) -> None:
        self._empty[:, slot] = True
        self._held = [(-1 if held == slot else held, plane) for held, plane in self._held]

    def _shape(self, index: int) -> tuple[int, int, int]:
        rows, columns = self._cells[index]
        return self._channels, rows.stop - rows.start, columns.stop - columns.start

    def _read(self, index: int, slot: int) -> Floats:
        shape = self._shape(index)
        if self._empty[index, slot]:
            return np.zeros(shape, np.float32)
        sums = np.empty(shape, np.float32)
        at, left = self._places[index] + slot * sums.nbytes, sums.data.cast("B")
        while left:
            count = os.preadv(self._file.fileno(), [left], at)
            if count == 0:
                raise OutputError("the scratch file of the windows' sums ended early; is the disk damaged?")
            at, left = at + count, left[count:]
        return sums

    def _write(self, index: int, slot: int, sums: Floats) -> None:
        at, left = self._places[index] + slot * sums.nbytes, sums.data.cast("B")
        while left:
            try:
                count = os.pwrite(self._file.fileno(), left, at)
            except OSError as error:
                raise OutputError(f"cannot keep the windows' sums in a scratch file: {error.strerror}") from error
            at, left = at + count, left[count:]
        self._empty[index, slot] = False


def _cells(edges_y: Sequence[int], edges_x: Sequence[int]) -> list[tuple[slice, slice]]:
    along = [[slice(a, b) for a, b in itertools.pairwise(sorted(set(edges)))] for edges in (edges_y, edges_x)]
    return list(itertools.product(*along))


def _inside(part: slice, whole: slice) -> bool:
    return bool(whole.start <= part.start and part.stop <= whole.stop)
