"""The CPU as a device of several threads, one a stream: a window is summed while the network sees the next.

Kernels of all streams but the network's run on the one thread of their stream, so that what they take of the processor
is what the network leaves idle: the ends of its steps, and the rests of its work that do not fill all cores.
"""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Callable

from voxelrt.kernels.common import native
from voxelrt.runtime.cpu_device import CpuDevice
from voxelrt.runtime.device import Array, Buffer, Event, Stream

NETWORK = "network"  # the stream that has the compute threads


class _Failure:
    """Told once, by the first event behind it that the host waits for."""

    _numbers = itertools.count(1)

    def __init__(self, error: Exception) -> None:
        self.error, self.told, self.number = error, False, next(self._numbers)


def _newest(one: _Failure | None, other: _Failure | None) -> _Failure | None:
    return max((f for f in (one, other) if f is not None), key=lambda f: f.number, default=None)


class _Event:
    """How often it was recorded, how often that has come, and what failed on the way."""

    def __init__(self) -> None:
        self.recorded = self.come = 0
        self.failure: _Failure | None = None


class _Stream:
    """A thread and its work, in order. After a failure the work goes on: what it spoils is that failure's batch's."""

    def __init__(self, name: str) -> None:
        self.work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self.failure: _Failure | None = None
        self.thread = threading.Thread(target=self._loop, args=(name,), name=f"voxelrt-{name}", daemon=True)
        self.thread.start()

    def _loop(self, name: str) -> None:
        if name == NETWORK:
            self._work()
        else:
            with native.on_pool(native.Pool(1)):
                self._work()

    def _work(self) -> None:
        while (work := self.work.get()) is not None:
            try:
                work()
            except Exception as error:  # noqa: BLE001 - it shows where the host waits
                self.failure = _Failure(error)
            del work  # or what it holds would be held until the next


class ThreadedCpuDevice(CpuDevice):
    """Streams are threads; two batches are under way. A failure is told once, where the host first waits behind it."""

    name = "cpu"
    in_flight = 2

    def __init__(self) -> None:
        self._change = threading.Condition()

    def stream(self, name: str) -> Stream:
        return _Stream(name)

    def event(self) -> Event:
        return _Event()

    def record(self, stream: Stream, event: Event) -> None:
        one, mark = _both(stream, event)
        mark.recorded += 1
        number = mark.recorded

        def come() -> None:
            with self._change:
                mark.come, mark.failure = max(mark.come, number), one.failure
                self._change.notify_all()

        one.work.put(come)

    def wait(self, stream: Stream, event: Event) -> None:
        one, mark = _both(stream, event)
        number = mark.recorded

        def stay() -> None:
            with self._change:
                self._change.wait_for(lambda: mark.come >= number)
                one.failure = _newest(one.failure, mark.failure)

        one.work.put(stay)

    def synchronize(self, event: Event) -> None:
        mark = event
        assert isinstance(mark, _Event)
        with self._change:
            self._change.wait_for(lambda: mark.come >= mark.recorded)
            failure = mark.failure
            if failure is None or failure.told:
                return
            failure.told = True
        raise failure.error

    def download(self, stream: Stream, buffer: Buffer, into: Array) -> None:
        copy = super().download
        _stream(stream).work.put(lambda: copy(stream, buffer, into))

    def launch(self, stream: Stream, work: Callable[[Stream], None]) -> None:
        _stream(stream).work.put(lambda: work(stream))

    def end(self, stream: Stream) -> None:
        """End the stream's thread, once what it was given is done."""
        one = _stream(stream)
        one.work.put(None)
        one.thread.join()


def _stream(stream: Stream) -> _Stream:
    assert isinstance(stream, _Stream)
    return stream


def _both(stream: Stream, event: Event) -> tuple[_Stream, _Event]:
    assert isinstance(event, _Event)
    return _stream(stream), event
