"""A plan on GPUs: whole networks and windows of studies, on the GPU that has the least to do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from voxelrt.backends.cuda import CudaPlan, Engines, compiled_for, gpu_part_of
from voxelrt.backends.native import CancelFlag
from voxelrt.errors import ShapeError
from voxelrt.plan.plan import Plan
from voxelrt.runtime.cuda_scheduler import GpuWindows, study_bytes
from voxelrt.runtime.device import Array
from voxelrt.runtime.gpu_driver import Driver
from voxelrt.runtime.gpu_pool import LeastLoaded
from voxelrt.runtime.window_job import Job

Say = Callable[[str], None]
Gpu = tuple[Driver, Engines]  # and where engines for it come from


class _Worker:
    """One GPU's part of a plan; what it holds is made on first use and stays for the next study."""

    def __init__(self, plan: Plan, gpu: Gpu) -> None:
        self._plan, (self._driver, self._engines) = plan, gpu
        self._whole: CudaPlan | None = None
        self._windows: GpuWindows | None = None
        self._fits: tuple[int, int] = (0, 0)
        self._asked: tuple[int | None, CancelFlag | None] = (None, None)

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Array]:
        if self._whole is None:
            self._whole = CudaPlan(self._plan, self._driver, self._engines)
        return self._whole.run(inputs)

    def run_windows(self, job: Job, memory: int | None, cancel: CancelFlag | None, say: Say | None) -> None:
        sizes = study_bytes(job.data.shape, job.channels, job.weights.shape[0], job.labels[0].nbytes)
        fits = all(held >= wanted for held, wanted in zip(self._fits, sizes, strict=True))
        if self._windows is None or not fits or self._asked != (memory, cancel):
            self.close_windows()
            compiled = compiled_for(self._plan, self._driver, self._engines)
            options: dict[str, Any] = {"memory": memory, "cancel": cancel, "say": say}
            self._windows = GpuWindows(self._driver, compiled, *sizes, **options)
            self._fits, self._asked = sizes, (memory, cancel)
        job.sums = None  # the device's own
        try:
            self._windows.run(job)
        except BaseException:
            self.close_windows()  # whatever state it was left in
            raise

    def close_windows(self) -> None:
        if self._windows is not None:
            self._windows.close()
        self._windows = None

    def close(self) -> None:
        self.close_windows()
        if self._whole is not None:
            self._whole.close()
        self._whole = None


class GpuPlan:
    """What ``Plan.on_gpus`` puts in the place of the CPU.

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
        self._pool = LeastLoaded([_Worker(plan, gpu) for gpu in gpus])

    @property
    def count(self) -> int:
        """How many GPUs."""
        return len(self._pool)

    def run(self, inputs: Mapping[str, Any], out: Mapping[str, Array] | None = None) -> dict[str, Any]:
        """Run the network, as ``Plan.run``. Raises as ``CudaPlan.run``."""
        with self._pool.take(sum(getattr(array, "nbytes", 0) for array in inputs.values())) as worker:
            made = worker.run(inputs)
        for name, array in (out or {}).items():
            if name not in made or made[name].shape != array.shape or made[name].dtype != array.dtype:
                raise ShapeError(f"out {name!r} is {array.dtype} {array.shape}; no output of the plan fits it")
            array[...] = made[name]
        return made if out is None else dict(out)

    def run_windows(
        self, job: Job, *, memory: int | None = None, cancel: CancelFlag | None = None, say: Say | None = None
    ) -> None:
        """Run a study's windows; its labels are in the job then.

        Raises
        ------
        VoxelRTError : as ``GpuWindows.run``.
        """
        with self._pool.take(job.data.nbytes * len(job.windows)) as worker:
            worker.run_windows(job, memory, cancel, say)

    def close(self) -> None:
        """Give the GPUs' memory back."""
        for worker in self._pool.workers:
            worker.close()


def open_gpus(purpose: str) -> list[Gpu]:
    """All GPUs of this machine (those that CUDA_VISIBLE_DEVICES names).

    Raises
    ------
    MissingExtraError : CuPy is not installed. DeviceError : there is no GPU.
    """
    from voxelrt.backends.cuda import find_engines
    from voxelrt.backends.cupy_driver import CupyDriver, device_count

    drivers = [CupyDriver(index, purpose) for index in range(max(1, device_count()))]
    return [(driver, find_engines(driver.name, driver.driver_version)) for driver in drivers]
