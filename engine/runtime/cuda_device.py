"""A GPU under the scheduler: buffers from a pool, pinned staging, streams and events of a driver.

Nothing is allocated once a study of the same sizes has gone through: memory of the device and pinned memory of the host
go back to pools by size. Copies to the host land in pinned memory and reach their array when the host waits for an
event that was recorded behind them, so the host never waits for a copy by itself.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from voxelrt.runtime.device import Array, Buffer, Event, Stream, nbytes
from voxelrt.runtime.gpu_driver import Driver, Handle, LostDeviceError

GRAIN = 1 << 16  # sizes are rounded up to it, so that blocks fit the next study of nearly the same size


@dataclass(frozen=True, eq=False)
class CudaBuffer:
    """Memory of the device, as an array of C order."""

    address: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    block: int  # bytes taken from a pool; 0 for a view
    mapped: bool = False  # in the host's memory, which kernels reach slowly

    @property
    def nbytes(self) -> int:
        return nbytes(self.shape, self.dtype)

    def rows(self, first: int, count: int) -> CudaBuffer:
        step = nbytes(self.shape[1:], self.dtype)
        return CudaBuffer(self.address + first * step, (count, *self.shape[1:]), self.dtype, 0)


@dataclass(eq=False)
class CudaStream:
    """A stream, and the copies to the host that it was given and no event marks yet."""

    handle: Handle
    name: str
    downloads: list[_Staged] = field(default_factory=list)


@dataclass(eq=False)
class CudaEvent:
    """An event, whether anything recorded it, and the copies to the host that are done when it has come."""

    handle: Handle
    recorded: bool = False
    downloads: list[_Staged] = field(default_factory=list)


@dataclass(eq=False)
class _Staged:
    """Pinned memory that a copy goes through."""

    pinned: Array
    size: int
    into: Array | None = None  # of the host, for a copy that comes down


def buffer_of(buffer: Buffer) -> CudaBuffer:
    """A buffer of this device."""
    if not isinstance(buffer, CudaBuffer):
        raise TypeError(f"a {type(buffer).__name__} is no memory of a GPU")
    return buffer


def handle_of(stream: Stream) -> Handle:
    """The driver's handle of a stream of this device."""
    return _stream(stream).handle


def _stream(stream: Stream) -> CudaStream:
    if not isinstance(stream, CudaStream):
        raise TypeError(f"a {type(stream).__name__} is no stream of a GPU")
    return stream


def _event(event: Event) -> CudaEvent:
    if not isinstance(event, CudaEvent):
        raise TypeError(f"a {type(event).__name__} is no event of a GPU")
    return event


class CudaDevice:
    """A GPU, on a driver. All calls come from one thread.

    Raises
    ------
    LostDeviceError : by any call, once the GPU does not answer any more.
    """

    in_flight = 2

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.name = f"{driver.name} ({driver.architecture})"
        self._free: dict[int, list[int]] = defaultdict(list)
        self._mapped: dict[int, list[int]] = defaultdict(list)
        self._pinned: dict[int, list[Array]] = defaultdict(list)
        self._uploads: list[tuple[CudaEvent, _Staged]] = []

    # ---- the protocol ----

    def stream(self, name: str) -> Stream:
        return CudaStream(self.driver.stream(), name)

    def end(self, stream: Stream) -> None:
        """Wait for what the stream was given; on a lost device nothing is left to wait for."""
        with suppress(LostDeviceError):
            last = self.event()
            self.record(stream, last)
            self.synchronize(last)

    def event(self) -> Event:
        return CudaEvent(self.driver.event())

    def record(self, stream: Stream, event: Event) -> None:
        mine, mark = _stream(stream), _event(event)
        self.driver.record(mark.handle, mine.handle)
        mark.recorded = True
        mark.downloads += mine.downloads
        mine.downloads = []

    def wait(self, stream: Stream, event: Event) -> None:
        mark = _event(event)
        if mark.recorded:
            self.driver.wait(_stream(stream).handle, mark.handle)

    def synchronize(self, event: Event) -> None:
        mark = _event(event)
        if not mark.recorded:
            return
        self.driver.synchronize(mark.handle)
        for staged in mark.downloads:
            if staged.into is not None:
                staged.into[...] = staged.pinned[: staged.size].view(staged.into.dtype).reshape(staged.into.shape)
            self._give_pinned(staged)
        mark.downloads = []

    def empty(self, shape: Sequence[int], dtype: DTypeLike) -> CudaBuffer:
        size = _rounded(nbytes(shape, dtype))
        address = self._free[size].pop() if self._free[size] else self._allocate(size)
        return CudaBuffer(address, tuple(shape), np.dtype(dtype), size)

    def empty_mapped(self, shape: Sequence[int], dtype: DTypeLike) -> CudaBuffer:
        """Memory of the host that kernels reach, for what the device has no room for. Raises MemoryError."""
        size = _rounded(nbytes(shape, dtype))
        kept = self._mapped[size]
        address = kept.pop() if kept else self.driver.allocate_mapped(size)
        return CudaBuffer(address, tuple(shape), np.dtype(dtype), size, mapped=True)

    def upload(self, stream: Stream, array: Array) -> CudaBuffer:
        buffer = self.empty(array.shape, array.dtype)
        try:
            self._send(stream, buffer.address, array)
        except MemoryError:
            self.release(buffer)
            raise
        return buffer

    def update(self, stream: Stream, buffer: Buffer, array: Array, planes: slice) -> None:
        whole, first = buffer_of(buffer), planes.indices(array.shape[1])[0]
        plane = nbytes(array.shape[2:], array.dtype)
        for channel in range(array.shape[0]):
            ahead = (channel * array.shape[1] + first) * plane
            self._send(stream, whole.address + ahead, array[channel, planes])

    def _send(self, stream: Stream, address: int, array: Array) -> None:
        """Copy an array to the device through pinned memory."""
        staged, mine = self._take_pinned(array.nbytes), _stream(stream)
        staged.pinned[: staged.size] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        self.driver.upload(mine.handle, address, staged.pinned[: staged.size])
        done = CudaEvent(self.driver.event(), recorded=True)
        self.driver.record(done.handle, mine.handle)
        self._uploads.append((done, staged))

    def download(self, stream: Stream, buffer: Buffer, into: Array) -> None:
        mine, source = _stream(stream), buffer_of(buffer)
        staged = self._take_pinned(source.nbytes)
        staged.into = into
        self.driver.download(mine.handle, staged.pinned[: staged.size], source.address)
        mine.downloads.append(staged)

    def launch(self, stream: Stream, work: Callable[[Stream], None]) -> None:
        work(stream)

    def release(self, buffer: Buffer) -> None:
        mine = buffer_of(buffer)
        (self._mapped if mine.mapped else self._free)[mine.block].append(mine.address)

    # ---- pools ----

    def trim(self) -> None:
        """Give memory that is in no use back to the driver."""
        for size in list(self._free):
            for address in self._free.pop(size):
                self.driver.free(address)
        for size in list(self._mapped):
            for address in self._mapped.pop(size):
                self.driver.free_mapped(address)

    def _allocate(self, size: int) -> int:
        """New memory; blocks of other sizes that nobody uses go first where there is none. Raises MemoryError."""
        try:
            return self.driver.allocate(size)
        except MemoryError:
            self.trim()
            return self.driver.allocate(size)

    def _take_pinned(self, size: int) -> _Staged:
        self._collect()
        rounded = _rounded(size)
        kept = self._pinned[rounded]
        return _Staged(kept.pop() if kept else self.driver.allocate_host(rounded), size)

    def _give_pinned(self, staged: _Staged) -> None:
        self._pinned[staged.pinned.size].append(staged.pinned)

    def _collect(self) -> None:
        """Take pinned memory back whose copy to the device is through."""
        left = []
        for done, staged in self._uploads:
            if self.driver.finished(done.handle):
                self._give_pinned(staged)
            else:
                left.append((done, staged))
        self._uploads = left


def _rounded(size: int) -> int:
    return max(1, -(-size // GRAIN)) * GRAIN
