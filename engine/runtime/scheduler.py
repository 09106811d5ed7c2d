"""The scheduler: windows of studies through a network in batches, on any device.

Five streams: data go up, windows are gathered, the network runs, sums are kept and labels decided, labels come
down. As many batches are under way as the device asks for, each with its own rows, so that it can gather the
next batch while the network runs and the one before is summed. A study's windows are summed in their own order
whatever shares a batch with them, so its labels are the same bits in any company.

Memory belongs to the host's side of the order: rows are used again, and a study's memory is given back, only after
``synchronize`` has said that nothing that was launched still uses them.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from voxelrt.backends.native import CancelFlag
from voxelrt.errors import CancelledError, InputError, TimeLimitError, UsageError
from voxelrt.memory_size import in_words
from voxelrt.runtime.device import Buffer, Device, Event
from voxelrt.runtime.window_job import Job, Sums, Window, WindowKernels

PLANES = 2  # of labels of one study, on their way down at once
KEPT = -1  # in place of a row: the logits that the study keeps


class Source(Protocol):
    """Where studies come from."""

    def next(self, wait: bool) -> Job | None:
        """The next study; None where there is none yet, or, after waiting, none any more."""

    def wait(self) -> None:
        """Until a study has come, or planes of one under way."""


class Budget:
    """How much of the device's memory studies may take together; None is no limit."""

    def __init__(self, size: int | None) -> None:
        self.size, self.taken = size, 0

    def take(self, size: int) -> bool:
        """Take some, if that much is left."""
        if self.size is not None and self.taken + size > self.size:
            return False
        self.taken += size
        return True

    def give(self, size: int) -> None:
        """Give some back."""
        self.taken -= size


@dataclass(eq=False)
class _Running:
    """A study under way."""

    job: Job
    data: Buffer
    sums: Sums
    planes: list[Buffer]  # of labels, on their way down
    uploaded: Event
    down: list[Event]  # the last copy of each of these planes
    decided_at: dict[int, list[int]]
    next_window: int = 0
    finished_planes: int = 0
    up: int = 0  # planes of the data that were sent to the device
    stitched: int = 0  # windows
    decided: int = 0
    told: int = 0  # of these
    settled: int = 0  # windows whose batch the host has waited for
    in_flight: int = 0  # batches that hold a window of it
    kept: Buffer | None = None  # the logits of the input that comes most often


@dataclass(eq=False)
class _Batch:
    """Rows for one run of the network, what is in them, and the windows that are summed after it."""

    inputs: Buffer
    outputs: Buffer
    gathered: Event
    computed: Event
    done: Event
    rows: list[tuple[_Running, Window]] = field(default_factory=list)
    windows: list[tuple[_Running, Window, int]] = field(default_factory=list)  # and its row, or KEPT

    def row_of(self, running: _Running, window: Window) -> int | None:
        """The row that holds the same input already."""
        if window.key is not None:
            for row, (other, held) in enumerate(self.rows):
                if other is running and held.key == window.key:
                    return row
        return KEPT if running.kept is not None and window.key == running.job.kept_key else None


class Scheduler:
    """Runs studies' windows.

    Parameters
    ----------
    device, kernels : where and with what.
    input_shape, output_shape : of one row, without the batch's axis.
    batch : windows in one run of the network, at most.
    budget : of the device's memory.
    cancel : stops everything between two batches.
    """

    def __init__(
        self,
        device: Device,
        kernels: WindowKernels,
        input_shape: tuple[int, ...],
        output_shape: tuple[int, ...],
        *,
        batch: int = 1,
        budget: Budget | None = None,
        cancel: CancelFlag | None = None,
    ) -> None:
        self._device, self._kernels, self._size = device, kernels, batch
        self._budget, self._cancel = budget or Budget(None), cancel or CancelFlag()
        self._up, self._gather, self._compute, self._stitch, self._down = (
            device.stream(name) for name in ("upload", "gather", "network", "stitch", "download")
        )
        self._batches = [
            _Batch(
                device.empty((batch, *input_shape), "f4"),
                device.empty((batch, *output_shape), "f4"),
                device.event(),
                device.event(),
                device.event(),
            )
            for _ in range(device.in_flight)
        ]
        self._running: deque[_Running] = deque()
        self._waiting: Job | None = None  # came, but there was no room yet
        self._ended: deque[Job] = deque()

    def run(self, source: Source, cancel: CancelFlag | None = None) -> Iterator[Job]:
        """All studies of a source; each comes back when its labels are there or its error is known.

        `cancel` takes the place of the scheduler's own flag.

        Raises
        ------
        CancelledError : after everything under way was stopped and its memory given back.
        """
        number, more, cancel = 0, True, cancel or self._cancel
        try:
            while more or self._running:
                batch = self._batches[number % len(self._batches)]
                self._settle(batch)
                yield from self._take_ended()
                if cancel.is_set:
                    raise CancelledError("the run was stopped")
                more = self._fill(batch, source, more)
                if batch.windows:
                    self._launch(batch)
                else:
                    self._rest(source)
                number += 1
            yield from self._take_ended()
        except KeyboardInterrupt:
            cancel.set()  # or what is under way would be waited for to its end
            raise
        finally:
            self._abandon()

    def _rest(self, source: Source) -> None:
        """Wait for what is under way; then, where studies lack planes, for those."""
        for batch in self._batches:
            self._settle(batch)
        self._end_studies()
        if self._running and not self._ended and not any(self._may_go(running) for running in self._running):
            source.wait()

    def close(self) -> None:
        """Give the rows' memory back, and end the streams."""
        for batch in self._batches:
            self._device.release(batch.inputs)
            self._device.release(batch.outputs)
        for stream in (self._up, self._gather, self._compute, self._stitch, self._down) if self._batches else ():
            self._device.end(stream)
        self._batches = []

    # ---- what comes in ----

    def _fill(self, batch: _Batch, source: Source, more: bool) -> bool:
        """Put windows in a batch, of several studies where one has not enough; whether more studies may come."""
        for running in self._running:
            self._rows_of(running, batch)
        while more and len(batch.rows) < self._size:
            if self._waiting is None:
                idle = not self._running and not batch.windows and not self._ended
                self._waiting = source.next(idle)
                if self._waiting is None:
                    return not idle
            if not self._start(self._waiting):
                break
            self._waiting = None
            if self._running:
                self._rows_of(self._running[-1], batch)
        return more

    def _rows_of(self, running: _Running, batch: _Batch) -> None:
        """Put a study's next windows in a batch; those of equal input share a row, or need none."""
        job, before = running.job, len(batch.windows)
        self._bring_up(running)
        while job.error is None and running.next_window < len(job.windows):
            window = job.windows[running.next_window]
            if window.start[0] + job.weights.shape[0] > running.up:
                break
            row = batch.row_of(running, window)
            if row is None:
                if len(batch.rows) == self._size:
                    break
                row = len(batch.rows)
                batch.rows.append((running, window))
            batch.windows.append((running, window, row))
            running.next_window += 1
        running.in_flight += len(batch.windows) > before

    def _bring_up(self, running: _Running) -> None:
        """Send planes that have come since to the device."""
        job = running.job
        there = job.data.shape[1] if job.arrived is None else job.arrived()
        if there > running.up:
            if job.arrived is not None:
                self._device.update(self._up, running.data, job.data, slice(running.up, there))
                self._device.record(self._up, running.uploaded)
            running.up = there

    def _may_go(self, running: _Running) -> bool:
        """Whether there is anything to be done for a study without another plane of it."""
        job = running.job
        if job.error is not None or job.arrived is None or running.next_window == len(job.windows):
            return True
        return bool(job.windows[running.next_window].start[0] + job.weights.shape[0] <= job.arrived())

    def _start(self, job: Job) -> bool:
        """Bring a study to the device; False where there is no room before another is finished."""
        job.began = time.monotonic()
        if not self._budget.take(job.bytes):
            if self._running:
                return False
            room = in_words(self._budget.size or 0)
            job.error = UsageError(f"memory: a study needs {in_words(job.bytes)}, more than the {room} there is")
            self._ended.append(job)
            return True
        device, made = self._device, list[Buffer]()
        try:
            sums = job.sums() if job.sums is not None else self._kernels.sums(job)
            made += [device.empty((1, *job.labels.shape[1:]), job.labels.dtype) for _ in range(PLANES)]
            data = device.upload(self._up, job.data)
        except Exception as error:  # noqa: BLE001 - it is this study's, and told with it
            for buffer in made:
                device.release(buffer)
            self._budget.give(job.bytes)
            job.error = _named(error)
            self._ended.append(job)
            return True
        uploaded, down = device.event(), [device.event() for _ in made]
        device.record(self._up, uploaded)
        self._running.append(_Running(job, data, sums, made, uploaded, down, job.labels_at()))
        return True

    # ---- what is launched ----

    def _launch(self, batch: _Batch) -> None:
        """One run of the network with all that goes before and after it."""
        device = self._device
        try:
            if batch.rows:
                self._launch_network(batch)
        except Exception as error:  # noqa: BLE001 - every study of the batch has it, and is told with it
            self._fail([running for running, _ in batch.rows], error)
        for running, window, row in batch.windows:
            if running.job.error is None:
                self._stitch_window(running, window, batch, row)
        device.record(self._stitch, batch.done)

    def _launch_network(self, batch: _Batch) -> None:
        device, kernels, count = self._device, self._kernels, len(batch.rows)
        for row, (running, window) in enumerate(batch.rows):
            device.wait(self._gather, running.uploaded)
            into = batch.inputs.rows(row, 1)
            device.launch(self._gather, partial(kernels.gather, running.data, window, into))
        device.record(self._gather, batch.gathered)
        device.wait(self._compute, batch.gathered)
        inputs, outputs = batch.inputs.rows(0, count), batch.outputs.rows(0, count)
        device.launch(self._compute, partial(kernels.network, inputs, outputs))
        device.record(self._compute, batch.computed)
        device.wait(self._stitch, batch.computed)

    def _stitch_window(self, running: _Running, window: Window, batch: _Batch, row: int) -> None:
        device, kernels, job = self._device, self._kernels, running.job
        try:
            logits = running.kept if row == KEPT and running.kept is not None else batch.outputs.rows(row, 1)
            device.launch(self._stitch, partial(kernels.accumulate, logits, window, running.sums))
            if window.key is not None and window.key == job.kept_key and running.kept is None:
                running.kept = device.empty((1, *batch.outputs.shape[1:]), "f4")
                device.launch(self._stitch, partial(kernels.keep, logits, running.kept))
            running.stitched += 1
            last = running.stitched == len(job.windows)
            self._finish_planes(running, job.data.shape[1] if last else job.windows[running.stitched].start[0])
        except Exception as error:  # noqa: BLE001 - it is this study's alone
            self._fail([running], error)

    def _finish_planes(self, running: _Running, until: int) -> None:
        """Decide what is read from planes before `until`, and clear those that nothing reads any more."""
        for plane in running.job.planes_before(until, running.finished_planes):
            for z in running.decided_at.get(plane, ()):
                self._decide(running, z)
            if plane > 0:
                self._device.launch(self._stitch, partial(self._kernels.clear, running.sums, plane - 1))
            running.finished_planes = plane + 1

    def _decide(self, running: _Running, z: int) -> None:
        device, job = self._device, running.job
        slot = running.decided % PLANES
        device.wait(self._stitch, running.down[slot])
        device.launch(self._stitch, partial(self._kernels.decide, running.sums, job, z, running.planes[slot]))
        ready = device.event()
        device.record(self._stitch, ready)
        device.wait(self._down, ready)
        device.download(self._down, running.planes[slot], job.labels[z : z + 1])
        device.record(self._down, running.down[slot])
        running.decided += 1

    # ---- what has come out ----

    def _settle(self, batch: _Batch) -> None:
        """Wait for a batch, and end the studies that had their last window in it."""
        if not batch.windows:
            return
        studies = list(dict.fromkeys(running for running, _, _ in batch.windows))
        windows, batch.windows, batch.rows = batch.windows, [], []
        try:
            self._device.synchronize(batch.done)
        except Exception as error:  # noqa: BLE001 - as when it is launched
            self._fail(studies, error)
        for running in studies:
            running.in_flight -= 1
            running.settled += sum(1 for one, _, _ in windows if one is running)
            if running.job.error is None:
                running.job.tell(running.settled, len(running.job.windows))
            if running.job.error is None and running.job.out is not None and running.decided > running.told:
                self._hand_out(running, running.job.out)
            if running.job.error is None and running.job.late:
                self._fail([running], TimeLimitError("the study was not finished within its time limit"))
        self._end_studies()

    def _hand_out(self, running: _Running, out: Callable[[int], None]) -> None:
        """Tell of the planes of labels that are down."""
        try:
            for event in running.down:
                self._device.synchronize(event)
            running.told = running.decided
            out(running.told)
        except Exception as error:  # noqa: BLE001 - it is this study's
            self._fail([running], error)

    def _end_studies(self) -> None:
        """Hand on the studies that are through."""
        for running in list(self._running):
            through = running.settled == len(running.job.windows) or running.job.error is not None
            if through and not running.in_flight:
                self._running.remove(running)
                self._free(running)
                self._ended.append(running.job)

    def _free(self, running: _Running) -> None:
        """Wait for a study's last copies, and give its memory back."""
        for event in (running.uploaded, *running.down):
            try:
                self._device.synchronize(event)
            except Exception as error:  # noqa: BLE001 - it is this study's
                self._fail([running], error)
        for buffer in (running.data, *running.planes, *([running.kept] if running.kept is not None else [])):
            self._device.release(buffer)
        self._kernels.drop(running.sums)
        self._budget.give(running.job.bytes)

    def _fail(self, studies: list[_Running], error: Exception) -> None:
        for running in studies:
            if running.job.error is None:
                running.job.error = _named(error)

    def _take_ended(self) -> Iterator[Job]:
        while self._ended:
            yield self._ended.popleft()

    def _abandon(self) -> None:
        """Wait for all that is under way, and give its memory back."""
        for batch in self._batches:
            try:
                self._device.synchronize(batch.done)
            except Exception as error:  # noqa: BLE001 - what is abandoned has no use for its failure
                self._fail([running for running, _, _ in batch.windows], error)
            batch.windows, batch.rows = [], []
        while self._running:
            self._free(self._running.popleft())


def _named(error: Exception) -> Exception:
    if not isinstance(error, MemoryError):
        return error
    named = InputError("the study needs more memory than there is")
    named.__cause__ = error  # for whoever can try again with less
    return named
