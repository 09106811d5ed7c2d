"""What we ask of a GPU's driver, and nothing more: memory, copies, streams, events, launches, graphs, engines.

Addresses are whole numbers, sizes bytes. All copies and launches go into a stream and are done later. Between
``begin_capture`` and ``end_capture`` of a stream nothing is done: what it is given becomes a graph; meanwhile no memory
may be allocated or freed and the host may not wait. ``backends/cupy_driver.py`` is the real form; the tests have one
that reorders streams, poisons memory and checks these rules.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from voxelrt.errors import DeviceError
from voxelrt.plan.gpu_codes import Code

Array: TypeAlias = NDArray[Any]
Handle: TypeAlias = Any  # what a driver calls a stream, an event, a graph or a kernel


class DeviceMemoryError(MemoryError):
    """The GPU has no more memory; what was there before is untouched."""


class LostDeviceError(DeviceError):
    """The GPU does not answer any more, or a kernel broke its context: nothing on it can be used again."""


@dataclass(frozen=True)
class Kernel:
    """A loaded entry: the driver's handle, the dynamic shared memory it is launched with (-1: as launches say), and how
    many null pointers follow its arguments."""

    handle: Handle
    shared: int
    pointers: int


class EngineContext(Protocol):
    """An engine's state for runs of one stream."""

    def enqueue(self, stream: Handle, addresses: dict[str, int], dims: dict[str, tuple[int, ...]]) -> None:
        """Put a run in a stream: each input's and output's address, and each input's dims.

        Raises
        ------
        EngineError : the engine refused the dims, or could not be launched.
        """

    def capturable(self, stream: Handle) -> bool:
        """Whether the next run may be captured as a graph."""


class LoadedEngine(Protocol):
    """An engine on the device."""

    def scratch_bytes(self, dims: dict[str, tuple[int, ...]]) -> int:
        """The memory that a run of these inputs works in. Raises EngineError for dims that the engine refuses."""

    def context(self, scratch: int, size: int) -> EngineContext:
        """A context that works in `size` bytes at an address; contexts of one stream may share them."""

    def refit(self, typed: bytes) -> None:
        """Give it the weights of a network of its structure. Raises EngineError."""

    def keep(self) -> None:
        """Keep what was compiled while it ran for the next process."""


class Driver(Protocol):
    """One GPU. Calls come from one thread at a time, but for those of events, which any thread may make."""

    name: str
    architecture: str
    index: int  # among the process's GPUs, as other libraries number them

    def memory(self) -> tuple[int, int]:
        """Bytes that are free, and all there are."""

    def allocate(self, size: int) -> int:
        """Memory of the device, aligned to 256 bytes. Raises DeviceMemoryError."""

    def free(self, address: int) -> None:
        """Give memory back; nothing that was launched may still use it."""

    def allocate_mapped(self, size: int) -> int:
        """Memory of the host that kernels reach by this address, slowly. Raises MemoryError."""

    def free_mapped(self, address: int) -> None: ...

    def allocate_host(self, size: int) -> Array:
        """Pinned memory of the host as bytes, which copies can use while the host goes on. Raises MemoryError."""

    def stream(self) -> Handle: ...

    def number(self, stream: Handle) -> int:
        """A stream as other libraries know it."""

    def foreign(self, number: int) -> Handle:
        """A stream of another library's; 1 is the legacy default stream, 2 that of the calling thread."""

    def settle(self) -> None:
        """Wait for all that anybody gave the device. Raises LostDeviceError, DeviceError."""

    def event(self) -> Handle: ...

    def record(self, event: Handle, stream: Handle) -> None: ...

    def wait(self, stream: Handle, event: Handle) -> None: ...

    def synchronize(self, event: Handle) -> None:
        """Wait for an event. Raises LostDeviceError, DeviceError: what went wrong on the way there."""

    def finished(self, event: Handle) -> bool:
        """Whether an event has come, without waiting."""

    def upload(self, stream: Handle, address: int, pinned: Array) -> None:
        """Copy bytes of pinned memory to the device."""

    def download(self, stream: Handle, pinned: Array, address: int) -> None:
        """Copy to bytes of pinned memory."""

    def copy(self, stream: Handle, to: int, origin: int, size: int) -> None:
        """Copy within the device."""

    def clear(self, stream: Handle, address: int, size: int) -> None:
        """Set bytes to zero."""

    def load(self, code: Code, use_ptx: bool, entry: str) -> Kernel:
        """An entry of some code. Raises DeviceError where the driver refuses the code."""

    def launch(
        self,
        stream: Handle,
        kernel: Kernel,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        shared: int,
        arguments: Sequence[bytes],
    ) -> None:
        """Put a launch in a stream; arguments are the bytes of each."""

    def begin_capture(self, stream: Handle) -> None: ...

    def end_capture(self, stream: Handle) -> Handle:
        """The graph of what the stream was given. Raises DeviceError."""

    def launch_graph(self, graph: Handle, stream: Handle) -> None: ...

    def engine(self, data: bytes, library: str, typed: bytes) -> LoadedEngine:
        """Load an engine of a library; ``typed`` is the ONNX that it was built of.

        Raises
        ------
        EngineError : it is of another GPU or library, or damaged.
        """


def pointer(address: int) -> bytes:
    """An address as an argument."""
    return np.uint64(address).tobytes()
