"""One scheduler for a session: studies come as they are read, and their windows run on one thread of its own."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from voxelrt.runtime.scheduler import Scheduler
from voxelrt.runtime.window_job import Job

Then = Callable[[Job], Any]


class Runner(Protocol):
    """What runs a session's windows, wherever it is."""

    def submit(self, job: Job, then: Then) -> None:
        """Run a study; `then` is called with it, on a thread of its own, when its labels or its error are there."""

    def came(self) -> None:
        """Say that planes of a study under way have come, or that it was given up."""

    def close(self) -> None:
        """Wait for what was submitted."""


class WindowRunner:
    """A source of studies for a scheduler, and the thread that runs it.

    Parameters
    ----------
    scheduler : its own; closed by ``close``.
    """

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._change = threading.Condition()
        self._jobs: deque[Job] = deque()
        self._came = self._closed = False
        self._open: dict[Job, Then] = {}
        self._thread = threading.Thread(target=self._run, name="voxelrt-windows", daemon=True)
        self._thread.start()

    def submit(self, job: Job, then: Then) -> None:
        """Run a study; `then` is called with it, on the thread of windows, when its labels or its error are there."""
        with self._change:
            self._open[job] = then
            self._jobs.append(job)
            self._change.notify_all()

    def came(self) -> None:
        """Say that planes of a study under way have come, or that it was given up."""
        with self._change:
            self._came = True
            self._change.notify_all()

    def close(self) -> None:
        """Wait for what was submitted."""
        with self._change:
            self._closed = True
            self._change.notify_all()
        self._thread.join()

    # ---- as the scheduler asks ----

    def next(self, wait: bool) -> Job | None:
        """The next study."""
        with self._change:
            if wait:
                self._change.wait_for(lambda: self._jobs or self._closed)
            return self._jobs.popleft() if self._jobs else None

    def wait(self) -> None:
        """Until something has come."""
        with self._change:
            self._change.wait_for(lambda: self._jobs or self._came or self._closed)
            self._came = False

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            for job in self._scheduler.run(self):
                self._open.pop(job)(job)
        except BaseException as raised:  # noqa: BLE001 - every study that is left has it
            error = raised
        finally:
            self._scheduler.close()
        while error is not None and (self._open or not self._closed):
            with self._change:
                self._change.wait_for(lambda: self._open or self._closed)
                left, self._open = self._open, {}
            for job, then in left.items():
                job.error = job.error or error
                then(job)
