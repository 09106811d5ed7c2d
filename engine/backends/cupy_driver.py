"""The driver of an NVIDIA GPU through CuPy: its thin calls of the runtime and driver API, none of its arrays.

Engines come from the two TensorRT libraries (``backends/tensorrt_engine.py``). Nothing of this has run on a GPU yet.
"""

from __future__ import annotations

import ctypes
import importlib.util
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import numpy as np

from voxelrt.backends.tensorrt_engine import DeviceEngine, load_engine
from voxelrt.backends.tensorrt_libraries import LIBRARIES
from voxelrt.errors import DeviceError, MissingExtraError
from voxelrt.plan.gpu_codes import Code
from voxelrt.runtime.engine_cache import compiled_place
from voxelrt.runtime.gpu_driver import Array, DeviceMemoryError, Handle, Kernel, LostDeviceError

# Of cudaError_t: what says that there is no memory, and what leaves a context of no use.
_NO_MEMORY = (2,)
_NOT_READY = 600
_LOST = (46, 214, 219, 220, 700, 702, 708, 710, 714, 715, 716, 717, 718, 719, 720, 999)
_H2D, _D2H, _D2D = 1, 2, 3
_NON_BLOCKING = 1
_NO_TIMING = 2
_PORTABLE, _MAPPED = 1, 2
_THREAD_LOCAL = 1  # capture: other threads may allocate meanwhile


def device_count() -> int:
    """How many GPUs there are; 0 without CuPy or a driver."""
    if importlib.util.find_spec("cupy") is None:
        return 0
    import cupy

    return int(cupy.cuda.runtime.getDeviceCount()) if cupy.is_available() else 0


class CupyDriver:
    """One GPU. The calling thread's current GPU is afterwards what it was before.

    Parameters
    ----------
    index : which GPU.
    purpose : what it is for, in errors.

    Raises
    ------
    MissingExtraError : CuPy is not installed. DeviceError : there is no such GPU.
    """

    def __init__(self, index: int = 0, purpose: str = "running a plan on a GPU") -> None:
        if importlib.util.find_spec("cupy") is None:
            raise MissingExtraError("cupy", "gpu", purpose)
        import cupy

        if not cupy.is_available():
            raise DeviceError(f"{purpose} needs an NVIDIA GPU and its driver, and none was found")
        self._runtime, self._driver = cupy.cuda.runtime, cupy.cuda.driver
        self._pinned = cupy.cuda.alloc_pinned_memory
        self._errors = (cupy.cuda.runtime.CUDARuntimeError, cupy.cuda.driver.CUDADriverError)
        self.index, self._shared = index, dict[int, int]()
        if not 0 <= index < self._runtime.getDeviceCount():
            raise DeviceError(f"there is no GPU {index}; there are {self._runtime.getDeviceCount()}")
        with self._checked("opening the GPU"):
            self._runtime.free(0)  # makes its context, which the driver's own calls need
        properties = self._runtime.getDeviceProperties(index)
        self.name = properties["name"].decode()
        self.architecture = f"sm_{properties['major']}{properties['minor']}"
        self.driver_version = str(self._runtime.driverGetVersion())

    @contextmanager
    def _checked(self, what: str) -> Iterator[None]:
        before = self.index
        try:
            before = int(self._runtime.getDevice())  # of the calling thread, which torch and others go by
            if before != self.index:
                self._runtime.setDevice(self.index)
            yield
        except self._errors as error:
            status = int(error.status)
            if status in _NO_MEMORY:
                raise DeviceMemoryError(f"{what}: the GPU has no more memory") from error
            if status in _LOST:
                raise LostDeviceError(f"{what}: the GPU is lost ({error}); start the program again") from error
            raise DeviceError(f"{what}: {error}") from error
        finally:
            if before != self.index:
                with suppress(*self._errors):
                    self._runtime.setDevice(before)

    # ---- memory ----

    def memory(self) -> tuple[int, int]:
        with self._checked("asking for memory"):
            free, total = self._runtime.memGetInfo()
        return int(free), int(total)

    def allocate(self, size: int) -> int:
        with self._checked(f"allocating {size} bytes"):
            return int(self._runtime.malloc(size))

    def free(self, address: int) -> None:
        with self._checked("freeing memory"):
            self._runtime.free(address)

    def allocate_mapped(self, size: int) -> int:
        with self._checked(f"allocating {size} bytes of mapped memory"):
            return int(self._runtime.hostAlloc(size, _PORTABLE | _MAPPED))

    def free_mapped(self, address: int) -> None:
        with self._checked("freeing memory"):
            self._runtime.freeHost(address)

    def allocate_host(self, size: int) -> Array:
        with self._checked(f"allocating {size} bytes of pinned memory"):
            return np.frombuffer(self._pinned(size), np.uint8, size)

    # ---- streams and events ----

    def stream(self) -> Handle:
        with self._checked("making a stream"):
            return self._runtime.streamCreateWithFlags(_NON_BLOCKING)

    def number(self, stream: Handle) -> int:
        return int(stream)

    def foreign(self, number: int) -> Handle:
        return number  # cudaStreamLegacy is 1 and cudaStreamPerThread 2

    def settle(self) -> None:
        with self._checked("waiting for the GPU"):
            self._runtime.deviceSynchronize()

    def event(self) -> Handle:
        with self._checked("making an event"):
            return self._runtime.eventCreateWithFlags(_NO_TIMING)

    def record(self, event: Handle, stream: Handle) -> None:
        with self._checked("recording an event"):
            self._runtime.eventRecord(event, stream)

    def wait(self, stream: Handle, event: Handle) -> None:
        with self._checked("waiting for an event"):
            self._runtime.streamWaitEvent(stream, event)

    def synchronize(self, event: Handle) -> None:
        with self._checked("running on the GPU"):
            self._runtime.eventSynchronize(event)

    def finished(self, event: Handle) -> bool:
        with self._checked("running on the GPU"):
            status = self._runtime.eventQuery(event)
        return int(status) != _NOT_READY

    # ---- copies ----

    def upload(self, stream: Handle, address: int, pinned: Array) -> None:
        with self._checked("copying to the GPU"):
            self._runtime.memcpyAsync(address, pinned.ctypes.data, pinned.nbytes, _H2D, stream)

    def download(self, stream: Handle, pinned: Array, address: int) -> None:
        with self._checked("copying from the GPU"):
            self._runtime.memcpyAsync(pinned.ctypes.data, address, pinned.nbytes, _D2H, stream)

    def copy(self, stream: Handle, to: int, origin: int, size: int) -> None:
        with self._checked("copying on the GPU"):
            self._runtime.memcpyAsync(to, origin, size, _D2D, stream)

    def clear(self, stream: Handle, address: int, size: int) -> None:
        with self._checked("clearing memory"):
            self._runtime.memsetAsync(address, 0, size, stream)

    # ---- kernels ----

    def load(self, code: Code, use_ptx: bool, entry: str) -> Kernel:
        with self._checked(f"loading {code.name}"):
            module = self._driver.moduleLoadData(code.ptx.encode() + b"\0" if use_ptx else code.cubin)
            made = int(self._driver.moduleGetFunction(module, entry))
        self._allow_shared(made, code.shared)
        return Kernel(made, code.shared, code.pointers)

    def _allow_shared(self, function: int, size: int) -> None:
        """A kernel that wants more than 48 KiB of shared memory must be allowed it."""
        if size > self._shared.get(function, 48 * 1024):
            with self._checked("asking for shared memory"):
                attribute = self._driver.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
                self._driver.funcSetAttribute(function, attribute, size)
            self._shared[function] = size

    def launch(
        self,
        stream: Handle,
        kernel: Kernel,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        shared: int,
        arguments: Sequence[bytes],
    ) -> None:
        self._allow_shared(kernel.handle, shared)
        held = [ctypes.create_string_buffer(raw, len(raw)) for raw in arguments]
        places = (ctypes.c_void_p * len(held))(*(ctypes.addressof(one) for one in held))
        with self._checked("launching a kernel"):
            # The driver copies the arguments before it returns.
            self._driver.launchKernel(kernel.handle, *grid, *block, shared, stream, ctypes.addressof(places), 0)

    def begin_capture(self, stream: Handle) -> None:
        with self._checked("capturing a graph"):
            self._runtime.streamBeginCapture(stream, _THREAD_LOCAL)

    def end_capture(self, stream: Handle) -> Handle:
        with self._checked("capturing a graph"):
            graph = self._runtime.streamEndCapture(stream)
            return self._runtime.graphInstantiate(graph)

    def launch_graph(self, graph: Handle, stream: Handle) -> None:
        with self._checked("launching a graph"):
            self._runtime.graphLaunch(graph, stream)

    def engine(self, data: bytes, library: str, typed: bytes) -> DeviceEngine:
        del typed
        with self._checked("loading an engine"):
            return load_engine(LIBRARIES[library], data, compiled_place(data, self.name, self.driver_version))
