"""What the scheduler asks of a device: buffers, streams, events, copies and launches.

A stream does what it is given in order; streams know nothing of each other but what events tell them. Nothing is done
when a call returns: only ``synchronize`` makes the host wait. A device that does its work at once, as the CPU does,
keeps the same promises.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

Array: TypeAlias = NDArray[Any]


class Buffer(Protocol):
    """Memory of a device, as an array of C order."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def nbytes(self) -> int: ...

    def rows(self, first: int, count: int) -> Buffer:
        """A view of some of the first axis; it is never released itself."""


class Stream(Protocol):
    """What is done in order."""


class Event(Protocol):
    """A mark in a stream."""


class Device(Protocol):
    """One processor with memory of its own.

    ``in_flight`` is how many batches are worth having under way at once: one where work is done when it is given.
    """

    name: str
    in_flight: int

    def stream(self, name: str) -> Stream:
        """A new stream; the name is for traces."""

    def end(self, stream: Stream) -> None:
        """The stream is given nothing more; what it was given is done first."""

    def event(self) -> Event:
        """An event that nothing has recorded: nobody waits for it."""

    def record(self, stream: Stream, event: Event) -> None:
        """The event comes when all that the stream was given so far is done."""

    def wait(self, stream: Stream, event: Event) -> None:
        """What the stream is given from now on waits for the event's last record."""

    def synchronize(self, event: Event) -> None:
        """Make the host wait for the event's last record; raise what failed on the way there."""

    def empty(self, shape: Sequence[int], dtype: DTypeLike) -> Buffer:
        """New memory, its contents undefined. Raises MemoryError."""

    def upload(self, stream: Stream, array: Array) -> Buffer:
        """An array of the host in the device's memory; it must not change before the copy is done."""

    def update(self, stream: Stream, buffer: Buffer, array: Array, planes: slice) -> None:
        """Copy these planes (the second axis) of an array of the host to a buffer that ``upload`` made of it."""

    def download(self, stream: Stream, buffer: Buffer, into: Array) -> None:
        """Copy to an array of the host, which must not be read before the copy is done."""

    def launch(self, stream: Stream, work: Callable[[Stream], None]) -> None:
        """Give the stream some work: a function that computes (CPU), or that puts a kernel in the stream (GPU)."""

    def release(self, buffer: Buffer) -> None:
        """Give memory back; nothing that was launched may still use it."""


def nbytes(shape: Sequence[int], dtype: DTypeLike) -> int:
    """The bytes of an array."""
    return int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
