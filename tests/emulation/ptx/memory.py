"""Memory that checks every access: bounds, alignment, whether anybody wrote what is read, and races."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.emulation.ptx.errors import OutOfBoundsError, RaceError, UninitialisedError

Vector = Any
_ALIGN = 256
_GAP = 4096
MAPPED, WRITTEN = 1, 2


class GlobalMemory:
    """All buffers of a program in one arena with gaps between them, at addresses that no other space has."""

    BASE = 0x7F00_0000_0000

    def __init__(self, buffers: list[tuple[bytes, Any]]) -> None:
        """``buffers``: first bytes and, for each byte, whether it is defined."""
        self.starts: list[int] = []
        end = _GAP
        for data, _ in buffers:
            self.starts.append(end)
            end = -(-(end + len(data) + _GAP) // _ALIGN) * _ALIGN
        self.bytes = np.full(end, 0xFF, np.uint8)
        self.state = np.zeros(end, np.uint8)
        self.sizes = [len(data) for data, _ in buffers]
        for start, (data, defined) in zip(self.starts, buffers, strict=True):
            self.bytes[start : start + len(data)] = np.frombuffer(data, np.uint8)
            self.state[start : start + len(data)] = np.where(defined, WRITTEN, MAPPED)
        self.writer = np.full(end, -1, np.int32)

    def address(self, buffer: int) -> int:
        """Where a buffer begins."""
        return self.BASE + self.starts[buffer]

    def contents(self, buffer: int) -> Any:
        """The bytes of a buffer."""
        return self.bytes[self.starts[buffer] : self.starts[buffer] + self.sizes[buffer]]

    def begin_launch(self) -> None:
        """What one launch wrote, the next may read from any block."""
        self.writer[:] = -1

    def load(self, addresses: Vector, dtype: Any, block: int) -> Vector:
        """What active lanes read."""
        places = self._places(addresses, dtype, "read")
        index = places * np.dtype(dtype).itemsize
        self._written(places, dtype)
        self._alone(index, block, "reads what another wrote in this launch")
        return self.bytes.view(dtype)[places]

    def store(self, addresses: Vector, values: Vector, block: int) -> None:
        """Active lanes write."""
        places = self._places(addresses, values.dtype, "write")
        index = places * values.dtype.itemsize
        self._alone(index, block, "writes what another wrote")
        self.writer[index] = block
        view = self.bytes.view(values.dtype)
        view[places] = values
        _agree(view[places], values)
        _mark(self.state, places, values.dtype)

    def atomic(self, address: Any, dtype: Any) -> tuple[Any, int]:
        """A view of the elements and the place of one, for an operation that reads and writes it at once."""
        places = self._places(np.asarray([address], np.uint64), dtype, "update")
        self._written(places, dtype)
        return self.bytes.view(dtype), int(places[0])

    def _places(self, addresses: Vector, dtype: Any, what: str) -> Vector:
        size = np.dtype(dtype).itemsize
        offsets = (addresses - np.uint64(self.BASE)).astype(np.int64)
        bad = (offsets < 0) | (offsets > self.bytes.size - size)
        if not bad.any():
            mapped = self.state[offsets] == 0
            bad = mapped | (self.state[offsets + (size - 1)] == 0)
        if bad.any():
            raise OutOfBoundsError(f"{what} of {size} bytes {self._where(int(offsets[bad][0]))}")
        if (offsets % size).any():
            raise OutOfBoundsError(f"{what} of {size} bytes at an address that is not aligned to them")
        return offsets // size

    def _alone(self, index: Vector, block: int, what: str) -> None:
        other = self.writer[index]
        if ((other != -1) & (other != block)).any():
            raise RaceError(f"block {block} {what}: blocks have no order")

    def _where(self, offset: int) -> str:
        number = max((i for i, start in enumerate(self.starts) if start <= offset), default=0)
        return f"{offset - self.starts[number]} bytes into buffer {number} of {self.sizes[number]} bytes"

    def _written(self, places: Vector, dtype: Any) -> None:
        size = np.dtype(dtype).itemsize
        states = self.state.view(f"u{size}")[places]
        missing = states != int.from_bytes(bytes([WRITTEN]) * size, "little")
        if missing.any():
            raise UninitialisedError(f"read {self._where(int(places[missing][0]) * size)}, which nobody wrote")


class SharedMemory:
    """A block's shared memory. Between two barriers a byte may be written by one warp or read by any, not both.

    Several warps may write the same value to a byte, as compilers let them where a tile is smaller than the block; then
    none of them may read it before a barrier either.
    """

    _SEVERAL = -2

    BASE = 0x1_0000_0000  # where the generic address space shows it

    def __init__(self, nbytes: int) -> None:
        size = -(-nbytes // 16) * 16
        self.nbytes = nbytes
        self.bytes = np.full(size, 0xFF, np.uint8)
        self.state = np.full(size, MAPPED, np.uint8)
        self.pending = np.zeros(size, np.uint8)
        self.writer = np.full(size, -1, np.int16)
        self.readers = np.zeros(size, np.uint64)

    def barrier(self) -> None:
        """Everything before is ordered before everything after."""
        self.writer[:] = -1
        self.readers[:] = 0

    def load(self, addresses: Vector, dtype: Any, warp: int) -> Vector:
        """What active lanes read."""
        places, index = self._places(addresses, dtype, "read")
        size = np.dtype(dtype).itemsize
        if (self.state.view(f"u{size}")[places] != int.from_bytes(bytes([WRITTEN]) * size, "little")).any():
            raise UninitialisedError("read of shared memory that nobody wrote")
        if self.pending[index].any():
            raise UninitialisedError("read of shared memory before cp.async.wait_group")
        other = self.writer[index]
        self._race((other != -1) & (other != warp), index, f"warp {warp} reads what warp {other.max()} writes")
        self.readers[index] |= np.uint64(1 << warp)
        return self.bytes.view(dtype)[places]

    def store(self, addresses: Vector, values: Vector, warp: int) -> None:
        """Active lanes write."""
        places, _ = self.claim(addresses, values.dtype, warp, values)
        view = self.bytes.view(values.dtype)
        view[places] = values
        _agree(view[places], values)
        _mark(self.state, places, values.dtype)

    def claim(self, addresses: Vector, dtype: Any, warp: int, values: Vector | None = None) -> tuple[Vector, Vector]:
        """The part of a store that finds races; alone, without values, where a copy begins that ends later."""
        places, index = self._places(addresses, dtype, "write")
        if self.pending[index].any():
            raise RaceError("write of shared memory that cp.async is still copying to")
        writer, readers = self.writer[index], self.readers[index]
        other = (writer != -1) & (writer != warp)
        if other.any():
            same = False if values is None else self.bytes[index] == np.ascontiguousarray(values).view(np.uint8)
            self._race(other & ~np.asarray(same), index, f"warps {warp} and {writer.max()} write")
        self._race((readers & ~np.uint64(1 << warp)) != 0, index, f"warp {warp} writes what another warp reads")
        self.writer[index] = np.where(other, self._SEVERAL, warp)
        return places, index

    def atomic(self, address: Any, dtype: Any) -> tuple[Any, int]:
        """A view of the elements and the place of one; atomics do not race with each other."""
        places, _ = self._places(np.asarray([address], np.uint64), dtype, "update")
        return self.bytes.view(dtype), int(places[0])

    def _race(self, bad: Vector, index: Vector, what: str) -> None:
        if bad.any():
            raise RaceError(f"{what} at byte {int(index[bad][0])} of shared memory, with no barrier between")

    def _places(self, addresses: Vector, dtype: Any, what: str) -> tuple[Vector, Vector]:
        size = np.dtype(dtype).itemsize
        offsets = addresses.astype(np.int64)
        bad = (offsets < 0) | (offsets + size > self.nbytes)
        if bad.any():
            raise OutOfBoundsError(
                f"{what} of {size} bytes at byte {int(offsets[bad][0])} of {self.nbytes} of shared memory"
            )
        if (offsets % size).any():
            raise OutOfBoundsError(f"{what} of {size} bytes of shared memory at an address that is not aligned to them")
        # Races are kept for each byte; an access is known by all of its bytes.
        return offsets // size, (offsets[:, None] + np.arange(size)).ravel()


def _mark(state: Any, places: Vector, dtype: Any) -> None:
    size = np.dtype(dtype).itemsize
    state.view(f"u{size}")[places] = int.from_bytes(bytes([WRITTEN]) * size, "little")


def _agree(stored: Vector, values: Vector) -> None:
    """Two lanes of one store that write different values to one place leave either."""
    size = values.dtype.itemsize
    if (stored.view(f"u{size}") != values.view(f"u{size}")).any():
        raise RaceError("two lanes of one warp write different values to one place")
