"""The scheduler on the CPU and on a device that reorders all that it may."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from tests.runtime.simulated_device import SimulatedDevice
from tests.runtime.studies import CLASSES, WINDOW, Queue, Scan, expected, network, study
from voxelrt.backends.native import CancelFlag
from voxelrt.errors import CancelledError, InputError, TimeLimitError, UsageError
from voxelrt.runtime.cpu_device import CpuDevice, array_of
from voxelrt.runtime.cpu_threads import ThreadedCpuDevice
from voxelrt.runtime.cpu_windows import CpuWindows
from voxelrt.runtime.device import Array, Device
from voxelrt.runtime.scheduler import Budget, Scheduler
from voxelrt.runtime.window_job import Job
from voxelrt.tiling.repeats import most_repeated, repeated

SIZES = [((4, 6, 5), None), ((9, 11, 7), None), ((13, 6, 9), (20, 9, 5)), ((7, 8, 9), (3, 17, 9))]


def _scheduler(device: Device, batch: int, work: CpuWindows | None = None, **options: object) -> Scheduler:
    shapes = (1, *WINDOW), (CLASSES, *WINDOW)
    return Scheduler(device, work or CpuWindows(network), *shapes, batch=batch, **options)  # type: ignore[arg-type]


def _studies() -> list[Job]:
    return [study(seed, size, new) for seed, (size, new) in enumerate(SIZES)]


def _right(job: Job) -> bool:
    """Whether labels are the loop's, but where two classes are as good as equal."""
    return job.error is None and float((job.labels != expected(job)).mean()) < 0.002


@pytest.mark.parametrize("batch", [1, 2, 3, 7])
def test_labels_on_the_cpu(batch: int) -> None:
    jobs = list(_scheduler(CpuDevice(), batch).run(Queue(_studies(), late=3)))
    assert len(jobs) == len(SIZES)
    assert all(_right(job) for job in jobs)
    alone = [next(iter(_scheduler(CpuDevice(), 1).run(Queue([job])))) for job in _studies()]
    for job in jobs:
        same = next(one for one in alone if np.array_equal(one.data, job.data))
        np.testing.assert_array_equal(job.labels, same.labels)  # bit-equal, whatever shared a batch with it


@pytest.mark.parametrize("batch", [1, 3])
def test_labels_on_threads_are_the_same_bits(batch: int) -> None:
    before = threading.enumerate()  # a thread of another test may be ending
    scheduler = _scheduler(ThreadedCpuDevice(), batch, budget=Budget(250))
    for _ in range(3):
        for job, plain in zip(_studies(), _scheduler(CpuDevice(), 1).run(Queue(_studies())), strict=True):
            (made,) = scheduler.run(Queue([job]))
            np.testing.assert_array_equal(made.labels, plain.labels)
        assert all(_right(job) for job in scheduler.run(Queue(_studies(), late=3)))
    scheduler.close()
    assert set(threading.enumerate()) <= set(before)


def test_on_threads_a_failure_is_its_own_batch_s_and_told_to_each_of_its_studies() -> None:
    class Failing(CpuWindows):
        def network(self, inputs, outputs, stream) -> None:  # type: ignore[no-untyped-def]
            if np.isnan(array_of(inputs)).any():
                raise ValueError("a voxel is not a number")
            super().network(inputs, outputs, stream)

    for _ in range(10):
        jobs = _studies()
        for bad in (jobs[0], jobs[1], jobs[3]):
            bad.data[...] = np.nan
        list(_scheduler(ThreadedCpuDevice(), 1, Failing(network)).run(Queue(jobs)))
        assert [type(job.error) for job in jobs] == [ValueError, ValueError, type(None), ValueError]
        assert _right(jobs[2])


def test_ctrl_c_on_threads_stops_what_is_under_way_and_ends_the_threads() -> None:
    cancel, before = CancelFlag(), threading.enumerate()

    class Slow(CpuWindows):
        def network(self, inputs, outputs, stream) -> None:  # type: ignore[no-untyped-def]
            while not cancel.is_set:
                time.sleep(0.001)
            raise CancelledError("between two steps")

    class Pressed:
        def __init__(self) -> None:
            self.asked = 0

        def wait(self) -> None:
            raise AssertionError

        def next(self, wait: bool) -> Job | None:
            self.asked += 1
            if self.asked > 1:
                raise KeyboardInterrupt
            return _studies()[0]

    scheduler = _scheduler(ThreadedCpuDevice(), 20, Slow(network), cancel=cancel)
    with pytest.raises(KeyboardInterrupt):
        list(scheduler.run(Pressed()))
    scheduler.close()
    assert cancel.is_set
    assert set(threading.enumerate()) <= set(before)


@pytest.mark.parametrize("eager", [0.0, 0.4, 0.9])
@pytest.mark.parametrize("seed", range(6))
def test_labels_on_a_device_of_any_order(seed: int, eager: float) -> None:
    device = SimulatedDevice(seed, eager)
    scheduler = _scheduler(device, 1 + seed % 3, budget=Budget(250))
    jobs = list(scheduler.run(Queue(_studies(), late=seed % 4)))
    assert [_right(job) for job in jobs] == [True] * len(SIZES)
    scheduler.close()
    assert device.live == set()


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("device", [CpuDevice(), SimulatedDevice(5), SimulatedDevice(6, 0.0)], ids=["cpu", "s5", "s6"])
def test_equal_windows_are_computed_once_and_the_labels_are_the_same_bits(device: Device, batch: int) -> None:
    runs = 0

    class Counting(CpuWindows):
        def network(self, inputs, outputs, stream) -> None:  # type: ignore[no-untyped-def]
            nonlocal runs
            runs += len(array_of(inputs))
            super().network(inputs, outputs, stream)

    def airy() -> Job:
        return study(4, (18, 20, 19), (11, 20, 19), air=6)

    (job,) = _scheduler(device, batch, Counting(network)).run(Queue([airy()]))
    once, runs = runs, 0
    every = airy()
    every.windows, every.kept_key = [replace(window, key=None) for window in every.windows], None
    (plain,) = _scheduler(CpuDevice(), batch, Counting(network)).run(Queue([every]))
    np.testing.assert_array_equal(job.labels, plain.labels)
    assert _right(job)
    constant = sum(isinstance(window.key, bytes) for window in job.windows)
    assert constant > 20
    # On a device that works later, batches launched before the logits are kept compute them again.
    assert len(job.windows) - constant < once <= len(job.windows) - constant + 2 * batch
    assert runs == len(job.windows)


@pytest.mark.parametrize("seed", range(6))
def test_a_study_whose_planes_still_come(seed: int) -> None:
    job, told = study(seed, (19, 8, 9), (11, 9, 9)), list[tuple[int, float]]()
    whole = expected(job)
    job.out = lambda planes: told.append((planes, float((job.labels[:planes] != whole[:planes]).mean())))
    device: Device = SimulatedDevice(seed, seed / 5) if seed else ThreadedCpuDevice()
    scheduler = _scheduler(device, 1 + seed % 3)
    (ended,) = scheduler.run(Scan(job, seed))
    assert ended.error is None
    assert float((job.labels != whole).mean()) < 0.002
    assert all(wrong < 0.01 for _, wrong in told)  # what is told of is there
    assert told[0][0] < told[-1][0] == 11
    scheduler.close()


def test_repeated_windows_are_known_by_their_content() -> None:
    data = np.random.default_rng(1).normal(size=(2, 8, 9, 10)).astype(np.float32)
    data[:, :4, :3, :5] = 0
    data[:, :4, 3:6, :5] = 0
    data[1, :4, 3:6, :5] = 7
    data[:, 4:, :3, 5:] = data[:, :4, 6:, 5:]
    data[0, 4, 3, 0] = 9
    corners = [(z, y, x) for z in (0, 4) for y in (0, 3, 6) for x in (0, 5)]
    keys = repeated(data, (4, 3, 5), corners)
    assert set(keys) == {(0, 0, 0), (0, 3, 0), (4, 0, 5), (0, 6, 5)}
    assert keys[0, 0, 0] != keys[0, 3, 0]
    assert keys[4, 0, 5] == keys[0, 6, 5]
    assert most_repeated(list(keys.values())) == keys[4, 0, 5]
    data[1, 4, 0, 5] += 1e-6  # a sampled voxel, and one that is not
    assert (4, 0, 5) not in repeated(data, (4, 3, 5), corners)


def test_progress_counts_windows() -> None:
    told: list[tuple[int, int]] = []
    job = study(1, (9, 11, 7))
    job.tell = lambda done, total: told.append((done, total))
    list(_scheduler(CpuDevice(), 4).run(Queue([job])))
    assert told[-1] == (len(job.windows), len(job.windows))
    assert [done for done, _ in told] == sorted(done for done, _ in told)


class _Failing(CpuWindows):
    """Fails on windows of a study whose first voxel is a NaN, and when the sums of a study get full."""

    def __init__(self) -> None:
        super().__init__(self._run)

    def _run(self, inputs: Array, outputs: Array) -> None:
        if np.isnan(inputs).any():
            raise InputError("a voxel is not a number")
        network(inputs, outputs)


def test_a_failure_in_the_network_is_told_with_its_study() -> None:
    jobs = _studies()
    jobs[1].data[0, 0, 0, 0] = np.nan
    budget = Budget(1000)
    ended = list(_scheduler(CpuDevice(), 1, _Failing(), budget=budget).run(Queue(jobs)))
    assert [isinstance(job.error, InputError) for job in ended] == [False, True, False, False]
    assert all(_right(job) for job in ended if job is not jobs[1])
    assert budget.taken == 0


@pytest.mark.parametrize("seed", range(12))
def test_a_failure_on_a_device_ends_what_is_under_way_with_it(seed: int) -> None:
    """What else was launched is lost; nothing wrong comes out, and what comes later is right."""
    jobs = _studies()
    jobs[1].data[0, 0, 0, 0] = np.nan
    device, budget = SimulatedDevice(seed, seed % 4 / 4), Budget(1000)
    scheduler = _scheduler(device, 1 + seed % 2, _Failing(), budget=budget)
    ended = list(scheduler.run(Queue(jobs)))
    assert isinstance(jobs[1].error, InputError)
    assert all(_right(job) for job in ended if job.error is None)
    assert _right(jobs[3])
    scheduler.close()
    assert budget.taken == 0
    assert device.live == set()


def test_a_failure_in_the_sums_is_one_study_s() -> None:
    class Full(CpuWindows):
        def accumulate(self, logits, window, sums, stream) -> None:  # type: ignore[no-untyped-def]
            if window is jobs[2].windows[-1]:
                raise OSError("no space left")
            super().accumulate(logits, window, sums, stream)

    jobs = _studies()
    ended = list(_scheduler(CpuDevice(), 5, Full(network)).run(Queue(jobs)))
    assert {id(job): isinstance(job.error, OSError) for job in ended} == {id(j): j is jobs[2] for j in jobs}
    assert all(_right(job) for job in ended if job is not jobs[2])


def test_a_budget_holds_studies_back_and_refuses_what_can_never_fit() -> None:
    jobs = _studies()
    jobs[1].bytes = 1000
    most = 0
    budget = Budget(200)

    class Watched(CpuWindows):
        def network(self, inputs, outputs, stream) -> None:  # type: ignore[no-untyped-def]
            nonlocal most
            most = max(most, budget.taken)
            super().network(inputs, outputs, stream)

    ended = list(_scheduler(CpuDevice(), 64, Watched(network), budget=budget).run(Queue(jobs)))
    assert most == 200
    assert budget.taken == 0
    assert {id(job) for job in ended} == {id(job) for job in jobs}
    assert isinstance(jobs[1].error, UsageError)
    assert all(_right(job) for job in jobs if job is not jobs[1])


def test_no_memory_for_one_study_leaves_the_others() -> None:
    def none() -> None:
        raise MemoryError

    jobs = _studies()
    jobs[0].sums = none
    budget = Budget(1000)
    ended = list(_scheduler(CpuDevice(), 2, budget=budget).run(Queue(jobs)))
    assert isinstance(jobs[0].error, InputError)
    assert all(_right(job) for job in ended if job is not jobs[0])
    assert budget.taken == 0


def test_a_study_that_cannot_begin_comes_back_before_another_is_waited_for() -> None:
    job, came = study(0, SIZES[0][0]), list[Job]()
    job.bytes = 300

    class Source(Queue):
        def next(self, wait: bool) -> Job | None:
            assert not wait or self._jobs or came, "the failed study waits for the next one"
            return super().next(wait)

    for ended in _scheduler(CpuDevice(), 2, budget=Budget(250)).run(Source([job])):
        came.append(ended)
    assert isinstance(job.error, UsageError)
    assert came == [job]


def test_a_time_limit_ends_its_study_only() -> None:
    jobs = _studies()
    jobs[1].time_limit = 0
    ended = list(_scheduler(CpuDevice(), 2).run(Queue(jobs)))
    assert [isinstance(job.error, TimeLimitError) for job in jobs] == [False, True, False, False]
    assert len(ended) == len(jobs)


@pytest.mark.parametrize("eager", [0.0, 0.5])
def test_cancelling_gives_everything_back(eager: float) -> None:
    cancel, device, budget = CancelFlag(), SimulatedDevice(8, eager), Budget(1000)
    scheduler = _scheduler(device, 2, budget=budget, cancel=cancel)
    jobs = _studies()
    jobs[2].tell = lambda done, total: cancel.set()
    with pytest.raises(CancelledError):
        list(scheduler.run(Queue(jobs)))
    assert budget.taken == 0
    again = CancelFlag()
    scheduler._cancel = again
    assert all(_right(job) for job in scheduler.run(Queue(_studies())))
    scheduler.close()
    assert device.live == set()


def test_leaving_the_loop_early_gives_everything_back() -> None:
    device = SimulatedDevice(1)
    scheduler = _scheduler(device, 2)
    for _ in scheduler.run(Queue(_studies())):
        break
    scheduler.close()
    assert device.live == set()
