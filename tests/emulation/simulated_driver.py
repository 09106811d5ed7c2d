"""A GPU's driver without a GPU: streams that work late and in any order, poisoned memory, kernels from their PTX.

What is launched is queued; whenever the host calls or waits, a seeded choice of streams does some of its work. Kernels
are the plan's own PTX in the interpreter, engines are their typed ONNX in ONNX Runtime. Memory is NaN bit patterns that
count as never written, when it is new and again when it is given back. The rules of graph capture are checked.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np

from tests.emulation.ptx.instructions import Kernel as PtxKernel
from tests.emulation.ptx.machine import Machine
from tests.emulation.ptx.memory import MAPPED, WRITTEN, GlobalMemory
from tests.emulation.ptx.parse import parse
from voxelrt.plan.gpu_codes import Code
from voxelrt.plan.gpu_steps import DTYPES
from voxelrt.runtime.gpu_driver import Array, DeviceMemoryError, Kernel, LostDeviceError

ALIGN = 256
FIRST_STREAM = 0x5000  # by number
ORT_TYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(int64)": "int64", "tensor(bool)": "bool"}


class MisuseError(Exception):
    """The engine broke a rule that a real driver would punish by wrong answers or a lost device."""


@lru_cache(maxsize=64)
def _ptx(text: str, entry: str) -> PtxKernel:
    return PtxKernel(parse(text, entry), entry)


@dataclass(eq=False)
class Event:
    recorded: int = 0
    come: int = 0


@dataclass(eq=False)
class Graph:
    work: list[tuple[str, Any]]
    live: bool = True


@dataclass(eq=False)
class Stream:
    number: int
    haste: float  # how often it is chosen, beside others
    queue: deque[tuple[str, Any]] = field(default_factory=deque)
    capturing: list[tuple[str, Any]] | None = None


class SimulatedDriver:
    """See the module.

    Parameters
    ----------
    seed, eager : the order of streams, and how much is done at each call of the host, 0 to 1.
    capacity : bytes of memory, the host's that kernels reach among them.
    held : bytes of the device's own.
    """

    name = "simulated"
    index = 0

    def __init__(
        self,
        seed: int = 0,
        eager: float = 0.3,
        capacity: int = 1 << 22,
        architecture: str = "sm_86",
        held: int | None = None,
    ) -> None:
        self._held, self.mapped = held, set[int]()
        self.architecture = architecture
        self._random, self._eager, self._seed = random.Random(seed), eager, seed
        self.memory_ = GlobalMemory([(b"\xff" * capacity, np.zeros(capacity, bool))])
        self._base = self.memory_.address(0)
        self._start = self.memory_.starts[0]
        self.memory_.state[:] = 0
        self._capacity = capacity
        self.blocks: dict[int, int] = {}
        self._streams: list[Stream] = []
        self._default: dict[int, Stream] = {}
        self.allocations, self.pinned, self.launches, self.graph_launches, self.captured = 0, 0, 0, 0, 0
        self.fail_allocations = 0  # so many of the next fail, for want of memory
        self.lose_after = -1  # launches until the device is lost
        self.capturable, self.kept = True, 0  # whether engines let themselves be captured; times that they kept code
        self._lost = False

    # ---- memory ----

    def memory(self) -> tuple[int, int]:
        whole = self._capacity if self._held is None else self._held
        return whole - sum(size for at, size in self.blocks.items() if at not in self.mapped), whole

    def allocate(self, size: int) -> int:
        self._outside_capture("memory is allocated")
        self._alive()
        if self.fail_allocations:
            self.fail_allocations -= 1
            raise DeviceMemoryError("the next allocation fails")
        rounded = -(-size // ALIGN) * ALIGN + ALIGN  # with a gap behind it, so that what runs over shows
        at = 0
        for start, length in sorted(self.blocks.items()):
            if start - at >= rounded:
                break
            at = start + length
        taken = sum(length for start, length in self.blocks.items() if start not in self.mapped)
        if at + rounded > self._capacity or (self._held is not None and taken + rounded > self._held):
            raise DeviceMemoryError(f"{size} bytes of the device's memory are not there")
        self.blocks[at] = rounded
        self.allocations += 1
        self._mark(at, size, MAPPED)
        return self._base + at

    def allocate_mapped(self, size: int) -> int:
        """Of the same arena, but of the host: it does not count as the device's."""
        held, self._held = self._held, None
        try:
            address = self.allocate(size)
        finally:
            self._held = held
        self.mapped.add(address - self._base)
        return address

    def free_mapped(self, address: int) -> None:
        self.mapped.discard(address - self._base)
        self.free(address)

    def free(self, address: int) -> None:
        self._outside_capture("memory is freed")
        at = address - self._base
        if at not in self.blocks:
            raise MisuseError("memory is given back twice, or was never given")
        self._mark(at, self.blocks.pop(at), 0)

    def _mark(self, at: int, size: int, state: int) -> None:
        place = slice(self._start + at, self._start + at + size)
        self.memory_.bytes[place] = 0xFF
        self.memory_.state[place] = state

    def allocate_host(self, size: int) -> Array:
        self._outside_capture("pinned memory is allocated")
        self.pinned += 1
        return np.full(size, 0xFF, np.uint8)

    def _place(self, address: int, size: int) -> slice:
        start = address - self._base + self._start
        if start < 0 or start + size > self.memory_.bytes.size or (self.memory_.state[start : start + size] == 0).any():
            raise MisuseError(f"{size} bytes at {address:#x} are not memory that was given")
        return slice(start, start + size)

    def read(self, address: int, size: int) -> bytes:
        place = self._place(address, size)
        if (self.memory_.state[place] != WRITTEN).any():
            raise MisuseError(f"{size} bytes at {address:#x} are read before they were written")
        return bytes(self.memory_.bytes[place].tobytes())

    def write(self, address: int, data: Any) -> None:
        place = self._place(address, len(data))
        self.memory_.bytes[place] = np.frombuffer(data, np.uint8)
        self.memory_.state[place] = WRITTEN

    # ---- streams and events ----

    def stream(self) -> Stream:
        self._streams.append(Stream(len(self._streams), self._random.random() ** 4 + 0.005))
        return self._streams[-1]

    def number(self, stream: Stream) -> int:
        return FIRST_STREAM + stream.number

    def foreign(self, number: int) -> Stream:
        """Streams of others are streams of the tests', but for the two that every program has."""
        if number in (1, 2):
            if number not in self._default:
                self._default[number] = self.stream()
            return self._default[number]
        if not 0 <= number - FIRST_STREAM < len(self._streams):
            raise MisuseError(f"there is no stream {number}")
        return self._streams[number - FIRST_STREAM]

    def settle(self) -> None:
        self._outside_capture("the host waits")
        while self._step():
            pass
        self._alive()
        if any(stream.queue for stream in self._streams):
            raise MisuseError("the host waits for what can never come")

    def event(self) -> Event:
        return Event()

    def record(self, event: Event, stream: Stream) -> None:
        event.recorded += 1
        self._put(stream, "record", (event, event.recorded))

    def wait(self, stream: Stream, event: Event) -> None:
        if stream.capturing is not None:
            raise MisuseError("a stream that is captured waits for work outside")
        self._put(stream, "wait", (event, event.recorded))

    def synchronize(self, event: Event) -> None:
        self._outside_capture("the host waits")
        while event.come < event.recorded:
            self._alive()
            if not self._step():
                self._alive()
                raise MisuseError("the host waits for an event that can never come")
        self._alive()

    def finished(self, event: Event) -> bool:
        self._outside_capture("the host asks for an event")
        return event.come >= event.recorded

    # ---- copies ----

    def upload(self, stream: Stream, address: int, pinned: Array) -> None:
        assert pinned.dtype == np.uint8
        self._put(stream, "work", lambda: self.write(address, pinned.tobytes()))

    def download(self, stream: Stream, pinned: Array, address: int) -> None:
        assert pinned.dtype == np.uint8

        def work() -> None:
            pinned[:] = np.frombuffer(self.read(address, pinned.size), np.uint8)

        self._put(stream, "work", work)

    def copy(self, stream: Stream, to: int, origin: int, size: int) -> None:
        self._put(stream, "work", lambda: self.write(to, self.read(origin, size)))

    def clear(self, stream: Stream, address: int, size: int) -> None:
        self._put(stream, "work", lambda: self.write(address, bytes(size)))

    # ---- kernels ----

    def load(self, code: Code, use_ptx: bool, entry: str) -> Kernel:
        del use_ptx
        self._outside_capture("code is loaded")
        return Kernel(_ptx(code.ptx, entry), code.shared, code.pointers)

    def launch(
        self,
        stream: Stream,
        kernel: Kernel,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        shared: int,
        arguments: Sequence[bytes],
    ) -> None:
        self.launches += 1
        seed = self._seed * 1000 + self.launches

        def work() -> None:
            Machine(kernel.handle, self.memory_, seed).launch(grid, block, shared, list(arguments))

        self._put(stream, "work", work)

    def begin_capture(self, stream: Stream) -> None:
        self._outside_capture("a second capture begins")
        stream.capturing = []

    def end_capture(self, stream: Stream) -> Graph:
        if stream.capturing is None:
            raise MisuseError("no capture is under way")
        work, stream.capturing = stream.capturing, None
        self.captured += 1
        return Graph(work)

    def launch_graph(self, graph: Graph, stream: Stream) -> None:
        self.graph_launches += 1
        for kind, what in graph.work:
            self._put(stream, kind, what)

    def engine(self, data: bytes, library: str, typed: bytes) -> SimulatedEngine:
        del data, library
        return SimulatedEngine(self, typed)

    # ---- clockwork ----

    def _outside_capture(self, what: str) -> None:
        if any(stream.capturing is not None for stream in self._streams):
            raise MisuseError(f"{what} inside a capture")

    def _alive(self) -> None:
        if self._lost:
            raise LostDeviceError("the GPU is lost")

    def put(self, stream: Stream, work: Callable[[], None]) -> None:
        """Give a stream some work of the tests' own."""
        self._put(stream, "work", work)

    def _put(self, stream: Stream, kind: str, what: Any) -> None:
        self._alive()
        if stream.capturing is not None:
            stream.capturing.append((kind, what))
            return
        stream.queue.append((kind, what))
        while self._random.random() < self._eager and self._step():
            pass

    def _step(self) -> bool:
        """One piece of work of some stream that can go on; False where none can."""
        ready = [s for s in self._streams if s.queue and (s.queue[0][0] != "wait" or _come(s.queue[0][1]))]
        if not ready:
            return False
        kind, what = self._random.choices(ready, [stream.haste for stream in ready])[0].queue.popleft()
        if kind == "record":
            what[0].come = max(what[0].come, what[1])
        elif kind == "work":
            if self.lose_after == 0:
                self._lost = True
                return False
            self.lose_after -= 1
            what()
        return True


def _come(wait: tuple[Event, int]) -> bool:
    return wait[0].come >= wait[1]


class SimulatedEngine:
    """The typed ONNX of an engine, in ONNX Runtime."""

    def __init__(self, driver: SimulatedDriver, typed: bytes) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        self.driver = driver
        self.session = onnxruntime.InferenceSession(typed, options, providers=["CPUExecutionProvider"])

    def scratch_bytes(self, dims: dict[str, tuple[int, ...]]) -> int:
        return 100 + 4 * sum(int(np.prod(shape)) for shape in dims.values())

    def context(self, scratch: int, size: int) -> SimulatedContext:
        return SimulatedContext(self, scratch, size)

    def refit(self, typed: bytes) -> None:
        raise MisuseError("this engine was not built to take other weights")

    def keep(self) -> None:
        self.driver.kept += 1


class SimulatedContext:
    """Runs an engine; its scratch memory is soiled each time, as a real engine's is."""

    def __init__(self, engine: SimulatedEngine, scratch: int, size: int) -> None:
        self._engine, self._scratch, self._size = engine, scratch, size
        self._ran: dict[str, tuple[int, ...]] | None = None
        self._captured: dict[str, tuple[int, ...]] | None = None

    def capturable(self, stream: Stream) -> bool:
        return self._engine.driver.capturable and stream.capturing is None

    def enqueue(self, stream: Stream, addresses: dict[str, int], dims: dict[str, tuple[int, ...]]) -> None:
        session, driver = self._engine.session, self._engine.driver
        places, shapes = dict(addresses), dict(dims)
        if stream.capturing is not None and self._ran != shapes:
            raise MisuseError("an engine is captured that has not run with these dims before")
        if self._captured not in (None, shapes):
            raise MisuseError("a context whose run was captured is given other dims")
        self._ran = shapes
        self._captured = shapes if stream.capturing is not None else self._captured

        def work() -> None:
            if self._size < self._engine.scratch_bytes(shapes):
                raise MisuseError("an engine has too little memory to work in")
            driver.write(self._scratch, b"\xee" * self._size)
            given = {}
            for io in session.get_inputs():
                dtype = DTYPES[ORT_TYPES[io.type]]
                size = int(np.prod(shapes[io.name], dtype=np.int64)) * dtype.itemsize
                given[io.name] = np.frombuffer(driver.read(places[io.name], size), dtype).reshape(shapes[io.name])
            for io, out in zip(session.get_outputs(), session.run(None, given), strict=True):
                driver.write(places[io.name], np.ascontiguousarray(out).tobytes())

        driver.put(stream, work)
