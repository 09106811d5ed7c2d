"""Arrays of other libraries on a GPU, in and out of a plan: whose stream waits for whom, on the simulated driver.

What writes an input and what reads an output is work in streams of their own, late and in any order. Seeded faults
leave a wait out, or let go of memory too early; each must show.
"""

from __future__ import annotations

import gc
import importlib
import sys
import types
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.emulation.simulated_driver import MisuseError, SimulatedDriver
from tests.emulation.windows import compiled
from voxelrt.errors import ShapeError, UsageError
from voxelrt.plan.dlpack import borrow, capsule
from voxelrt.runtime import gpu_call
from voxelrt.runtime.gpu_pool import LeastLoaded
from voxelrt.runtime.gpu_run import GpuPlan

pytest.importorskip("onnxruntime", reason="ONNX Runtime, the simulated device's engines, is not installed")
pytestmark = pytest.mark.usefixtures("needs_nvcc")


class Theirs:
    """Another library's array: written by a stream of its own some time, its memory given back when nobody has it."""

    def __init__(self, driver: SimulatedDriver, array: np.ndarray, stream: Any, gpu: int = 0) -> None:
        self.shape, self.dtype, self.gpu = array.shape, array.dtype, gpu
        self.driver, self.stream, self.streams = driver, stream, list[int | None]()
        self.address = driver.allocate(max(array.nbytes, 1))
        self._keeper = _Keeper(driver, self.address)
        data = array.tobytes()
        driver.put(stream, lambda: driver.write(self.address, data))

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, self.gpu

    def __dlpack__(self, *, stream: int | None = None, **others: Any) -> Any:
        self.streams.append(stream)
        if stream != -1:
            event = self.driver.event()
            self.driver.record(event, self.stream)
            self.driver.wait(self.driver.foreign(stream or 1), event)
        return capsule(self._keeper, self.address, self.shape, self.dtype, self.__dlpack_device__())


class _Keeper:
    def __init__(self, driver: SimulatedDriver, address: int) -> None:
        self._driver, self._address = driver, address

    def __del__(self) -> None:
        if self._address - self._driver._base in self._driver.blocks:
            self._driver.free(self._address)


class Described(Theirs):
    """One that has no DLPack, and leaves the waiting to the reader."""

    __dlpack__ = property()  # type: ignore[assignment]
    __dlpack_device__ = property()  # type: ignore[assignment]

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        words = {"shape": self.shape, "typestr": self.dtype.str, "data": (self.address, False), "version": 3}
        return words | {"stream": self.driver.number(self.stream)}


def _answer(x: np.ndarray) -> np.ndarray:
    mean = x.mean(axis=(1, 2, 3, 4), keepdims=True)
    return np.concatenate([np.sin((k + 1) * x) + 0.1 * k * mean for k in range(3)], axis=1)


def _random(seed: int, batch: int = 2) -> np.ndarray:
    shape = compiled().part.values["input"].dims_at(batch)
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


class Reader:
    """Reads an output on a stream of its own, some time after it has let go of it."""

    def __init__(self, driver: SimulatedDriver, output: Any, stream: Any, expected: np.ndarray) -> None:
        taken = borrow(output, driver.number(stream), 0)
        self._expected, self.error = expected, "nothing was read"

        def read() -> None:
            raw = driver.read(taken.address, expected.nbytes)
            found = np.frombuffer(raw, np.float32).reshape(expected.shape)
            wrong = float(np.linalg.norm(found - expected) / np.linalg.norm(expected))
            self.error = "" if wrong < 1e-5 else f"its answer is off by {wrong:.3g}"

        driver.put(stream, read)
        taken.release()


def _session(seed: int, make: Any) -> None:
    """Some runs on arrays of a device in a row, each answer read late; everything is given back."""
    driver = SimulatedDriver(seed, (seed % 4) / 5)
    call = make(driver, compiled())
    streams = [driver.stream() for _ in range(2)]
    readers, kinds = list[Reader](), (Theirs, Described)
    for turn in range(6):
        x = _random(turn, 1 + turn % 4)
        given = kinds[turn % 2](driver, x, driver.foreign(1) if turn == 3 else streams[turn % 2])
        (output,) = call.run({"input": given}).values()
        del given
        readers.append(Reader(driver, output, driver.foreign(2) if turn == 4 else streams[1 - turn % 2], _answer(x)))
        del output
        gc.collect(0)
    x = _random(9)
    (found,) = call.run({"input": x}).values()  # of the host, on the same memory
    np.testing.assert_allclose(found, _answer(x), atol=1e-4)
    into = Theirs(driver, np.zeros_like(found), streams[0])
    call.run({"input": Theirs(driver, x + 1, streams[1])}, {"logits": into})
    np.testing.assert_allclose(
        np.frombuffer(driver.read(into.address, found.nbytes), np.float32), _answer(x + 1).ravel(), atol=1e-4
    )
    driver.settle()
    assert [reader.error for reader in readers] == [""] * 6
    (last,) = call.run({"input": Theirs(driver, x, streams[0])}).values()
    call.close()  # with all of it under way
    readers.append(Reader(driver, last, streams[1], _answer(x)))
    del into, last
    gc.collect(0)
    driver.settle()
    assert readers[-1].error == ""
    assert driver.blocks == {}


@pytest.mark.parametrize("seed", range(3))
def test_arrays_of_the_device_go_through_a_plan(seed: int) -> None:
    _session(seed, gpu_call.GpuCall)


# module -> fault -> (what stands there, the fault in its place)
FAULTS: dict[str, dict[str, tuple[str, str]]] = {
    "gpu_call": {
        "who gives an input is asked for no waiting": (
            "borrow(array, self.driver.number(self._stream), self.driver.index)",
            "borrow(array, -1, self.driver.index)",
        ),
        "who gives an input makes another stream wait": (
            "borrow(array, self.driver.number(self._stream), self.driver.index)",
            "borrow(array, 1, self.driver.index)",
        ),
        "the stream that an interface names is not waited for": (
            "            self._await(array)\n        hosts",
            "            pass\n        hosts",
        ),
        "inputs are let go of before their copies are through": (
            "            self._held.append((event, held))\n",
            "            self._spare.append(event)\n            _release(held)\n",
        ),
        "inputs are let go of whether or not their copies are through": (
            "if self.driver.finished(event):",
            "if event is not None:",
        ),
        "memory is freed under what is under way": (
            "        self._settle()\n        for address",
            "        for address",
        ),
        "what is written into is not waited for": (
            "        driver.synchronize(self._done)\n        for name, array in arrays.items():\n",
            "        for name, array in arrays.items():\n",
        ),
    },
    "gpu_outputs": {
        "readers do not wait": (
            "lambda number: driver.wait(driver.foreign(number), block.written)",
            "lambda number: None",
        ),
        "readers wait for nothing yet": ("        driver.record(block.written, self._stream)\n", ""),
        "memory is used again while it is read": (
            "            self._driver.wait(self._stream, mark)\n",
            "            pass\n",
        ),
        "no reader marks where it is": (
            "                driver.record(block.marks[block.waits], driver.foreign(number))\n",
            "",
        ),
        "outputs are never given back": (
            "                self._driver.free(block.address)\n",
            "                pass\n",
        ),
    },
}
ROWS = [(module, fault) for module, faults in FAULTS.items() for fault in faults]


def _with_fault(module: str, stands: str, instead: str) -> Any:
    source = Path(str(importlib.import_module(f"voxelrt.runtime.{module}").__file__)).read_text(encoding="utf-8")
    assert source.count(stands) == 1, f"{stands!r} no longer stands in {module}: seed this fault anew"
    made = types.ModuleType(f"{module}_with_a_fault")
    sys.modules[made.__name__] = made  # dataclasses look their module up
    exec(compile(source.replace(stands, instead), f"{module}_with_a_fault.py", "exec"), made.__dict__)
    return made


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # faults show in finalizers too
@pytest.mark.parametrize(("module", "fault"), ROWS, ids=[fault for _, fault in ROWS])
def test_the_simulated_driver_finds(module: str, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = _with_fault(module, *FAULTS[module][fault])
    make = made.GpuCall if module == "gpu_call" else gpu_call.GpuCall
    if module == "gpu_outputs":
        monkeypatch.setattr(gpu_call, "GpuOutputs", made.GpuOutputs)
    for seed in range(12):
        try:
            _session(seed, make)
        except (MisuseError, AssertionError, UsageError):
            return
    pytest.fail("the fault goes unnoticed")


def test_memory_of_outputs_is_used_again_and_graphs_are_replayed() -> None:
    driver = SimulatedDriver(2, 0.5)
    call, stream = gpu_call.GpuCall(driver, compiled()), driver.stream()
    x = _random(0, 4)
    given = Theirs(driver, x, stream)
    readers = []
    for turn in range(5):
        (output,) = call.run({"input": given}).values()
        readers.append(Reader(driver, output, stream, _answer(x)))
        if turn == 1:
            before = driver.allocations, driver.pinned
        del output
    assert (driver.allocations, driver.pinned) == before
    assert (driver.captured, driver.graph_launches) == (1, 4)
    assert set(given.streams) == {driver.number(call._stream)}
    driver.settle()
    assert not any(reader.error for reader in readers)
    (kept,) = call.run({"input": given}).values()
    call.close()
    Reader(driver, kept, stream, _answer(x))  # outlives the plan
    driver.settle()
    del kept, given
    gc.collect(0)
    assert driver.blocks == {}


def test_arrays_that_do_not_fit_are_refused_and_given_back() -> None:
    driver = SimulatedDriver(1, 0.5)
    call, stream, x = gpu_call.GpuCall(driver, compiled()), driver.stream(), _random(0)
    held = len(driver.blocks)

    def wrong(make: Any, error: Any, words: str, **out: Any) -> None:
        given = make(driver, x, stream) if callable(make) else make
        with pytest.raises(error, match=words) as raised:
            call.run({"input": given}, out or None)
        del given, raised, out
        gc.collect(0)
        assert len(driver.blocks) == held

    wrong(partial(Theirs, gpu=1), UsageError, "the input input lies on GPU 1, and the plan runs on GPU 0")
    wrong(lambda d, x, s: Theirs(d, x.astype(np.float64), s), ShapeError, "float64")
    wrong(lambda d, x, s: Theirs(d, x[..., :1], s), ShapeError, "the plan takes float32")

    class Turned(Described):
        @property
        def __cuda_array_interface__(self) -> dict[str, Any]:
            steps = np.zeros(self.shape, np.float32).T.strides
            return super().__cuda_array_interface__ | {"strides": steps}

    class Masked(Described):
        @property
        def __cuda_array_interface__(self) -> dict[str, Any]:
            return super().__cuda_array_interface__ | {"mask": self}

    class Sealed(Described):
        @property
        def __cuda_array_interface__(self) -> dict[str, Any]:
            return super().__cuda_array_interface__ | {"data": (self.address, True)}

    wrong(Turned, ShapeError, "make it contiguous")
    wrong(Masked, UsageError, "the input input: a Masked cannot be taken from its library: it is masked")
    answer = _answer(x)
    wrong(x, ShapeError, "no output of the plan fits", logits=np.zeros(3, np.float32))
    wrong(x, ShapeError, "no output of the plan fits", nothing=np.zeros_like(answer))
    sealed = np.zeros_like(answer)
    sealed.flags.writeable = False
    wrong(x, UsageError, "read-only", logits=sealed)
    one = Sealed(driver, answer, stream)
    with pytest.raises(UsageError, match="read-only"):
        call.run({"input": x}, {"logits": one})
    out = {"logits": np.full_like(answer, np.nan)}
    assert call.run({"input": x}, out)["logits"] is out["logits"]
    np.testing.assert_allclose(out["logits"], answer, atol=1e-4)
    call.close()


def test_the_gpu_that_an_input_lies_on_is_taken() -> None:
    class Worker:
        def __init__(self, index: int) -> None:
            self.index, self.runs = index, 0

        def run(self, inputs: Any, out: Any) -> dict[str, Any]:
            self.runs += 1
            return {}

    plan = GpuPlan.__new__(GpuPlan)
    workers = [Worker(0), Worker(1)]
    plan._pool = LeastLoaded(workers)  # type: ignore[arg-type]
    driver = SimulatedDriver()
    on = [Theirs(driver, np.zeros(4, np.float32), driver.stream(), gpu) for gpu in range(3)]
    for gpu in (1, 1, 0, 1):
        plan.run({"x": on[gpu], "y": np.zeros(100)})
    assert [worker.runs for worker in workers] == [1, 3]
    for given in ({"x": on[2]}, {"x": on[0], "y": on[1]}):
        with pytest.raises(UsageError, match="one of its own: 0, 1"):
            plan.run(given)
