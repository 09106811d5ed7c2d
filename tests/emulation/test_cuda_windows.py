"""Studies under the one scheduler on a GPU that is not there: our kernels' own PTX, streams late and in any order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.emulation.simulated_driver import MisuseError, SimulatedDriver
from tests.emulation.windows import compiled
from tests.runtime.studies import Queue, expected, study
from voxelrt.errors import UsageError
from voxelrt.runtime.cuda_scheduler import GpuWindows, study_bytes
from voxelrt.runtime.gpu_driver import LostDeviceError
from voxelrt.runtime.window_job import Job

pytest.importorskip("onnxruntime", reason="ONNX Runtime, the simulated device's engines, is not installed")
pytestmark = pytest.mark.usefixtures("needs_nvcc")


def _windows(driver: SimulatedDriver, job: Job, **options: Any) -> GpuWindows:
    sizes = study_bytes(job.data.shape, job.channels, job.weights.shape[0], job.labels[0].nbytes)
    return GpuWindows(driver, compiled(), *sizes, **options)


def _wrong(job: Job) -> float:
    return float((job.labels != expected(job)).mean())


@pytest.mark.parametrize("seed", range(2))
def test_studies_get_the_labels_of_a_plain_loop(seed: int) -> None:
    driver = SimulatedDriver(seed, seed / 2)
    jobs = [study(1, (8, 6, 6)), study(2, (4, 6, 5), (6, 6, 7))]
    windows = _windows(driver, jobs[0])
    for job in windows.scheduler.run(Queue(jobs, late=seed)):
        assert job.error is None, job.error
        assert _wrong(job) < 0.002
    windows.close()
    assert driver.blocks == {}


def test_nothing_is_allocated_for_a_second_study_and_batches_are_graphs() -> None:
    driver, job = SimulatedDriver(5), study(3, (8, 6, 6))
    windows = _windows(driver, job)
    windows.run(job)
    before = driver.allocations, driver.pinned
    again = study(4, (8, 6, 6))
    windows.run(again)
    assert _wrong(again) < 0.002
    assert (driver.allocations, driver.pinned) == before
    assert driver.captured == 2  # one for each batch in flight
    assert driver.graph_launches > 2
    windows.close()


def test_a_budget_shrinks_the_batch_then_moves_the_sums() -> None:
    job, told = study(6, (8, 6, 6)), list[str]()
    probe = _windows(SimulatedDriver(1), job)
    fixed = {batch: probe.fixed_bytes(batch) for batch in (1, 2, 4)}
    own, slab = study_bytes(job.data.shape, job.channels, job.weights.shape[0], job.labels[0].nbytes)
    whole = own + slab
    for memory, batch, host in (
        (fixed[4] + whole, 4, False),
        (fixed[4] + whole - 1, 2, False),
        (fixed[1] + whole, 1, False),
        (fixed[1] + whole - 1, 1, True),
    ):
        windows = _windows(SimulatedDriver(1), job, memory=memory, say=told.append)
        assert (windows.share.batch, windows.share.host_slab) == (batch, host)
        windows.close()
    assert "1 windows at once" in told[-1]
    assert "host's memory" in told[-1]
    with pytest.raises(UsageError, match="memory"):
        _windows(SimulatedDriver(1), job, memory=fixed[1] + own - 1)


def test_sums_in_the_host_s_memory_give_the_same_labels() -> None:
    driver, job = SimulatedDriver(2), study(7, (8, 6, 6))
    own, slab = study_bytes(job.data.shape, job.channels, job.weights.shape[0], job.labels[0].nbytes)
    whole = _windows(SimulatedDriver(2), job).fixed_bytes(1) + own + slab
    windows = _windows(driver, job, memory=whole - 1)
    assert windows.share.host_slab
    windows.run(job)
    assert _wrong(job) < 0.002
    assert len(driver.mapped) == 2
    windows.close()
    assert driver.blocks == {}


def test_a_lost_gpu_ends_the_study_and_a_new_one_goes_on() -> None:
    driver, job = SimulatedDriver(3), study(8, (8, 6, 6))
    windows = _windows(driver, job)
    driver.lose_after = 20
    with pytest.raises(LostDeviceError):
        windows.run(job)
    windows.close()
    other, again = SimulatedDriver(3), study(8, (8, 6, 6))
    windows = _windows(other, again)
    windows.run(again)
    assert _wrong(again) < 0.002
    windows.close()


def test_out_of_memory_is_tried_once_more_with_less() -> None:
    driver, job, told = SimulatedDriver(4), study(9, (8, 6, 6)), list[str]()
    windows = _windows(driver, job, say=told.append)
    assert windows.share.batch == 4
    driver.fail_allocations = 2  # the pool gives back what is in no use and asks again
    windows.run(job)
    assert windows.share.batch == 2
    assert any("out of memory" in line for line in told)
    assert _wrong(job) < 0.002
    windows.close()
    assert driver.blocks == {}


def test_the_rules_of_capture_are_kept_by_the_driver() -> None:
    driver = SimulatedDriver(0)
    stream, event = driver.stream(), driver.event()
    driver.begin_capture(stream)
    for misuse in (
        lambda: driver.allocate(10),
        lambda: driver.synchronize(event),
        lambda: driver.allocate_host(10),
        lambda: driver.wait(stream, event),
        lambda: driver.finished(event),
    ):
        with pytest.raises(MisuseError):
            misuse()
    driver.end_capture(stream)
    address = driver.allocate(10)
    driver.free(address)
    with pytest.raises(MisuseError):
        driver.free(address)
    with pytest.raises(MisuseError):
        driver.read(address, 4)
    assert np.isnan(np.frombuffer(bytes(driver.memory_.bytes[:4]), np.float32)).all()
