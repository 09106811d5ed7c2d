"""One scheduler for a session: studies come as they are read, and their windows run on one thread of its own."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any

from voxelrt.runtime.scheduler import Scheduler
from voxelrt.runtime.window_job import Job

Then = Callable[[Job], Any]


class WindowRunner:
    """A source of studies for a scheduler, and the thread that runs it.

    Parameters
    ----------
    scheduler : its own; closed by ``close``.
    """

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._open: dict[Job, Then] = {}
        self._thread = threading.Thread(target=self._run, name="voxelrt-windows", daemon=True)
        self._thread.start()

    def submit(self, job: Job, then: Then) -> None:
        """Run a study; `then` is called with it, on the thread of windows, when its labels or its error are there."""
        self._open[job] = then
        self._jobs.put(job)

    def close(self) -> None:
        """Wait for what was submitted."""
        self._jobs.put(None)
        self._thread.join()

    def next(self, wait: bool) -> Job | None:
        """As the scheduler asks for it."""
        try:
            job = self._jobs.get(block=wait)
        except queue.Empty:
            return None
        if job is None:
            self._jobs.put(None)  # for whoever asks again
        return job

    def _run(self) -> None:
        error: BaseException
        try:
            for job in self._scheduler.run(self):
                self._open.pop(job)(job)
            return
        except BaseException as raised:  # noqa: BLE001 - every study that is left has it
            error = raised
        finally:
            self._scheduler.close()
        self._fail_all(error)

    def _fail_all(self, error: BaseException) -> None:
        """End what is under way and what may still come."""
        while True:
            for job in list(self._open):
                job.error = job.error or error
                self._open.pop(job)(job)
            if self._jobs.get() is None:
                return
