"""The slices of one DICOM series while its files still arrive: each as soon as it and all before it are there.

Slices are numbered by InstanceNumber, which says the order of the scan. The grid of the whole volume follows from the
first of them and from how many there will be.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxelrt.errors import GeometryError, InputError, VoxelRTError
from voxelrt.io.arriving_files import POLL_SECONDS, Settled, Signature, files_below, refuse_no_folder, signature_of
from voxelrt.io.dicom.frames import Frame
from voxelrt.io.dicom.read import read_series
from voxelrt.io.dicom.series import Series, common_geometry
from voxelrt.io.dicom.study import open_dicom

FIRST = 16  # slices that say how far they lie apart: positions are often rounded to 0.1 mm
SETTLED_SECONDS = 0.2  # a file that has not changed for so long is looked at; one that is not whole, again later
GAP = 0.5  # of the slices' distance: a slice that lies so far from its place
DRIFT = 0.05

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ArrivingGrid:
    """Where the whole volume will lie.

    Parameters
    ----------
    shape_zyx, affine : of the volume, its slices sorted along their normal; LPS mm.
    descending : the volume's last slice comes first.
    """

    shape_zyx: tuple[int, int, int]
    affine: Floats
    descending: bool


class ArrivingSeries:
    """Iterates over slices (Y, X) in modality units, in the order of the scan. ``grid()`` first.

    Parameters
    ----------
    folder : watched with its subfolders.
    slices : how many there will be.
    quiet : seconds without a change in the folder, once a slice is there, after which the scan has ended.
    series : SeriesNumber or SeriesInstanceUID; default the series of the first image.
    stopped : asked while waiting; true ends the wait.

    Raises
    ------
    InputError : no such folder; slices are missing when nothing comes any more; objects of many frames.
    GeometryError : slices that do not make one even grid.
    """

    def __init__(
        self,
        folder: Path,
        slices: int,
        *,
        quiet: float,
        series: int | str | None = None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        refuse_no_folder(folder)
        self._folder, self._quiet, self._which, self._stopped = folder, quiet, series, stopped
        self.slices = slices
        self._settled = Settled(SETTLED_SECONDS)
        self._uid = ""
        self._frames: dict[int, Frame] = {}
        self._planes: dict[int, NDArray[Any]] = {}
        self._first: int | None = None
        self._given = 0
        self._unreadable: set[str] = set()
        self._others: set[str] = set()
        self._step = np.zeros(3)
        self.warnings: list[str] = []

    @property
    def uid(self) -> str:
        """The SeriesInstanceUID of the slices, "" before the first has come."""
        return self._uid

    def grid(self) -> ArrivingGrid:
        """Waits for the slices that tell it."""
        wanted = min(FIRST, self.slices)
        while not self._contiguous(wanted):
            self._wait()
        frames = [self._frames[self._number(k)] for k in range(wanted)]
        positions, orientation, (row_mm, column_mm) = common_geometry(frames)
        row, column = orientation[:3], orientation[3:]
        normal = np.cross(row, column)
        if wanted > 1:
            centred = np.arange(wanted) - (wanted - 1) / 2
            self._step = centred @ positions / (centred @ centred)
        else:
            self._step = normal * (frames[0].header.number_of("SliceThickness") or 1.0)
        if np.linalg.norm(self._step) < 1e-3:
            raise GeometryError("the first slices lie at one place; a scan of one place over time has no volume")
        descending = float(self._step @ normal) < 0
        affine = np.eye(4)
        affine[:3, 0], affine[:3, 1] = row * column_mm, column * row_mm
        affine[:3, 2] = -self._step if descending else self._step
        affine[:3, 3] = positions[0] + (self._step * (self.slices - 1) if descending else 0)
        rows, columns = frames[0].size
        return ArrivingGrid((self.slices, rows, columns), affine, descending)

    def __iter__(self) -> Iterator[NDArray[Any]]:
        for k in range(self.slices):
            while not self._has(k):
                self._wait()
            self._refuse_misplaced(k)
            yield self._planes.pop(self._number(k))
            self._given = k + 1
        self._tell()

    # ---- what is there ----

    def _number(self, k: int) -> int:
        return k + (self._first or 0)

    def _has(self, k: int) -> bool:
        return self._first is not None and self._number(k) in self._frames

    def _contiguous(self, count: int) -> bool:
        return all(self._has(k) for k in range(count))

    def _wait(self) -> None:
        """Look once more, and sleep if nothing has come."""
        if self._stopped():
            raise InputError("the watch of the scan was stopped")
        if self._look():
            return
        if self._frames and self._settled.clock - self._settled.changed > self._quiet:
            raise InputError(self._ended())
        time.sleep(POLL_SECONDS)

    def _look(self) -> bool:
        found: dict[str, Signature] = {entry.path: (signature_of(entry),) for entry in files_below(self._folder)}
        whole = self._settled.look(found)
        for name in sorted(whole):
            self._take(name)
        return bool(whole)

    def _take(self, name: str) -> None:
        self._others.discard(name)
        self._unreadable.discard(name)
        try:
            study = open_dicom(Path(name))
            opened = study.choose() if study.series or study.damaged else None
            if opened is None or not self._is_ours(opened):
                self._others.add(name)
                return
            frames = opened.frames
            if len(frames) != 1:
                raise GeometryError(
                    f"a file of the scan holds {len(frames)} slices; it is complete when it is there: run the folder"
                )
            plane = read_series(opened).volume.array[0, 0]
        except GeometryError:
            raise
        except VoxelRTError:
            self._unreadable.add(name)  # not whole yet; it is given again when it changes
            return
        self._add(frames[0], plane)

    def _is_ours(self, series: Series) -> bool:
        if self._which is not None:
            return str(self._which) in (str(series.number), series.uid)
        self._uid = self._uid or series.uid
        return series.uid == self._uid

    def _add(self, frame: Frame, plane: NDArray[Any]) -> None:
        text = frame.header.text("InstanceNumber")
        if not text.lstrip("+-").isdigit():
            raise InputError(
                "the slices have no InstanceNumber, which tells their order; wait for all and run the folder"
            )
        number = int(text)
        before = self._frames.get(number)
        if before is not None:
            if before.sop_instance_uid != frame.sop_instance_uid:
                raise GeometryError(f"two slices have the InstanceNumber {number}; split the series first")
            return  # sent twice
        self._frames[number], self._planes[number] = frame, plane
        if len(self._frames) > self.slices:
            raise InputError(f"more slices came than the {self.slices} that were announced")
        if self._first is None:
            # Numbers from elsewhere (a later phase of a scan) are known to begin only when all have come.
            begins = min(self._frames)
            self._first = begins if begins in (0, 1) or len(self._frames) == self.slices else None
        if self._first is not None and not 0 <= number - self._first < self.slices:
            raise InputError(
                f"slice number {number} does not belong to the {self.slices} slices from number {self._first}"
            )

    def _refuse_misplaced(self, k: int) -> None:
        if k == 0:
            return
        here, before = (self._frames[self._number(at)] for at in (k, k - 1))
        places, _, _ = common_geometry([before, here])
        off = places[1] - places[0] - self._step
        if np.linalg.norm(off) > GAP * np.linalg.norm(self._step):
            raise GeometryError(
                f"slice {k + 1} lies {np.linalg.norm(off):.2f} mm from where the first slices put it: the scan is "
                "uneven, or slices are missing; run the folder when all are there"
            )

    def _tell(self) -> None:
        """What the scan's end shows."""
        places, _, _ = common_geometry([self._frames[self._number(k)] for k in (0, self.slices - 1)])
        drift = np.linalg.norm(places[1] - places[0] - self._step * (self.slices - 1))
        if drift > DRIFT * np.linalg.norm(self._step):
            self.warnings.append(
                f"the last slice lies {drift:.2f} mm from where the first {min(FIRST, self.slices)} slices put it"
            )
        if self._others:
            self.warnings.append(f"skipped {len(self._others)} files that are not slices of the scan")
        if self._unreadable:
            self.warnings.append(f"{len(self._unreadable)} files of the folder could not be read")

    def _ended(self) -> str:
        said = f"the scan ended after {len(self._frames)} of {self.slices} slices"
        if self._first is not None:
            missing = [str(self._number(k)) for k in range(self.slices) if not self._has(k)]
            said += f"; missing: number {', '.join(missing[:5])}{' and more' if len(missing) > 5 else ''}"
        if self._unreadable:
            said += f"; {len(self._unreadable)} files are not whole"
        return said
