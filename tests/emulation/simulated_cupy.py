"""CuPy and TensorRT, as far as we call them, over the simulated driver: every line that a GPU would run, without one.

What is put in the place of ``cupy`` and ``tensorrt`` has their names, parameters and kinds of results and nothing more;
``tests/gpu_aot/test_api_surface.py`` holds it against the real ones. Handles are whole numbers, as theirs are. An
engine is the typed ONNX that it was built of, in ONNX Runtime; of a cubin the PTX beside it is interpreted.
"""

# ruff: noqa: N802

from __future__ import annotations

import ctypes
import functools
import itertools
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.emulation.ptx.registers import WIDTHS
from tests.emulation.simulated_driver import MisuseError, SimulatedDriver, _ptx
from voxelrt.kernels.common.gpu import cuda_compiler, device
from voxelrt.plan.gpu_codes import Code
from voxelrt.runtime.gpu_driver import DeviceMemoryError, Kernel, LostDeviceError

OUT_OF_MEMORY, INVALID, LOST = 2, 400, 719


class CudaError(RuntimeError):
    """As CuPy's: the status is an attribute."""

    def __init__(self, status: int, words: str = "") -> None:
        super().__init__(f"cudaError {status} {words}")
        self.status = status


class World:
    """One simulated GPU, and what the handles of its program's mean.

    Parameters
    ----------
    driver : the GPU.
    """

    def __init__(self, driver: SimulatedDriver) -> None:
        self.driver = driver
        self.things: dict[int, Any] = {}
        self.numbers = itertools.count(0x7000)
        self.code: dict[bytes, str] = {}  # of a cubin: its PTX
        self.modules: dict[int, str] = {}
        self.current = self.keep(driver.stream())
        self.pushed: list[str] = []

    def keep(self, thing: Any) -> int:
        """A handle for something."""
        handle = next(self.numbers)
        self.things[handle] = thing
        return handle

    def __getitem__(self, handle: int) -> Any:
        if handle in (1, 2):
            return self.driver.foreign(handle)
        if type(handle) is not int or handle not in self.things:
            raise CudaError(INVALID, "no such handle")
        return self.things[handle]

    def view(self, address: int, size: int) -> np.ndarray:
        """Memory of the host at an address, as the copy engines see it."""
        return np.frombuffer((ctypes.c_uint8 * size).from_address(address), np.uint8)


def _told(function: Any) -> Any:
    """Errors of the simulated driver as CuPy's."""

    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except DeviceMemoryError as error:
            raise CudaError(OUT_OF_MEMORY) from error
        except LostDeviceError as error:
            raise CudaError(LOST) from error

    return call


def _runtime(world: World) -> Any:
    gpu = world.driver
    major, minor = int(gpu.architecture[3:-1]), int(gpu.architecture[-1])

    class Runtime:
        CUDARuntimeError = CudaError

        @staticmethod
        @_told
        def setDevice(device: int) -> None:
            if device != 0:
                raise CudaError(101)

        @staticmethod
        @_told
        def getDevice() -> int:
            return 0

        @staticmethod
        @_told
        def deviceSynchronize() -> None:
            gpu.settle()

        @staticmethod
        @_told
        def getDeviceCount() -> int:
            return 1

        @staticmethod
        @_told
        def getDeviceProperties(device: int) -> dict[str, Any]:
            return {"name": b"NVIDIA Simulated", "major": major, "minor": minor}

        @staticmethod
        @_told
        def driverGetVersion() -> int:
            return 13000

        @staticmethod
        @_told
        def memGetInfo() -> tuple[int, int]:
            gpu._alive()
            return gpu.memory()

        @staticmethod
        @_told
        def malloc(size: int) -> int:
            return gpu.allocate(size)

        @staticmethod
        @_told
        def free(ptr: int) -> None:
            if ptr:
                gpu.free(ptr)

        @staticmethod
        @_told
        def hostAlloc(size: int, flags: int) -> int:
            assert flags == 3  # portable and mapped
            return gpu.allocate_mapped(size)

        @staticmethod
        @_told
        def freeHost(ptr: int) -> None:
            gpu.free_mapped(ptr)

        @staticmethod
        @_told
        def memcpyAsync(dst: int, src: int, size: int, kind: int, stream: int) -> None:
            where = world[stream]
            if kind == 1:
                gpu.upload(where, dst, world.view(src, size))
            elif kind == 2:
                gpu.download(where, world.view(dst, size), src)
            else:
                assert kind == 3
                gpu.copy(where, dst, src, size)

        @staticmethod
        @_told
        def memsetAsync(ptr: int, value: int, size: int, stream: int) -> None:
            assert value == 0
            gpu.clear(world[stream], ptr, size)

        @staticmethod
        @_told
        def streamCreateWithFlags(flags: int) -> int:
            assert flags == 1
            return world.keep(gpu.stream())

        @staticmethod
        @_told
        def eventCreateWithFlags(flags: int) -> int:
            assert flags == 2
            return world.keep(gpu.event())

        @staticmethod
        @_told
        def eventRecord(event: int, stream: int) -> None:
            gpu.record(world[event], world[stream])

        @staticmethod
        @_told
        def streamWaitEvent(stream: int, event: int, flags: int = 0) -> None:
            gpu.wait(world[stream], world[event])

        @staticmethod
        @_told
        def eventSynchronize(event: int) -> None:
            gpu.synchronize(world[event])

        @staticmethod
        @_told
        def eventQuery(event: int) -> int:
            return 0 if gpu.finished(world[event]) else 600

        @staticmethod
        @_told
        def streamBeginCapture(stream: int, mode: int = 2) -> None:
            gpu.begin_capture(world[stream])

        @staticmethod
        @_told
        def streamEndCapture(stream: int) -> int:
            return world.keep(gpu.end_capture(world[stream]))

        @staticmethod
        @_told
        def graphInstantiate(graph: int) -> int:
            return world.keep(world[graph])

        @staticmethod
        @_told
        def graphLaunch(graphExec: int, stream: int) -> None:
            gpu.launch_graph(world[graphExec], world[stream])

    return Runtime


def _driver(world: World) -> Any:
    gpu = world.driver

    class Driver:
        CUDADriverError = CudaError
        CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES = 8

        @staticmethod
        @_told
        def moduleLoadData(image: bytes) -> int:
            text = world.code.get(image) if image[:4] == b"\x7fELF" else image.rstrip(b"\0").decode()
            if image[:4] != b"\x7fELF" and image[-1:] != b"\0":
                raise MisuseError("PTX has no zero behind it: the driver reads on")
            if text is None:
                raise CudaError(200, "no kernel image")
            return world.keep(text)

        @staticmethod
        @_told
        def moduleGetFunction(module: int, funcname: str) -> int:
            try:
                return world.keep(_ptx(world[module], funcname))
            except KeyError as error:
                raise CudaError(500, funcname) from error

        @staticmethod
        @_told
        def funcSetAttribute(f: int, attribute: int, value: int) -> None:
            assert attribute == 8
            assert world[f]
            if value > 227 * 1024:
                raise CudaError(1, "shared memory")

        @staticmethod
        @_told
        def launchKernel(
            f: int,
            grid_dim_x: int,
            grid_dim_y: int,
            grid_dim_z: int,
            block_dim_x: int,
            block_dim_y: int,
            block_dim_z: int,
            shared_mem_bytes: int,
            stream: int,
            kernel_params: int,
            extra: int,
        ) -> None:
            assert extra == 0
            kernel = world[f]
            kinds = [kind for kind, _ in kernel.function.parameters.values()]
            places = (ctypes.c_void_p * len(kinds)).from_address(kernel_params)
            arguments = [ctypes.string_at(place, WIDTHS[kind]) for place, kind in zip(places, kinds, strict=True)]
            grid, block = (grid_dim_x, grid_dim_y, grid_dim_z), (block_dim_x, block_dim_y, block_dim_z)
            gpu.launch(world[stream], Kernel(kernel, -1, 0), grid, block, shared_mem_bytes, arguments)

    return Driver


class _Array:
    """The little of ``cupy.ndarray`` that ``kernels/common/gpu/device.py`` calls."""

    def __init__(self, world: World, size: int) -> None:
        self._world, self._size = world, size
        # Memory is poisoned as it comes, and counts as never written: more than 0xFF would show.
        self.data = SimpleNamespace(ptr=world.driver.allocate(size), memset=self._memset)

    def _memset(self, value: int, size: int) -> None:
        assert (value, size) == (0xFF, self._size)

    def set(self, array: np.ndarray) -> None:
        assert array.dtype == np.uint8
        self._world.driver.write(self.data.ptr, array.tobytes())

    def get(self) -> np.ndarray:
        return np.frombuffer(self._world.driver.read(self.data.ptr, self._size), np.uint8).copy()

    def __del__(self) -> None:
        if self._world.driver.blocks:
            self._world.driver.free(self.data.ptr)


def _cupy(world: World) -> ModuleType:
    gpu, runtime, driver = world.driver, _runtime(world), _driver(world)

    class Module:
        def load(self, cubin: bytes) -> None:
            self.handle = driver.moduleLoadData(cubin)

    class Function:
        def __init__(self, module: Module, name: str) -> None:
            self.ptr = driver.moduleGetFunction(module.handle, name)

        def __call__(self, grid: Any, block: Any, args: Any, shared_mem: int = 0) -> None:
            raw = [value.tobytes() for value in args]
            gpu.launch(world[world.current], Kernel(world[self.ptr], -1, 0), grid, block, shared_mem, raw)

    class Stream:
        ptr = world.current

        def synchronize(self) -> None:
            mark = gpu.event()
            gpu.record(mark, world[world.current])
            gpu.synchronize(mark)

    made = ModuleType("cupy")
    cuda = ModuleType("cupy.cuda")
    nvtx: Any = ModuleType("cupy.cuda.nvtx")
    nvtx.RangePush, nvtx.RangePop = world.pushed.append, world.pushed.pop
    parts: dict[str, Any] = {
        "runtime": runtime,
        "driver": driver,
        "nvtx": nvtx,
        "function": SimpleNamespace(Module=Module, Function=Function),
        "Device": lambda: SimpleNamespace(compute_capability=gpu.architecture[3:]),
        "get_current_stream": Stream,
        "alloc_pinned_memory": lambda size: memoryview(gpu.allocate_host(size)),
    }
    for name, part in parts.items():
        setattr(cuda, name, part)
    whole: dict[str, Any] = {
        "cuda": cuda,
        "uint8": np.uint8,
        "is_available": lambda: True,
        "empty": lambda shape, dtype: _Array(world, shape),
    }
    for name, part in whole.items():
        setattr(made, name, part)
    return made


def _tensorrt(world: World) -> ModuleType:
    from tests.emulation import simulated_tensorrt

    return simulated_tensorrt.module(world)


def install(patch: pytest.MonkeyPatch, driver: SimulatedDriver) -> World:
    """Put them in the place of the real ones, for as long as the patch holds."""
    world = World(driver)
    modules = {"cupy": _cupy(world), "tensorrt": _tensorrt(world)}
    modules |= {"cupy.cuda": modules["cupy"].cuda, "cupy.cuda.nvtx": modules["cupy"].cuda.nvtx}
    for name, module in modules.items():
        module.__spec__ = ModuleSpec(name, None)
        patch.setitem(sys.modules, name, module)
    for kind in (cuda_compiler.Compiled, Code):
        _watch(patch, world, kind)
    device.open_device.cache_clear()
    return world


def _watch(patch: pytest.MonkeyPatch, world: World, kind: Any) -> None:
    """Remember the PTX of every cubin that is made or read from a plan."""
    make = kind.__init__

    def made(self: Any, *arguments: Any, **options: Any) -> None:
        make(self, *arguments, **options)
        world.code[self.cubin] = self.ptx

    patch.setattr(kind, "__init__", made)
