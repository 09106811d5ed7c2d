"""The CPU as a device: memory is the host's, and work is done when it is given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import DTypeLike

from voxelrt.kernels.common import native
from voxelrt.runtime.device import Array, Buffer, Event, Stream


@dataclass(frozen=True, eq=False)
class CpuBuffer:
    """A NumPy array."""

    array: Array

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    @property
    def nbytes(self) -> int:
        return self.array.nbytes

    def rows(self, first: int, count: int) -> CpuBuffer:
        return CpuBuffer(self.array[first : first + count])


def array_of(buffer: Buffer) -> Array:
    """The array behind a buffer of this device."""
    if not isinstance(buffer, CpuBuffer):
        raise TypeError(f"a {type(buffer).__name__} is no memory of the CPU")
    return buffer.array


class CpuDevice:
    """Does everything at once, on the threads of the kernels: streams and events have nothing left to order."""

    name = "cpu"
    in_flight = 1

    def stream(self, name: str) -> Stream:
        return name

    def end(self, stream: Stream) -> None:
        del stream

    def event(self) -> Event:
        return object()

    def record(self, stream: Stream, event: Event) -> None:
        del stream, event

    def wait(self, stream: Stream, event: Event) -> None:
        del stream, event

    def synchronize(self, event: Event) -> None:
        del event

    def empty(self, shape: Sequence[int], dtype: DTypeLike) -> CpuBuffer:
        return CpuBuffer(native.aligned_empty(tuple(shape), np.dtype(dtype)))

    def upload(self, stream: Stream, array: Array) -> CpuBuffer:
        """The array itself: nothing is copied."""
        del stream
        return CpuBuffer(array)

    def update(self, stream: Stream, buffer: Buffer, array: Array, planes: slice) -> None:
        """The buffer is the array."""
        del stream, buffer, array, planes

    def download(self, stream: Stream, buffer: Buffer, into: Array) -> None:
        del stream
        into[...] = array_of(buffer)

    def launch(self, stream: Stream, work: Callable[[Stream], None]) -> None:
        work(stream)

    def release(self, buffer: Buffer) -> None:
        """The garbage collector does it."""
        del buffer
