"""Faults that the GPU's side of the scheduler may have, seeded one by one: the simulated driver finds each."""

from __future__ import annotations

import importlib
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from tests.emulation.simulated_driver import SimulatedDriver
from tests.emulation.windows import compiled
from tests.runtime.studies import expected, study
from voxelrt.runtime import cuda_scheduler
from voxelrt.runtime.cuda_scheduler import GpuWindows, study_bytes

pytest.importorskip("onnxruntime", reason="ONNX Runtime, the simulated device's engines, is not installed")
pytestmark = pytest.mark.usefixtures("needs_nvcc")

# module -> its class -> fault -> (what stands there, the fault in its place)
FAULTS: dict[str, tuple[str, dict[str, tuple[str, str]]]] = {
    "cuda_device": (
        "CudaDevice",
        {
            "pinned memory is used again before its copy is through": (
                "if self.driver.finished(done.handle):",
                "if done is not None:",
            ),
            "labels are taken before their copy is through": ("        self.driver.synchronize(mark.handle)\n", ""),
            "no event marks a copy to the host": ("        mark.downloads += mine.downloads\n", ""),
            "streams do not wait for events": ("        if mark.recorded:\n", "        if not mark.recorded:\n"),
            "rows of a batch are one": ("self.address + first * step", "self.address"),
            "memory that was given back stays": (
                "                self.driver.free(address)\n        for size",
                "                pass\n        for size",
            ),
        },
    ),
    "cuda_windows": (
        "CudaWindows",
        {
            "sums are used before they are zero": ("        self._device.synchronize(ready)\n", ""),
            "mirrored windows begin at the wrong end": ("(count - 1 if back else 0)", "0"),
            "mirrored windows are read forwards": ("-stride if back else stride", "stride"),
            "the second part of a window goes to the slab's end": ("slot = (z + first) %", "slot = z %"),
            "another plane is cleared": (
                "buffer.rows(plane % slab.planes, 1)",
                "buffer.rows((plane + 1) % slab.planes, 1)",
            ),
            "the second part of a window is the first one again": ("ahead + first * steps[0])", "ahead)"),
            "sums are never given back": (
                "        for buffer in _sums(sums).buffers:\n",
                "        for buffer in _sums(sums).buffers[1:]:\n",
            ),
        },
    ),
    "gpu_network": (
        "GpuNetwork",
        {
            "a graph of other addresses is replayed": (
                "key = (batch, *(addresses[name] for name in (*self.part.profiles, *self.part.outputs)))",
                "key = (batch,)",
            ),
            "a run is captured that has not run before": (
                "batch == self.batch and seen and",
                "batch == self.batch and",
            ),
            "all batches share a context": (
                "self._contexts[number, batch == self.batch]",
                "self._contexts[number, True]",
            ),
            "memory is kept": ("            self._driver.free(self._taken.pop())\n", "            self._taken.pop()\n"),
            "a graph is captured and not launched": (
                "            self._graphs[key] = graph\n            self._driver.launch_graph(graph, stream)\n",
                "            self._graphs[key] = graph\n",
            ),
        },
    ),
}
# Ten windows: batches of four in both of the rows in flight, one of two, and windows across the slab's end.
SIZE = (12, 6, 5)
ROWS = [(module, fault) for module, (_, faults) in FAULTS.items() for fault in faults]


def _source(module: str) -> str:
    return Path(str(importlib.import_module(f"voxelrt.runtime.{module}").__file__)).read_text(encoding="utf-8")


def _with_fault(module: str, stands: str, instead: str) -> Any:
    """The module's class, of a source with the fault in it."""
    made = types.ModuleType(f"{module}_with_a_fault")
    sys.modules[made.__name__] = made  # dataclasses look their module up
    source = _source(module).replace(stands, instead)
    exec(compile(source, f"{module}_with_a_fault.py", "exec"), made.__dict__)
    return made


def _run(seed: int) -> None:
    """Two studies one after the other: all labels are right, and everything is given back."""
    driver = SimulatedDriver(seed, seed % 4 / 4)
    first = study(seed, SIZE)
    sizes = study_bytes(first.data.shape, first.channels, first.weights.shape[0], first.labels[0].nbytes)
    windows = GpuWindows(driver, compiled(), *sizes)
    for job in (first, study(20 + seed, SIZE)):
        windows.run(job)
        assert float((job.labels != expected(job)).mean()) < 0.002
    windows.close()
    assert driver.blocks == {}


def _found(seeds: range) -> bool:
    for seed in seeds:
        try:
            _run(seed)
        except Exception:  # noqa: BLE001 - however a fault shows, it shows
            return True
    return False


def test_there_are_none() -> None:
    assert not _found(range(1))


@pytest.mark.parametrize(("module", "fault"), ROWS, ids=[fault for _, fault in ROWS])
def test_the_simulated_driver_finds(module: str, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, faults = FAULTS[module]
    stands, instead = faults[fault]
    assert _source(module).count(stands) == 1, f"{stands!r} no longer stands in {module}: seed this fault anew"
    made = _with_fault(module, stands, instead)
    if module == "cuda_device":  # others know its buffers by their class
        windows = importlib.import_module("voxelrt.runtime.cuda_windows")
        for word in ("CudaBuffer", "buffer_of", "handle_of"):
            monkeypatch.setattr(windows, word, getattr(made, word))
        monkeypatch.setattr(cuda_scheduler, "handle_of", made.handle_of)
    monkeypatch.setattr(cuda_scheduler, name, getattr(made, name))
    assert _found(range(4))
