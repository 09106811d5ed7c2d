"""Studies on one GPU: a thread of its own runs their windows, and those of different studies share its batches.

Studies that were given the same budget and the same flag to cancel run together. When another comes first in the queue,
one that does not fit the memory that is held, or a run of a whole network, those under way are finished before it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from voxelrt.backends.cuda import CudaPlan
from voxelrt.backends.native import CancelFlag
from voxelrt.runtime.cuda_scheduler import GpuWindows, sizes_of
from voxelrt.runtime.gpu_driver import Driver, LostDeviceError
from voxelrt.runtime.gpu_network import Compiled
from voxelrt.runtime.window_job import Job

Say = Callable[[str], None]


@dataclass(eq=False)
class GpuStudy:
    """A study on its way.

    Parameters
    ----------
    job, then : its windows; called on the worker's thread when its labels or its error are there.
    memory, cancel, say : as for ``GpuWindows``.
    again : it was out of memory before.
    """

    job: Job
    then: Callable[[Job], Any]
    memory: int | None = None
    cancel: CancelFlag | None = None
    say: Say | None = None
    again: bool = False


class GpuWorker:
    """One GPU's part of a plan; what it holds is made on first use and stays for the next study.

    Parameters
    ----------
    driver : of the GPU.
    compiled : gives what the plan holds for it.
    whole : makes the network for arrays of the host.
    lost : called with the worker and the studies that had not begun, when the GPU is lost.
    """

    def __init__(
        self,
        driver: Driver,
        compiled: Callable[[], Compiled],
        whole: Callable[[], CudaPlan],
        lost: Callable[[GpuWorker, list[GpuStudy], LostDeviceError], None],
    ) -> None:
        self._driver, self._compiled, self._make_whole, self._tell_lost = driver, compiled, whole, lost
        self._whole: CudaPlan | None = None
        self._windows: GpuWindows | None = None
        self._memory: int | None = None  # that the windows were opened with
        self._cancel: CancelFlag | None = None  # of the studies under way
        self._change = threading.Condition()
        self._running = threading.Lock()  # held by whoever uses the GPU
        self._queue: deque[GpuStudy] = deque()
        self._open: dict[Job, GpuStudy] = {}
        self._again: list[GpuStudy] = []
        self._lost: LostDeviceError | None = None
        self._callers, self._closed, self._news = 0, False, False
        self._thread: threading.Thread | None = None

    # ---- whole networks ----

    @property
    def index(self) -> int:
        """The GPU's number."""
        return self._driver.index

    def run(self, inputs: Mapping[str, Any], out: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Run the network; studies under way are finished first. Raises as ``GpuCall.run``."""
        with self._alone():
            if self._whole is None:
                self._whole = self._make_whole()
            return self._whole.run(inputs, out)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with self._change:
            self._callers += 1
            self._change.notify_all()
        try:
            with self._running:
                yield
        finally:
            with self._change:
                self._callers -= 1
                self._change.notify_all()

    # ---- studies ----

    def submit(self, study: GpuStudy) -> None:
        """Put a study in the queue."""
        with self._change:
            self._closed = False
            self._queue.append(study)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="voxelrt-gpu", daemon=True)
                self._thread.start()
            self._tell()

    def came(self) -> None:
        """Say that planes of a study under way have come, or that it was given up."""
        with self._change:
            self._tell()

    def close(self) -> None:
        """Finish what was submitted, and give the GPU's memory back."""
        with self._change:
            thread, self._closed = self._thread, True
            self._tell()
        if thread is not None:
            thread.join()
        with self._running:
            self._close_windows()
            if self._whole is not None:
                self._whole.close()
            self._whole = None

    def _tell(self) -> None:
        self._news = True
        self._change.notify_all()

    # ---- the source of studies, as the scheduler asks ----

    def next(self, wait: bool) -> Job | None:
        """The next study that can join those under way; after waiting None ends them."""
        with self._change:
            if wait and self._lost is None:
                self._change.wait_for(lambda: self._queue or self._closed or self._callers or self._again)
            failed = [one for one in self._open.values() if isinstance(one.job.error, LostDeviceError)]
            if not self._queue or self._callers or self._again or failed or self._lost or self._windows is None:
                return None
            study = self._queue[0]
            sizes = sizes_of(study.job)
            alike = study.memory == self._memory and study.cancel is self._cancel
            if not alike or not self._windows.takes(*sizes):
                return None
            self._open[study.job] = self._queue.popleft()
        study.job.sums, study.job.bytes = None, self._windows.bytes_of(*sizes)  # the device's own
        return study.job

    def wait(self) -> None:
        """Until something has come."""
        with self._change:
            self._change.wait_for(lambda: self._news)
            self._news = False

    # ---- its thread ----

    def _work(self) -> None:
        while (study := self._first()) is not None:
            with self._running:
                self._run_from(study)

    def _first(self) -> GpuStudy | None:
        """The study that is next, once nobody wants the GPU for a whole network; None where the worker is closed."""
        with self._change:
            self._change.wait_for(lambda: (self._queue and not self._callers) or (self._closed and not self._queue))
            if not self._queue:
                self._thread = None
                return None
            return self._queue[0]

    def _run_from(self, first: GpuStudy) -> None:
        """Run studies, `first` and those that may join it."""
        self._lost = None
        try:
            windows, self._cancel = self._windows_for(first), first.cancel
            for job in windows.scheduler.run(self, first.cancel):
                self._ended(self._open.pop(job), windows)
            if self._again:
                again, self._again = self._again, []
                with self._change:
                    self._queue.extendleft(reversed(again))
                windows.shrink()
        except BaseException as error:  # noqa: BLE001 - the studies that were under way have it
            self._close_windows()  # whatever state it was left in
            self._fail(first, error)
            if isinstance(error, LostDeviceError):
                self._lost = error
        if self._lost is not None:
            self._close_windows()
            with self._change:
                left = list(self._queue)
                self._queue.clear()
            self._tell_lost(self, left, self._lost)

    def _fail(self, first: GpuStudy, error: BaseException) -> None:
        """Studies under way, or the one that should have begun, end with an error."""
        with self._change:
            failed = [*self._open.values(), *self._again]
            self._open, self._again = {}, []
            if not failed and self._queue and self._queue[0] is first:
                failed.append(self._queue.popleft())
        for study in failed:
            study.job.error = study.job.error or error
            study.then(study.job)

    def _ended(self, study: GpuStudy, windows: GpuWindows) -> None:
        """Hand a study on, or keep it for another try with less memory."""
        job, error = study.job, study.job.error
        short = error is not None and isinstance(error.__cause__, MemoryError)
        if short and not study.again and windows.share.batch > 1:
            study.again, job.error = True, None
            self._again.append(study)
            return
        if isinstance(error, LostDeviceError):
            self._lost = error
        study.then(job)

    def _windows_for(self, study: GpuStudy) -> GpuWindows:
        """Windows with room for a study: those that are held, or new ones."""
        sizes = sizes_of(study.job)
        if self._windows is None or study.memory != self._memory or not self._windows.takes(*sizes):
            self._close_windows()
            self._windows = GpuWindows(self._driver, self._compiled(), *sizes, memory=study.memory, say=study.say)
            self._memory = study.memory
        return self._windows

    def _close_windows(self) -> None:
        if self._windows is not None:
            self._windows.close()
        self._windows = None
