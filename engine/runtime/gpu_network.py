"""The network of a plan on a GPU: its steps on one stream, in memory that is taken once.

Values between steps share an arena by their lifetimes; engines share one scratch area, since they run one after the
other. A run of the largest batch at the same addresses as before is captured as a graph the second time and replayed
from then on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from voxelrt.errors import PlanError, ShapeError
from voxelrt.plan.gpu_codes import Code
from voxelrt.plan.gpu_steps import EngineStep, GpuLaunch, GpuPart, KernelStep, Pointer
from voxelrt.plan.memory import place_buffers
from voxelrt.runtime.gpu_driver import Driver, EngineContext, Handle, Kernel, LoadedEngine, pointer

ALIGNMENT = 256
MOST_GRAPHS = 16


@dataclass(frozen=True)
class Compiled:
    """What a plan holds for one GPU.

    Parameters
    ----------
    part : the description.
    engines : (library, engine) of each TensorRT step.
    typed : the ONNX of each.
    codes : of the kernels.
    use_ptx : whether the driver compiles the kernels' PTX, since the cubins are for an older GPU.
    constants : that kernel steps read.
    """

    part: GpuPart
    engines: Sequence[tuple[str, bytes]]
    typed: Sequence[bytes]
    codes: Sequence[Code]
    use_ptx: bool
    constants: Sequence[bytes]


def load_engines(driver: Driver, compiled: Compiled) -> dict[int, LoadedEngine]:
    """The engine of each TensorRT step, by the step's number.

    Raises
    ------
    EngineError : one could not be loaded.
    """
    made = {}
    for number, step in enumerate(compiled.part.steps):
        if isinstance(step, EngineStep):
            library, data = compiled.engines[step.part]
            made[number] = driver.engine(data, library, compiled.typed[step.part])
            if compiled.part.build.refit:
                made[number].refit(compiled.typed[step.part])
    return made


@dataclass(frozen=True)
class NetworkMemory:
    """What a network takes of a device.

    Parameters
    ----------
    places : of each value between steps, in the arena.
    arena, scratch, bytes : of the arena, of what steps work in, and of all with the constants.
    """

    places: dict[str, int]
    arena: int
    scratch: int
    bytes: int


def network_memory(compiled: Compiled, batch: int, engines: Mapping[int, LoadedEngine]) -> NetworkMemory:
    """What a network takes for a batch; nothing is allocated."""
    part, lives, scratch = compiled.part, dict[str, tuple[int, int]](), 0
    for number, step in enumerate(part.steps):
        for name in (*step.inputs, *step.outputs):
            if name not in part.profiles and name not in part.outputs:
                lives[name] = (lives.get(name, (number, 0))[0], number)
        if isinstance(step, KernelStep):
            scratch = max(scratch, sum(_aligned(b.bytes) for b in step.buffers if b.kind == "scratch"))
        else:
            dims = {name: part.values[name].dims_at(batch) for name in step.inputs}
            scratch = max(scratch, engines[number].scratch_bytes(dims))
    sizes = [_aligned(part.values[name].bytes_at(batch)) for name in lives]
    offsets, arena = place_buffers(sizes, list(lives.values()))
    constants = sum(map(len, compiled.constants))
    return NetworkMemory(dict(zip(lives, offsets, strict=True)), arena, scratch, arena + scratch + constants)


class GpuNetwork:
    """A network that is ready to run.

    Parameters
    ----------
    driver : of the GPU.
    compiled : for it.
    batch : items in one run at most.
    engines : from ``load_engines``.

    Raises
    ------
    DeviceMemoryError : the GPU has not so much memory; what was taken is given back.
    EngineError, DeviceError : an engine or a kernel could not be loaded. PlanError : the plan is damaged.
    """

    def __init__(self, driver: Driver, compiled: Compiled, batch: int, engines: Mapping[int, LoadedEngine]) -> None:
        self.part, self.batch = compiled.part, batch
        self._driver, self._compiled, self._engines = driver, compiled, engines
        self._taken: list[int] = []
        self._kernels: dict[tuple[int, str], Kernel] = {}
        self._seen: dict[tuple[int, ...], int] = {}
        self._graphs: dict[tuple[int, ...], Handle] = {}
        self._kept = False
        try:
            self._load()
        except BaseException:
            self.close()
            raise

    def _load(self) -> None:
        compiled, part = self._compiled, self.part
        self._constants = [self._constant(data) for data in compiled.constants]
        memory = network_memory(compiled, self.batch, self._engines)
        self._places, self.bytes = memory.places, memory.bytes
        self._arena, self._scratch = self._take(memory.arena), self._take(memory.scratch)
        # A captured run keeps its context to itself: another shape set on it would be the graph's too.
        self._contexts: dict[tuple[int, bool], EngineContext] = {}
        for number, engine in self._engines.items():
            for full in (True, False):
                self._contexts[number, full] = engine.context(self._scratch, memory.scratch)
        for step in part.steps:
            for launch in step.launches if isinstance(step, KernelStep) else ():
                self._kernel(launch)

    def _kernel(self, launch: GpuLaunch) -> Kernel:
        key = (launch.code, launch.entry)
        if key not in self._kernels:
            if launch.code >= len(self._compiled.codes):
                raise PlanError("the plan is damaged: number of its kernels")
            code = self._compiled.codes[launch.code]
            self._kernels[key] = self._driver.load(code, self._compiled.use_ptx, launch.entry or code.entry)
        return self._kernels[key]

    def _constant(self, data: bytes) -> int:
        """A constant in the device's memory, once and for all."""
        address = self._take(len(data))
        pinned = self._driver.allocate_host(max(len(data), 1))
        pinned[: len(data)] = bytearray(data)
        stream, event = self._driver.stream(), self._driver.event()
        self._driver.upload(stream, address, pinned[: len(data)])
        self._driver.record(event, stream)
        self._driver.synchronize(event)
        return address

    def _take(self, size: int) -> int:
        address = self._driver.allocate(max(size, 1))
        self._taken.append(address)
        return address

    def close(self) -> None:
        """Give all memory back; nothing that was launched may still use it."""
        if self._seen:
            self._keep()
        while self._taken:
            self._driver.free(self._taken.pop())
        self._graphs.clear()

    # ---- runs ----

    def run(self, stream: Handle, addresses: Mapping[str, int], batch: int) -> None:
        """Put a run in a stream.

        Parameters
        ----------
        addresses : of the plan's inputs and outputs.
        batch : items in it.

        Raises
        ------
        ShapeError : more items than the network was made for, or than the plan takes.
        EngineError, DeviceError : a step could not be launched.
        """
        least, most = self.part.batches
        if not least <= batch <= min(most, self.batch):
            raise ShapeError(f"a batch of {batch}: the plan takes {least} to {min(most, self.batch)}")
        key = (batch, *(addresses[name] for name in (*self.part.profiles, *self.part.outputs)))
        if key in self._graphs:
            self._driver.launch_graph(self._graphs[key], stream)
            return
        seen = self._seen.get(key, 0)
        if batch == self.batch and seen and len(self._graphs) < MOST_GRAPHS and self._capturable(stream):
            self._driver.begin_capture(stream)
            try:
                self._put(stream, addresses, batch)
            finally:
                graph = self._driver.end_capture(stream)
            self._graphs[key] = graph
            self._driver.launch_graph(graph, stream)
            self._keep()
            return
        if len(self._seen) < 1024:
            self._seen[key] = seen + 1
        self._put(stream, addresses, batch)

    def _capturable(self, stream: Handle) -> bool:
        return all(self._contexts[number, True].capturable(stream) for number in self._engines)

    def _keep(self) -> None:
        """What the engines compiled for themselves on the way is kept once: when they are through with it."""
        if not self._kept:
            self._kept = True
            for engine in self._engines.values():
                engine.keep()

    def _put(self, stream: Handle, addresses: Mapping[str, int], batch: int) -> None:
        place = {name: self._arena + offset for name, offset in self._places.items()} | dict(addresses)
        for number, step in enumerate(self.part.steps):
            if isinstance(step, EngineStep):
                context = self._contexts[number, batch == self.batch]
                dims = {name: self.part.values[name].dims_at(batch) for name in step.inputs}
                context.enqueue(stream, {name: place[name] for name in (*step.inputs, *step.outputs)}, dims)
            else:
                for item in range(batch if step.repeated else 1):
                    self._put_kernels(stream, step, place, item)

    def _put_kernels(self, stream: Handle, step: KernelStep, place: Mapping[str, int], item: int) -> None:
        at, scratch = list[int](), self._scratch
        for buffer in step.buffers:
            if buffer.kind == "value":
                value = self.part.values[buffer.value]
                at.append(place[buffer.value] + (item * value.item_bytes if value.batched else 0))
            elif buffer.kind == "constant":
                if buffer.constant >= len(self._constants):
                    raise PlanError("the plan is damaged: constants of its kernels")
                at.append(self._constants[buffer.constant])
            else:
                at.append(scratch)
                scratch += _aligned(buffer.bytes)
        for launch in step.launches:
            kernel = self._kernel(launch)
            arguments = [
                pointer(at[a.buffer] + a.offset) if isinstance(a, Pointer) else a.bytes for a in launch.arguments
            ]
            arguments += [pointer(0)] * kernel.pointers
            shared = launch.shared if kernel.shared < 0 else kernel.shared
            self._driver.launch(stream, kernel, launch.grid, launch.block, shared, arguments)


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
