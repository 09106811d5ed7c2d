"""Faults that a scheduler may have, seeded one by one: the simulated device finds each."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.runtime.simulated_device import SimulatedDevice
from tests.runtime.studies import CLASSES, WINDOW, Queue, Scan, expected, network, study
from voxelrt.backends.native import CancelFlag
from voxelrt.errors import CancelledError
from voxelrt.runtime import scheduler as original
from voxelrt.runtime.cpu_windows import CpuWindows
from voxelrt.runtime.window_job import Job

SOURCE = Path(str(original.__file__)).read_text()

# name -> what stands in the scheduler, and the fault in its place
FAULTS = {
    "no wait for the upload before windows are gathered": (
        "            device.wait(self._gather, running.uploaded)\n",
        "",
    ),
    "planes that came are not waited for before windows are gathered": (
        "                self._device.record(self._up, running.uploaded)\n            running.up",
        "            running.up",
    ),
    "a window begins a plane before all of it has come": (
        "if window.start[0] + job.weights.shape[0] > running.up:",
        "if window.start[0] + job.weights.shape[0] > running.up + 1:",
    ),
    "labels are told of before they are down": (
        "                self._device.synchronize(event)\n            running.told",
        "                pass\n            running.told",
    ),
    "no wait for the gathered rows before the network": (
        "        device.wait(self._compute, batch.gathered)\n",
        "",
    ),
    "no wait for the network before its logits are summed": (
        "        device.wait(self._stitch, batch.computed)\n",
        "",
    ),
    "no wait for the labels before they are copied": ("        device.wait(self._down, ready)\n", ""),
    "no wait for a plane's copy before the next labels are written": (
        "        device.wait(self._stitch, running.down[slot])\n",
        "",
    ),
    "rows are used again before their batch is done": (
        "        device.record(self._stitch, batch.done)\n",
        "        device.record(self._gather, batch.done)\n",
    ),
    "a study's memory is given back a step early": (
        "for event in (running.uploaded, *running.down):",
        "for event in (running.uploaded,):",
    ),
    "the double buffer is off by one": (
        "device.download(self._down, running.planes[slot], job.labels[z : z + 1])",
        "device.download(self._down, running.planes[slot - 1], job.labels[z : z + 1])",
    ),
    "a wrong row of the batch is summed": (
        "else batch.outputs.rows(row, 1)",
        "else batch.outputs.rows(len(batch.rows) - 1 - row, 1)",
    ),
    "kept logits are read before they are known": (
        "return KEPT if running.kept is not None and",
        "return KEPT if",
    ),
    "another study's sums and counts are decided from": (
        "self._kernels.decide, running.sums",
        "self._kernels.decide, self._running[-1].sums",
    ),
    "a plane is cleared before it is read": ("if plane > 0:", "if plane >= 0:"),
    "a failure after the launch is missed": (
        "            self._device.synchronize(batch.done)\n"
        "        except Exception as error:  # noqa: BLE001 - as when it is launched\n"
        "            self._fail(studies, error)\n",
        "            self._device.synchronize(batch.done)\n"
        "        except Exception as error:  # noqa: BLE001 - as when it is launched\n"
        "            pass\n",
    ),
    "cancelling leaks what was under way": (
        "        while self._running:\n            self._free(self._running.popleft())\n",
        "        self._running.clear()\n",
    ),
    "the budget is not given back": (
        "        self._budget.give(running.job.bytes)\n\n    def _fail",
        "\n    def _fail",
    ),
}


def _module(source: str) -> types.ModuleType:
    module = types.ModuleType("scheduler_with_a_fault")
    module.__dict__["__name__"] = "scheduler_with_a_fault"
    sys.modules["scheduler_with_a_fault"] = module  # dataclasses look their module up
    exec(compile(source, "scheduler_with_a_fault.py", "exec"), module.__dict__)
    return module


class _Failing(CpuWindows):
    def network(self, inputs, outputs, stream) -> None:  # type: ignore[no-untyped-def]
        if np.isnan(inputs.array).any():
            raise ValueError("a voxel is not a number")
        super().network(inputs, outputs, stream)


def _studies() -> list[Job]:
    sizes = [((9, 11, 7), None), ((4, 6, 5), (7, 6, 5)), ((7, 8, 9), (3, 9, 9)), ((9, 6, 5), None)]
    airy = [study(9, (14, 15, 16), air=5), study(10, (14, 15, 14), air=5)]
    return [study(seed, size, new) for seed, (size, new) in enumerate(sizes)] + airy


def _make(module: types.ModuleType, device: SimulatedDevice, budget: object, cancel: CancelFlag) -> object:
    shapes = (1, *WINDOW), (CLASSES, *WINDOW)
    return module.Scheduler(device, _Failing(network), *shapes, batch=3, budget=budget, cancel=cancel)


def _plain_run(module: types.ModuleType, seed: int) -> None:
    """All labels are right, and everything is given back."""
    device, budget, jobs = SimulatedDevice(seed, seed % 5 / 5), module.Budget(350), _studies()
    scheduler = _make(module, device, budget, CancelFlag())
    for job in scheduler.run(Queue(jobs, late=seed % 3)):  # type: ignore[attr-defined]
        if job.error is not None:
            raise job.error
        assert float((job.labels != expected(job)).mean()) < 0.002
    scheduler.close()  # type: ignore[attr-defined]
    assert (device.live, budget.taken) == (set(), 0)


def _failing_run(module: types.ModuleType, seed: int) -> None:
    """A study whose windows fail is not handed on as if it were whole."""
    device, jobs = SimulatedDevice(seed, seed % 5 / 5), _studies()[:1]
    jobs[0].data[0, 0, 0, 0] = np.nan
    scheduler = _make(module, device, module.Budget(None), CancelFlag())
    (ended,) = scheduler.run(Queue(jobs))  # type: ignore[attr-defined]
    assert isinstance(ended.error, ValueError)


def _cancelled_run(module: types.ModuleType, seed: int) -> None:
    """Nothing is held once a run was cancelled."""
    device, budget, cancel, jobs = SimulatedDevice(seed, seed % 5 / 5), module.Budget(1000), CancelFlag(), _studies()
    jobs[0].tell = lambda done, total: cancel.set()
    scheduler = _make(module, device, budget, cancel)
    with pytest.raises(CancelledError):
        list(scheduler.run(Queue(jobs)))  # type: ignore[attr-defined]
    scheduler.close()  # type: ignore[attr-defined]
    assert (device.live, budget.taken) == (set(), 0)


def _growing_run(module: types.ModuleType, seed: int) -> None:
    """A study whose planes still come, and whose labels are told of as they are there."""
    job, device = study(seed, (15, 8, 9), (15, 9, 9)), SimulatedDevice(seed, seed % 5 / 5)
    whole, wrong = expected(job), list[float]()
    job.out = lambda planes: wrong.append(float((job.labels[:planes] != whole[:planes]).mean()))
    scheduler = _make(module, device, module.Budget(None), CancelFlag())
    (ended,) = scheduler.run(Scan(job, seed))  # type: ignore[attr-defined]
    assert ended.error is None
    assert max(wrong) < 0.01


RUNS: tuple[Callable[[types.ModuleType, int], None], ...] = (_plain_run, _failing_run, _cancelled_run, _growing_run)


def _found(module: types.ModuleType, seeds: range) -> bool:
    for seed in seeds:
        for run in RUNS:
            try:
                run(module, seed)
            except (Exception, pytest.fail.Exception):  # noqa: BLE001 - however a fault shows, it shows
                return True
    return False


def test_the_scheduler_itself_has_none() -> None:
    assert not _found(_module(SOURCE), range(12))


@pytest.mark.parametrize("fault", FAULTS)
def test_the_simulated_device_finds(fault: str) -> None:
    stands, instead = FAULTS[fault]
    assert SOURCE.count(stands) == 1, f"{stands!r} no longer stands in the scheduler: seed this fault anew"
    assert _found(_module(SOURCE.replace(stands, instead)), range(12))
