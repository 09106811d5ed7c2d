"""Labels of a study whose slices are still coming."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxelrt.arriving import ArrivingCase
from voxelrt.errors import CancelledError, GeometryError, InputError
from voxelrt.models.recipe_schema import Recipe
from voxelrt.preprocess.study import Opened, Pick, Place, open_study
from voxelrt.result import Result
from voxelrt.runtime.window_job import Job
from voxelrt.runtime.window_runner import Runner
from voxelrt.volume import Volume

Labels = NDArray[np.unsignedinteger[Any]]
Slab = tuple[int, Labels]
Finish = Callable[[Labels, dict[str, float], list[str]], Result]


def whole_study(study: Place, grid: Volume, recipe: Recipe, pick: Pick, warnings: Iterable[str]) -> Opened:
    """The study whose slices have come one by one; what the recipe would refuse is a warning, since it has run.

    Raises
    ------
    GeometryError : it is not the volume of which the slices were. InputError : as of ``open_study``.
    """
    opened = open_study(study, recipe, force=True, pick=pick)
    corners = np.array([[x, y, z, 1] for x in (0, 1) for y in (0, 1) for z in (0, 1)], np.float64)
    corners[:, :3] *= np.array(grid.shape_zyx[::-1]) - 1
    apart = float(np.abs(corners @ (opened.volume.affine - grid.affine).T).max())
    if opened.volume.shape_zyx != grid.shape_zyx or apart > min(grid.spacing_mm):
        raise GeometryError(
            f"the slices that came made {grid.shape_zyx} voxels (z, y, x), and all that lies there now makes "
            f"{opened.volume.shape_zyx}, up to {apart:.3g} mm from them: it is another volume; run the folder"
        )
    return replace(opened, warnings=(*warnings, *opened.warnings))


class LabelStream:
    """Iterates over slabs of labels, ``(first slice, (slices, Y, X))`` on the grid of the scan, as they are finished.

    Slabs come in the order in which their slices came. Where the model's postprocessing looks at the whole volume,
    there is one slab, at the end. ``result()`` waits for the end.
    """

    def __init__(
        self,
        runner: Runner,
        case: ArrivingCase,
        job: Job,
        labels: Labels,
        slices: Iterable[NDArray[Any]],
        finish: Finish,
    ) -> None:
        self._runner, self._case, self._job, self._labels, self._finish = runner, case, job, labels, finish
        self._last_slice = 0.0
        self._warnings: list[str] = []
        self._news: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._result: Result | None = None
        self._through = False
        self._slabs = self._iterate()
        job.out = self._news.put
        runner.submit(job, self._end)
        self._feeder = threading.Thread(target=self._feed, args=(slices,), name="voxelrt-slices", daemon=True)
        self._feeder.start()

    def __iter__(self) -> Iterator[Slab]:
        return self

    def __next__(self) -> Slab:
        return next(self._slabs)

    def result(self) -> Result:
        """What the whole study gave. Raises what went wrong."""
        for _ in self._slabs:
            pass
        if self._result is None:
            raise CancelledError("the stream was stopped")
        return self._result

    def close(self) -> None:
        """Give the study up, if it is not through."""
        if not self._through:
            self._give_up(CancelledError("the stream was stopped"))

    def _end(self, job: Job) -> None:
        del job
        self._through = True
        self._news.put(None)

    def _give_up(self, error: BaseException) -> None:
        self._job.error = self._job.error or error
        self._runner.came()

    def _feed(self, slices: Iterable[NDArray[Any]]) -> None:
        """Take slices as they come."""
        try:
            for one in slices:
                if self._job.error is not None:
                    return
                self._case.add(self._finite(np.asarray(one)))
                self._last_slice = time.monotonic()
                self._runner.came()
            if self._case.came < self._case.slices:
                raise InputError(f"the scan ended after {self._case.came} of {self._case.slices} slices")
        except BaseException as error:  # noqa: BLE001 - it is told by whoever iterates
            self._give_up(error)

    def _finite(self, one: NDArray[Any]) -> NDArray[Any]:
        if one.dtype.kind != "f" or bool(np.isfinite(one).all()):
            return one
        if not self._warnings:
            self._warnings.append("voxels that are NaN or infinite were taken as 0")
        made: NDArray[Any] = np.nan_to_num(one, nan=0.0, posinf=0.0, neginf=0.0)
        return made

    def _iterate(self) -> Iterator[Slab]:
        case, given = self._case.case, 0
        whole = bool(case.settings.postprocessing)
        while (count := self._news.get()) is not None:
            if count > given and not whole and self._job.error is None:
                yield self._slab(given, count)
                given = count
        if self._job.error is None:
            # Whether the slices end where they were said to, and what their source says then, belongs to the answer.
            self._feeder.join()
        if self._job.error is not None:
            raise self._job.error
        if self._case.cropped:
            self._warnings.append(
                "outer slices, rows or columns are zero: a run of the whole volume would crop them, and its labels may "
                "differ near the edges"
            )
        if self._case.narrowed:
            self._warnings.append(
                f"{self._case.narrowed} voxels of the network's input were clipped to the range of the slices that had "
                "come, which later ones made wider: labels around them may differ from a run of the whole volume"
            )
        timings = {"after the last slice": time.monotonic() - self._last_slice}
        self._result = self._finish(self._labels, timings, self._warnings)
        if whole:
            yield 0, self._result.labels.array[0]

    def _slab(self, given: int, count: int) -> Slab:
        """Labels `given` to `count` in the order of arrival."""
        size = len(self._labels)
        first, last = (size - count, size - given) if self._case.descending else (given, count)
        turned = self._labels[first:last].transpose(self._case.case.settings.transpose_backward)
        return first, np.ascontiguousarray(turned)
