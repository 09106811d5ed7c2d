"""A device that keeps only the promises of the protocol: streams run late, in any order that events allow.

What is launched is queued. Whenever the host calls, or waits, a seeded choice of streams does some of its work. Memory
is NaN (or the largest integer) when it is new and again when it is given back; touching it then is an error. A failure
inside a stream is not raised where it was launched but where the host waits for what came after it, as on a GPU.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from voxelrt.runtime.cpu_device import CpuBuffer
from voxelrt.runtime.device import Array, Buffer, Event, Stream


class MisuseError(Exception):
    """The scheduler broke a promise that a real device would punish by wrong answers."""


@dataclass(eq=False)
class SimulatedEvent:
    """How often it was recorded, how often that has come, what failed before, and how many failures were known then."""

    recorded: int = 0
    come: int = 0
    error: BaseException | None = None
    known: int = 0


@dataclass(eq=False)
class SimulatedStream:
    """Work in order."""

    name: str
    queue: deque[tuple[str, Any]] = field(default_factory=deque)
    error: BaseException | None = None


class SimulatedBuffer(CpuBuffer):
    """An array that knows whether it was given back."""

    def __init__(self, array: Array, owner: SimulatedBuffer | None = None) -> None:
        object.__setattr__(self, "_array", array)
        object.__setattr__(self, "owner", owner or self)
        object.__setattr__(self, "released", False)

    @property
    def array(self) -> Array:  # type: ignore[override]
        if self.owner.released:  # type: ignore[attr-defined]
            raise MisuseError("memory is used after it was given back")
        made: Array = self._array  # type: ignore[attr-defined]
        return made

    @property
    def shape(self) -> tuple[int, ...]:
        made: tuple[int, ...] = self._array.shape  # type: ignore[attr-defined]
        return made

    @property
    def nbytes(self) -> int:
        return int(self._array.nbytes)  # type: ignore[attr-defined]

    def rows(self, first: int, count: int) -> SimulatedBuffer:
        return SimulatedBuffer(self._array[first : first + count], self.owner)  # type: ignore[attr-defined]


class SimulatedDevice:
    """See the module.

    Parameters
    ----------
    seed : of the order in which streams work.
    eager : how much is done at each call of the host, 0 (nothing before it waits) to 1.
    """

    name = "simulated"
    in_flight = 2

    def __init__(self, seed: int, eager: float = 0.3) -> None:
        self._random, self._eager = random.Random(seed), eager
        self._streams: list[SimulatedStream] = []
        self.live: set[SimulatedBuffer] = set()
        self._known = 0  # failures

    # ---- the protocol ----

    def stream(self, name: str) -> Stream:
        made = SimulatedStream(name)
        self._streams.append(made)
        return made

    def end(self, stream: Stream) -> None:
        assert isinstance(stream, SimulatedStream)

    def event(self) -> Event:
        return SimulatedEvent()

    def record(self, stream: Stream, event: Event) -> None:
        assert isinstance(event, SimulatedEvent)
        event.recorded += 1
        self._put(stream, "record", (event, event.recorded))

    def wait(self, stream: Stream, event: Event) -> None:
        assert isinstance(event, SimulatedEvent)
        self._put(stream, "wait", (event, event.recorded))

    def synchronize(self, event: Event) -> None:
        assert isinstance(event, SimulatedEvent)
        while event.come < event.recorded:
            if not self._step():
                raise MisuseError("the host waits for an event that can never come")
        if event.error is not None:
            error, event.error = event.error, None
            if event.known == self._known:
                self._lose_what_is_under_way(error)
            raise error

    def empty(self, shape: Sequence[int], dtype: DTypeLike) -> SimulatedBuffer:
        buffer = SimulatedBuffer(np.empty(tuple(shape), dtype))
        _poison(buffer.array)
        self.live.add(buffer)
        return buffer

    def upload(self, stream: Stream, array: Array) -> SimulatedBuffer:
        buffer = self.empty(array.shape, array.dtype)
        self._put(stream, "work", lambda: np.copyto(buffer.array, array))
        return buffer

    def update(self, stream: Stream, buffer: Buffer, array: Array, planes: slice) -> None:
        assert isinstance(buffer, SimulatedBuffer)
        self._put(stream, "work", lambda: np.copyto(buffer.array[:, planes], array[:, planes]))

    def download(self, stream: Stream, buffer: Buffer, into: Array) -> None:
        assert isinstance(buffer, SimulatedBuffer)
        self._put(stream, "work", lambda: np.copyto(into, buffer.array))

    def launch(self, stream: Stream, work: Callable[[Stream], None]) -> None:
        self._put(stream, "work", lambda: work(stream))

    def release(self, buffer: Buffer) -> None:
        assert isinstance(buffer, SimulatedBuffer)
        if buffer not in self.live:
            raise MisuseError("memory is given back twice, or was never given")
        self.live.remove(buffer)
        _poison(buffer.array)
        object.__setattr__(buffer, "released", True)

    # ---- its clockwork ----

    def _put(self, stream: Stream, kind: str, what: Any) -> None:
        assert isinstance(stream, SimulatedStream)
        stream.queue.append((kind, what))
        while self._random.random() < self._eager and self._step():
            pass

    def _lose_what_is_under_way(self, error: BaseException) -> None:
        """Of what was launched before the host knew of a failure, nothing more is done."""
        for stream in self._streams:
            for kind, what in stream.queue:
                if kind == "record":
                    what[0].come, what[0].error, what[0].known = max(what[0].come, what[1]), error, self._known
            stream.queue.clear()
            stream.error = None
        self._known += 1

    def _step(self) -> bool:
        """One piece of work of some stream that can go on; False where none can."""
        ready = [stream for stream in self._streams if stream.queue and _can_go(stream.queue[0])]
        if not ready:
            return False
        stream = self._random.choice(ready)
        kind, what = stream.queue.popleft()
        if kind == "record":
            event, number = what
            event.come = max(event.come, number)
            event.error, event.known = stream.error, self._known
        elif kind == "wait":
            stream.error = stream.error or what[0].error
        elif stream.error is None:
            try:
                what()
            except Exception as error:  # noqa: BLE001 - a device's failure shows where the host waits
                stream.error = error
        return True


def _can_go(work: tuple[str, Any]) -> bool:
    return work[0] != "wait" or work[1][0].come >= work[1][1]


def _poison(array: Array) -> None:
    if array.dtype.kind == "f":
        array.fill(np.nan)
    else:
        array.fill(np.iinfo(array.dtype).max)
