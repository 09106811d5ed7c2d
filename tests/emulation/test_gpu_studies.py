"""Studies that come to GPUs which are not there: shared batches, a network between, a lost GPU, too little memory."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.emulation.simulated_driver import SimulatedDriver
from tests.emulation.windows import compiled
from tests.runtime.studies import expected, study
from voxelrt.backends.native import CancelFlag
from voxelrt.errors import CancelledError, UsageError
from voxelrt.runtime.gpu_driver import LostDeviceError
from voxelrt.runtime.gpu_network import Compiled, GpuNetwork
from voxelrt.runtime.gpu_pool import LeastLoaded
from voxelrt.runtime.gpu_run import GpuPlan
from voxelrt.runtime.gpu_studies import GpuStudy, GpuWorker
from voxelrt.runtime.window_job import Job

pytest.importorskip("onnxruntime", reason="ONNX Runtime, the simulated device's engines, is not installed")
pytestmark = pytest.mark.usefixtures("needs_nvcc")
SIZE = (8, 6, 5)  # six windows


class _Whole:
    """Stands for the network of the whole plan: says in which order it had its turn."""

    def __init__(self, order: list[Any]) -> None:
        self._order = order

    def run(self, inputs: Any, out: Any = None) -> dict[str, Any]:
        self._order.append("whole")
        return dict(inputs)

    def close(self) -> None:
        self._order.append("closed")


class _Gpus:
    """A plan on simulated GPUs, and what came of its studies in order."""

    def __init__(self, *drivers: SimulatedDriver) -> None:
        self.drivers, self.order = drivers, list[Any]()
        self.plan = GpuPlan.__new__(GpuPlan)  # of no plan file: what it runs is made by tests/emulation/windows.py
        self.workers = [self._worker(driver) for driver in drivers]
        self.plan._pool = LeastLoaded(self.workers)

    def _worker(self, driver: SimulatedDriver) -> GpuWorker:
        made: Callable[[], Compiled] = compiled
        whole: Any = lambda: _Whole(self.order)  # noqa: E731
        return GpuWorker(driver, made, whole, lambda *lost: self.plan._lost(*lost))

    def run(self, jobs: list[Job], cancel: CancelFlag | None = None, **options: Any) -> None:
        """Hand all in before the first begins, and wait for all."""
        left, done = len(jobs), threading.Event()

        def then(job: Job) -> None:
            nonlocal left
            self.order.append(job)
            left -= 1
            if not left:
                done.set()

        with ExitStack() as held:
            for worker in self.workers:
                held.enter_context(worker._alone())
            for job in jobs:
                self.plan.submit(GpuStudy(job, then, cancel=cancel, **options))
        assert done.wait(100)

    def close(self) -> None:
        self.plan.close()
        assert [driver.blocks for driver in self.drivers] == [{} for _ in self.drivers]


def _right(job: Job) -> bool:
    return job.error is None and float((job.labels != expected(job)).mean()) < 0.002


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many windows each run of the network had."""
    found, run = list[int](), GpuNetwork.run

    def counted(self: GpuNetwork, stream: Any, addresses: Any, batch: int) -> None:
        found.append(batch)
        run(self, stream, addresses, batch)

    monkeypatch.setattr(GpuNetwork, "run", counted)
    return found


def test_windows_of_different_studies_share_batches(runs: list[int]) -> None:
    gpus, jobs = _Gpus(SimulatedDriver(1)), [study(number, SIZE) for number in range(2)]
    windows = sum(len({w.key or (w.start, w.mirrored) for w in job.windows}) for job in jobs)
    alone = len(jobs) * -(-(windows // len(jobs)) // 4)
    gpus.run(jobs)
    assert all(map(_right, jobs))
    assert len(runs) == -(-sum(runs) // 4) < alone  # all batches are full but the last
    driver, taken = gpus.drivers[0], gpus.drivers[0].allocations
    again = [study(number, SIZE) for number in (7, 8)]
    gpus.run(again)  # another session's: nothing is opened anew
    assert all(map(_right, again))
    assert driver.allocations == taken
    gpus.close()


def test_a_whole_network_has_its_turn_between_studies() -> None:
    gpus, jobs = _Gpus(SimulatedDriver(2)), [study(number, SIZE) for number in range(2)]
    given = {"input": np.zeros(3, np.float32)}
    first = threading.Event()
    jobs[0].tell = lambda done, total: first.set()
    caller = threading.Thread(target=lambda: (first.wait(100), gpus.plan.run(given)))
    caller.start()
    gpus.run(jobs[:1])
    gpus.run(jobs[1:])
    caller.join(100)
    gpus.close()
    assert gpus.order == [jobs[0], "whole", jobs[1], "closed"] or gpus.order == [*jobs, "whole", "closed"]
    assert all(map(_right, jobs))


def test_a_lost_gpu_s_waiting_studies_go_to_the_other() -> None:
    drivers = SimulatedDriver(3), SimulatedDriver(4)
    gpus, jobs = _Gpus(*drivers), [study(number, SIZE) for number in range(5)]
    drivers[0].lose_after = 9
    gpus.run(jobs)
    lost = [job for job in jobs if job.error is not None]
    assert lost
    assert all(isinstance(job.error, LostDeviceError) for job in lost)
    assert all(_right(job) for job in jobs if job not in lost)
    later = [study(9, (4, 6, 5)), study(10, (4, 6, 5))]
    gpus.run(later)  # the lost one, which has nothing to do, gets none of them
    assert all(map(_right, later))
    drivers[1].lose_after = 3
    last = [study(11, (4, 6, 5)), study(12, (4, 6, 5))]
    gpus.run(last[:1])
    gpus.run(last[1:])
    assert [type(job.error) for job in last] == [LostDeviceError] * 2
    gpus.plan.close()


def test_too_little_memory_is_tried_once_more_with_all_that_met_it() -> None:
    told = list[str]()
    gpus = _Gpus(SimulatedDriver(5))
    gpus.run([study(20, (4, 6, 5))], say=told.append)
    gpus.drivers[0].fail_allocations = 4
    jobs = [study(number, SIZE) for number in (21, 22)]
    gpus.run(jobs, say=told.append)
    assert all(map(_right, jobs))
    assert sum("out of memory" in line for line in told) == 1
    gpus.close()


def test_a_cancelled_session_leaves_the_gpu_to_the_next() -> None:
    gpus, flag = _Gpus(SimulatedDriver(6)), CancelFlag()
    jobs = [study(number, SIZE) for number in range(2)]
    jobs[0].tell = lambda done, total: flag.set()
    gpus.run(jobs, flag)
    assert any(isinstance(job.error, CancelledError) for job in jobs)
    other, wrong = study(7, SIZE), study(8, SIZE)
    gpus.run([other])
    assert _right(other)
    gpus.run([wrong], memory=1000)
    assert isinstance(wrong.error, UsageError)
    with pytest.raises(UsageError, match="memory"):
        gpus.plan.run_windows(replace(wrong), memory=1000)
    gpus.plan.run_windows(other)
    assert _right(other)
    gpus.close()
