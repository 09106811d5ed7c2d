"""Memory of outputs that stay on a GPU: out on loan until its readers let go of it, then used again.

Who reads an output does so on a stream of its own, and may let go of it while that stream still has to read. So each
stream that was told of an output marks where it is when the output comes back, and what is next written there waits for
those marks. Where nobody said which stream reads, everything on the device is waited for instead.
"""

from __future__ import annotations

from collections import defaultdict, deque
from contextlib import suppress
from dataclasses import dataclass, field

from voxelrt.errors import DeviceError
from voxelrt.plan.dlpack import NO_SYNC, DeviceArray, Lease
from voxelrt.plan.gpu_steps import DTYPES, GpuValue
from voxelrt.runtime.gpu_driver import Driver, Handle

GRAIN = 1 << 16


@dataclass(eq=False)
class _Block:
    """Memory, the event behind what writes it, and those of its last readers; ``unknown``: there may be others."""

    address: int
    size: int
    written: Handle
    marks: list[Handle] = field(default_factory=list)
    waits: int = 0  # so many of the marks count
    unknown: bool = False


class GpuOutputs:
    """The outputs of one network.

    Parameters
    ----------
    driver : of the GPU.
    stream : that writes them.
    """

    def __init__(self, driver: Driver, stream: Handle) -> None:
        self._driver, self._stream = driver, stream
        self._free: dict[int, list[_Block]] = defaultdict(list)
        self._back: deque[_Block] = deque()  # from any thread
        self._closed = False

    def give(self, origin: int, value: GpuValue, batch: int) -> DeviceArray:
        """A copy, made by the stream, of what the stream left at an address. Raises DeviceMemoryError."""
        driver, dims = self._driver, value.dims_at(batch)
        block = self._take(value.bytes_at(batch))
        if value.bytes_at(batch):
            driver.copy(self._stream, block.address, origin, value.bytes_at(batch))
        driver.record(block.written, self._stream)
        lease = Lease(lambda readers: self._came_back(block, readers))
        return DeviceArray(
            lease,
            block.address,
            dims,
            DTYPES[value.dtype],
            driver.index,
            driver.number(self._stream),
            lambda number: driver.wait(driver.foreign(number), block.written),
        )

    def close(self) -> None:
        """Give back what nobody reads; the rest follows when it comes back."""
        self._closed = True
        self._drain()

    def _take(self, size: int) -> _Block:
        while self._back:
            block = self._back.popleft()
            self._free[block.size].append(block)
        rounded = max(1, -(-size // GRAIN)) * GRAIN
        block = self._free[rounded].pop() if self._free[rounded] else self._new(rounded)
        if block.unknown:
            self._driver.settle()
        for mark in block.marks[: block.waits]:
            self._driver.wait(self._stream, mark)
        block.waits, block.unknown = 0, False
        return block

    def _new(self, size: int) -> _Block:
        try:
            address = self._driver.allocate(size)
        except MemoryError:
            self._drain()  # of other sizes
            address = self._driver.allocate(size)
        return _Block(address, size, self._driver.event())

    def _came_back(self, block: _Block, readers: set[int]) -> None:
        """Any thread's, perhaps while Python collects garbage: nothing is waited for, and no lock is taken."""
        driver = self._driver
        block.unknown = NO_SYNC in readers
        try:
            for number in readers - {NO_SYNC}:
                if block.waits == len(block.marks):
                    block.marks.append(driver.event())
                driver.record(block.marks[block.waits], driver.foreign(number))
                block.waits += 1
        except DeviceError:  # the stream is gone, or the GPU
            block.unknown = True
        self._back.append(block)
        if self._closed:
            self._drain()

    def _drain(self) -> None:
        """Free all that is in no use, once nothing on the device can still read it."""
        unused = [block for kept in self._free.values() for block in kept]
        self._free.clear()
        while self._back:
            unused.append(self._back.popleft())
        with suppress(DeviceError):  # a lost GPU has no memory to give back
            if unused:
                self._driver.settle()
            for block in unused:
                self._driver.free(block.address)
