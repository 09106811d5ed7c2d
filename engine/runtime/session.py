"""Session: many studies through one plan; reading, running and writing overlap.

A study is read on one thread while those before it run and the one before them is written on another. Windows of
nnU-Net's models go through one scheduler, where those of different studies share a batch. At most ``IN_FLIGHT`` studies
are held at any time, whatever the number given, and one where a memory budget was set.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from threading import BoundedSemaphore
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxelrt.arriving import ArrivingCase, Statistics, from_the_end
from voxelrt.backends.native import CancelFlag
from voxelrt.case import Case
from voxelrt.errors import CancelledError, InputError, UnsupportedError, UsageError, VoxelRTError
from voxelrt.finding import algorithm_of
from voxelrt.kernels.common import native
from voxelrt.memory_size import parse_size
from voxelrt.models.nnunet_settings import settings_from_json
from voxelrt.outputs import BY_NAME, Form, own_form, refuse_unreferable
from voxelrt.pipeline import finish, prepare, run
from voxelrt.plan.plan import Plan
from voxelrt.preprocess.contract import recipe_of
from voxelrt.preprocess.study import ANY, Opened, Pick, Place, Study
from voxelrt.request import Progress, Ready, Request, check_windows, checked_limit, refuse_unwritable, stage
from voxelrt.result import Result
from voxelrt.runtime.shelf import Names, Shelf
from voxelrt.runtime.stream import Labels, LabelStream, whole_study
from voxelrt.runtime.window_job import Job
from voxelrt.runtime.window_runner import Runner, WindowRunner
from voxelrt.stages import Decided, one_network
from voxelrt.volume import Volume
from voxelrt.window_plan import make_job
from voxelrt.windowed import make_scheduler

IN_FLIGHT = 4
USUAL: dict[str, Any] = {"mirroring": True, "step": None, "source_rounding": False, "pick": ANY}  # what changes labels


@dataclass(frozen=True, eq=False)
class _Study:
    """A study on its way; ``note`` records its file in the folder's manifest."""

    request: Request
    note: Callable[[], None] | None
    future: Future[Result] = field(default_factory=Future)

    def noted(self) -> None:
        if self.note is not None:
            self.note()


class Session:
    """Runs many studies through one plan. Use it as a context manager.

    Parameters
    ----------
    plan
        A compiled plan.
    threads
        Compute threads; default the plan's own. The three threads that read, run and write are beside them.
    force
        Run on studies that the model was not made for, with a warning.
    mirroring, step, memory, source_rounding
        As for ``voxelrt.predict``. Within a memory budget studies run one after the other.
    time_limit
        Seconds for each study, counted while it is read and from when its windows begin; past them it is given up.
    form
        With the format "nifti" answers are .nii.gz also of nnU-Net's models of PNG and TIFF.
    pick
        Which series and volume of DICOM studies, and whether they may be repaired.
    progress
        Called with (stage, step, steps), from the threads of the stages.

    Raises
    ------
    UsageError : the plan needs a recipe and has none; wrong options of windows.
    """

    def __init__(
        self,
        plan: Plan,
        threads: int | None = None,
        *,
        force: bool = False,
        mirroring: bool = True,
        step: float | None = None,
        memory: int | str | None = None,
        pick: Pick = ANY,
        source_rounding: bool = False,
        time_limit: float | None = None,
        form: Form = BY_NAME,
        progress: Progress | None = None,
    ) -> None:
        self.plan = plan.with_threads(threads) if threads else plan
        recipe_of(self.plan)
        self._algorithm = algorithm_of(self.plan)
        budget = None if memory is None else parse_size(memory, "memory")
        check_windows(self.plan, mirroring, step, budget, source_rounding)
        self._options: dict[str, Any] = {
            "force": force,
            "mirroring": mirroring,
            "step": step,
            "memory": budget,
            "pick": pick,
            "source_rounding": source_rounding,
            "time_limit": checked_limit(time_limit),
            "form": own_form(form, self.plan),
        }
        self._tell = progress or (lambda stage, step, steps: None)
        self._cancel = CancelFlag()
        self._room = BoundedSemaphore(IN_FLIGHT if budget is None else 1)
        runners = 1 if self.plan.gpu is None else self.plan.gpu.count
        self._reader, self._runner, self._writer = (
            ThreadPoolExecutor(count, f"voxelrt-{name}")
            for name, count in (("read", 1), ("run", runners), ("write", 1))
        )
        self._beside = native.Pool(1)  # the network has all cores; what runs beside it takes what it leaves
        self._streams: list[LabelStream] = []
        self._windows: Runner | None = None
        if one_network(self.plan):
            self._windows = self._make_runner(budget, source_rounding)

    def _make_runner(self, memory: int | None, source_rounding: bool) -> Runner:
        if self.plan.gpu is None:
            return WindowRunner(
                make_scheduler(self.plan, self._cancel, source_rounding=source_rounding, overlap=memory is None)
            )
        if source_rounding:
            raise UsageError("source_rounding: on the CPU only; on GPUs there are labels alone")
        runner: Runner = self.plan.gpu.runner(memory, self._cancel)
        return runner

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(cancel=kind is not None)

    def close(self, *, cancel: bool = False) -> None:
        """Wait for the studies on their way; with ``cancel`` stop them between two steps. Files are whole or absent."""
        if cancel:
            self._cancel.set()
        for stream in self._streams:
            stream.close()
        self._reader.shutdown(wait=True)
        if self._windows is not None:
            self._windows.close()
            self._windows = None
        for pool in (self._runner, self._writer):
            pool.shutdown(wait=True)

    # ---- one study ----

    def submit(self, study: Study, out: Place | None = None, *, picture: Place | None = None) -> Future[Result]:
        """Put a study in the queue.

        Returns
        -------
        future : its result is the Result; the study's own error is raised by ``future.result()``.

        Raises
        ------
        UsageError, OutputError : ``out`` or ``picture`` cannot be written.
        """
        return self._submit(study, out, picture, None)

    def _submit(
        self, study: Study, out: Place | None, picture: Place | None, note: Callable[[], None] | None
    ) -> Future[Result]:
        request = Request(
            study, None if out is None else Path(out), None if picture is None else Path(picture), **self._options
        )
        refuse_unwritable(request)
        job = _Study(request, note)
        self._reader.submit(self._read, job)
        return job.future

    def _read(self, job: _Study) -> None:
        if not job.future.set_running_or_notify_cancel():
            return
        self._room.acquire()
        if self._windows is None:
            self._next(job, lambda: prepare(self.plan, job.request, self._tell), self._runner, self._run)
            return
        try:
            self._refuse_cancelled()
            # A GPU leaves the CPU's cores to what runs beside the network.
            with native.on_pool(self._beside) if self.plan.gpu is None else nullcontext():
                ready = prepare(self.plan, job.request, self._tell)
                windows = self._windows_of(ready)
        except BaseException as error:  # noqa: BLE001 - a future carries every failure to whoever waits for it
            self._fail(job, error)
        else:
            self._windows.submit(windows, partial(self._through, job, ready))

    def _windows_of(self, ready: Ready) -> Job:
        request = ready.request
        assert isinstance(ready.way, Case)
        made = make_job(
            self.plan,
            ready.way,
            self._tell,
            mirroring=request.mirroring,
            step=request.step,
            memory=request.memory if self.plan.gpu is None else None,  # of a GPU's own memory
            say=None,
            source_rounding=request.source_rounding,
        )
        made.time_limit = ready.time_left
        return made

    def _through(self, job: _Study, ready: Ready, windows: Job) -> None:
        """A study has come from the scheduler."""
        if windows.error is not None:
            self._fail(job, windows.error)
            return
        assert isinstance(ready.way, Case)
        ready.timings["run"] = time.monotonic() - windows.began
        decided = Decided(ready.way, windows.labels)
        self._next(job, lambda: (ready, decided), self._writer, self._write)

    def _run(self, job: _Study, ready: Ready) -> None:
        def work() -> tuple[Ready, Any]:
            return ready, run(self.plan, ready, self._tell, self._cancel)

        self._next(job, work, self._writer, self._write)

    def _write(self, job: _Study, done: tuple[Ready, Any]) -> None:
        try:
            self._refuse_cancelled()
            # Noted before a new file appears, so that a session killed in between finds its own files again.
            if job.request.out is not None and not job.request.out.exists():
                job.noted()
            result = finish(*done, self._tell, self._algorithm)
            job.noted()
        except BaseException as error:  # noqa: BLE001 - a future carries every failure to whoever waits for it
            self._fail(job, error)
        else:
            self._room.release()
            job.future.set_result(result)

    def _next(self, job: _Study, work: Callable[[], Any], pool: ThreadPoolExecutor, then: Callable[..., None]) -> None:
        """Do this stage and hand on to the next; a failure ends the study here."""
        try:
            self._refuse_cancelled()
            pool.submit(then, job, work())
        except BaseException as error:  # noqa: BLE001 - as above
            self._fail(job, error)

    def _fail(self, job: _Study, error: BaseException) -> None:
        self._room.release()
        job.future.set_exception(error)

    def _refuse_cancelled(self) -> None:
        if self._cancel.is_set:
            raise CancelledError("the session was stopped")

    # ---- a study that is still being made ----

    @property
    def form(self) -> Form:
        """How results are written."""
        made: Form = self._options["form"]
        return made

    def stream(
        self,
        slices: Iterable[NDArray[Any]],
        shape_zyx: tuple[int, int, int],
        affine: NDArray[np.float64],
        *,
        descending: bool = False,
        statistics: Statistics | None = None,
        out: Place | None = None,
        study: Place | None = None,
        pick: Pick = ANY,
    ) -> LabelStream:
        """Run a study while its slices come: windows begin as soon as all of their planes are there.

        Of nnU-Net's 3-D models. Labels are those of a run of the whole volume where that crops nothing; intensities
        scaled by the whole image need ``statistics``. Several streams and ordinary studies may share the session.

        Parameters
        ----------
        slices
            Gives (Y, X) or (C, Y, X) in modality units, in the order of the scan; taken from by a thread of its own.
        shape_zyx, affine
            Of the whole volume, as they will be.
        descending
            The volume's last slice comes first.
        statistics
            Mean and deviation of each channel, where the model scales by a z-score.
        out
            What to write at the end, as of ``voxelrt.predict``.
        study, pick
            Where the slices lie once all have come, as a study: it is read at the end, and the result refers to it as
            that of a whole volume does. DICOM and pictures need it.

        Returns
        -------
        stream : iterate for slabs of labels as they are finished; ``result()`` for the whole.

        Raises
        ------
        UnsupportedError : the model needs the whole volume. UsageError : a session with a memory budget, or wrong
        arguments. From the stream: InputError where slices are missing, of another shape, or too many.
        """
        if self._windows is None:
            raise UnsupportedError(f"{self.plan.info.name} takes whole volumes; slices are run by nnU-Net's models")
        if self._options["memory"] is not None or self._options["source_rounding"]:
            raise UsageError("a stream holds its sums in memory, in float32: leave memory and source_rounding out")
        given = Volume(np.zeros((1, 1, 1), np.uint8), affine) if study is None else Path(study)
        request = Request(given, None if out is None else Path(out), pick=pick, form=self._options["form"])
        refuse_unwritable(request)
        settings = settings_from_json(self.plan.info.model_settings)
        grid = Volume(np.broadcast_to(np.uint8(0), (len(settings.channels), *shape_zyx)), affine)
        case = ArrivingCase(settings, grid, descending=descending, statistics=statistics)
        job = make_job(
            self.plan,
            case.case,
            self._tell,
            mirroring=self._options["mirroring"],
            step=self._options["step"],
            memory=None,
            say=None,
            arriving=(case.padded, case.inside),
        )
        labels, job.arrived = job.labels, lambda: case.planes

        def finished(made: Labels, timings: dict[str, float], warnings: list[str]) -> Result:
            recipe, opened, whole = recipe_of(self.plan), Opened(grid, None, tuple(warnings)), case.case
            if study is not None:
                with stage("read", timings, self._tell):
                    opened = whole_study(study, grid, recipe, pick, warnings)
                whole = replace(whole, volume=opened.volume)
                refuse_unreferable(request.out, request.form, recipe, opened.source)
            ready = Ready(request, recipe, opened, whole, made, timings)
            return finish(ready, Decided(whole, made), self._tell, self._algorithm)

        one = from_the_end(job) if descending else job
        stream = LabelStream(self._windows, case, one, labels, slices, finished)
        self._streams.append(stream)
        return stream

    # ---- many studies ----

    def map(
        self,
        studies: Iterable[Study | None],
        out_dir: Place | None = None,
        *,
        names: Names = "number",
        resume: bool = False,
        overwrite: bool = False,
        pictures: bool = False,
    ) -> Iterator[Result]:
        """Run all studies; yield one Result for each, in their order.

        A study that fails does not stop the others: its Result has ``error`` set, and ``labels`` raises it. The
        iterator takes studies only as fast as results are taken from it.

        Parameters
        ----------
        studies
            Anything ``voxelrt.predict`` takes; may be a generator, which gives None where there is no study yet, for
            results to be handed out meanwhile.
        out_dir
            Where to write; made if it does not exist. Without it nothing is written.
        names
            "number" gives study-0001.nii.gz and so on, in the order of `studies` (of nnU-Net's models of pictures .png
            or .tif); names of input files can hold names of patients. "input" uses them all the same.
        resume
            Keep what an earlier session of the same plan and options wrote for the same studies, and only do the rest.
            It is the study's content that is compared, not its name.
        overwrite
            Replace what is there. Without this and without `resume`, a file that is there is an error of its study.
        pictures
            Write a PNG beside each mask.

        Raises
        ------
        UsageError : `resume` and `overwrite` together. OutputError : `out_dir` cannot be made.
        """
        if resume and overwrite:
            raise UsageError("resume keeps what is there and overwrite replaces it; choose one")
        ending = self._options["form"].own or ".nii.gz"
        how = {name: self._options[name] for name, usual in USUAL.items() if self._options[name] != usual}
        shelf = None if out_dir is None else Shelf(out_dir, self.plan, names, resume, overwrite, ending, how)
        return self._map(studies, shelf, pictures)

    def _map(self, studies: Iterable[Study | None], shelf: Shelf | None, pictures: bool) -> Iterator[Result]:
        waiting: deque[Future[Result]] = deque()
        number = 0
        for study in studies:
            if study is not None:
                number += 1
                waiting.append(self._start(number, study, shelf, pictures))
            while waiting and (len(waiting) >= IN_FLIGHT or (study is None and waiting[0].done())):
                yield _taken(waiting.popleft())
        while waiting:
            yield _taken(waiting.popleft())

    def _start(self, number: int, study: Study, shelf: Shelf | None, pictures: bool) -> Future[Result]:
        try:
            if shelf is None:
                return self.submit(study)
            place = shelf.place(number, study)
            if place.kept:
                return _ready(Result(out=place.out, skipped=True))
            picture = shelf.picture(place.out) if pictures else None
            return self._submit(study, place.out, picture, place.note)
        except VoxelRTError as error:
            return _ready(Result(error=error))


def _ready(result: Result) -> Future[Result]:
    future: Future[Result] = Future()
    future.set_result(result)
    return future


def _taken(future: Future[Result]) -> Result:
    """The result of a study, a failed one included; Ctrl-C and errors of the program itself go on."""
    try:
        return future.result()
    except CancelledError:
        raise
    except VoxelRTError as error:
        return Result(error=error)
    except MemoryError:
        return Result(error=InputError("the study needs more memory than there is"))
