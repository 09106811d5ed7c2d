"""A plan on GPUs: whole networks and windows of studies, on the GPU that has the least to do."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from voxelrt.backends.cuda import CudaPlan, Engines, compiled_for, gpu_part_of
from voxelrt.backends.native import CancelFlag
from voxelrt.errors import UsageError
from voxelrt.plan.dlpack import ANY_GPU, gpu_of
from voxelrt.plan.plan import Plan
from voxelrt.runtime.gpu_driver import Driver, LostDeviceError
from voxelrt.runtime.gpu_pool import LeastLoaded
from voxelrt.runtime.gpu_studies import GpuStudy, GpuWorker
from voxelrt.runtime.window_job import Job

Say = Callable[[str], None]
Gpu = tuple[Driver, Engines]  # and where engines for it come from


class GpuPlan:
    """What ``Plan.on_gpu`` puts in the place of the CPU.

    Parameters
    ----------
    plan : compiled with ``device="cuda"``.
    gpus : to run on.

    Raises
    ------
    PlanError : the plan has no GPU part.
    """

    def __init__(self, plan: Plan, gpus: Sequence[Gpu]) -> None:
        self.part = gpu_part_of(plan)
        self._pool = LeastLoaded([self._worker(plan, *gpu) for gpu in gpus])

    def _worker(self, plan: Plan, driver: Driver, engines: Engines) -> GpuWorker:
        compiled = partial(compiled_for, plan, driver, engines)
        return GpuWorker(driver, compiled, partial(CudaPlan, plan, driver, engines), self._lost)

    @property
    def count(self) -> int:
        """How many GPUs."""
        return len(self._pool)

    def run(self, inputs: Mapping[str, Any], out: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Run the network, as ``Plan.run``: on the GPU that the inputs lie on, or the one that has the least to do.

        Raises
        ------
        UsageError : the inputs lie on several GPUs, or on one that the plan does not run on. Otherwise as
            ``GpuCall.run``.
        """
        found = map(gpu_of, inputs.values())
        where = sorted({gpu for gpu in found if gpu is not None and gpu != ANY_GPU})
        there = [worker for worker in self._pool.workers if worker.index in where]
        if len(where) > 1 or len(there) < len(where):
            raise UsageError(
                f"the inputs lie on GPU {', '.join(map(str, where))}; the plan takes them on one of its own: "
                f"{', '.join(str(worker.index) for worker in self._pool.workers)}"
            )
        load = sum(math.prod(array.shape) for array in inputs.values())
        with self._pool.take(load, there[0] if there else None) as worker:
            return worker.run(inputs, out)

    def submit(self, study: GpuStudy) -> None:
        """Put a study in the queue of the GPU that has the least to do."""
        load = study.job.data.nbytes * len(study.job.windows)
        worker, then = self._pool.choose(load), study.then

        def done(job: Job) -> None:
            self._pool.done(worker, load)
            then(job)

        worker.submit(replace(study, then=done))

    def _lost(self, worker: GpuWorker, waiting: list[GpuStudy], error: LostDeviceError) -> None:
        """Studies that a lost GPU had not begun go to another one, where there is one."""
        left = self._pool.lose(worker)
        for study in waiting:
            if left:
                other = self._pool.choose(0)
                other.submit(study)
            else:
                study.job.error = error
                study.then(study.job)

    def run_windows(
        self, job: Job, *, memory: int | None = None, cancel: CancelFlag | None = None, say: Say | None = None
    ) -> None:
        """Run a study's windows; its labels are in the job then.

        Raises
        ------
        VoxelRTError : as ``GpuWindows.run``.
        """
        done, flag = threading.Event(), cancel or CancelFlag()
        self.submit(GpuStudy(job, lambda job: done.set(), memory, flag, say))
        try:
            done.wait()
        except KeyboardInterrupt:
            flag.set()  # or what is under way would be waited for to its end
            done.wait()
            raise
        if job.error is not None:
            raise job.error

    def runner(self, memory: int | None, cancel: CancelFlag) -> GpuRunner:
        """For a session: runs its studies' windows, see ``WindowRunner``."""
        return GpuRunner(self, memory, cancel)

    def came(self) -> None:
        """Say that planes of studies under way have come."""
        for worker in self._pool.workers:
            worker.came()

    def close(self) -> None:
        """Give the GPUs' memory back."""
        for worker in self._pool.workers:
            worker.close()


class GpuRunner:
    """A session's view of a plan on GPUs: the face of ``WindowRunner``."""

    def __init__(self, plan: GpuPlan, memory: int | None, cancel: CancelFlag) -> None:
        self._plan, self._memory, self._cancel = plan, memory, cancel
        self._change, self._open = threading.Condition(), 0

    def submit(self, job: Job, then: Callable[[Job], Any]) -> None:
        """Run a study; `then` is called with it, on a GPU's thread, when its labels or its error are there."""

        def through(job: Job) -> None:
            try:
                then(job)
            finally:
                with self._change:
                    self._open -= 1
                    self._change.notify_all()

        with self._change:
            self._open += 1
        self._plan.submit(GpuStudy(job, through, self._memory, self._cancel))

    def came(self) -> None:
        """Say that planes of a study under way have come, or that it was given up."""
        self._plan.came()

    def close(self) -> None:
        """Wait for what was submitted; the GPUs' memory stays for the plan's next session."""
        with self._change:
            self._change.wait_for(lambda: not self._open)


def open_gpus(purpose: str, tell: Callable[[str, int, int], None] | None = None) -> list[Gpu]:
    """All GPUs of this machine (those that CUDA_VISIBLE_DEVICES names).

    Parameters
    ----------
    purpose : in errors.
    tell : called with (phase, step, steps) while an engine is built for one of them.

    Raises
    ------
    MissingExtraError : CuPy is not installed. DeviceError : there is no GPU.
    """
    from voxelrt.backends.cuda import find_engines
    from voxelrt.backends.cupy_driver import CupyDriver, device_count

    drivers = [CupyDriver(index, purpose) for index in range(max(1, device_count()))]
    return [(driver, find_engines(driver.name, driver.driver_version, tell)) for driver in drivers]
