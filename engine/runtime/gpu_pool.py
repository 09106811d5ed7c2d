"""Several GPUs: work goes to the one with the least to do; one that was lost gets no more while another is left."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Generic, TypeVar

from voxelrt.runtime.gpu_driver import LostDeviceError

Worker = TypeVar("Worker")


class LeastLoaded(Generic[Worker]):
    """Says which worker is next.

    Parameters
    ----------
    workers : at least one.
    """

    def __init__(self, workers: Sequence[Worker]) -> None:
        self._workers = list(workers)
        self._loads = [0] * len(self._workers)
        self._lost: set[int] = set()
        self._order = threading.Lock()

    def __len__(self) -> int:
        return len(self._workers)

    @property
    def workers(self) -> list[Worker]:
        """All of them."""
        return list(self._workers)

    def choose(self, load: int, wanted: Worker | None = None) -> Worker:
        """The worker that is wanted, or that with the least load; `load` counts as its own until ``done``."""
        with self._order:
            left = [index for index in range(len(self._loads)) if index not in self._lost]
            index = min(left or range(len(self._loads)), key=self._loads.__getitem__)
            index = index if wanted is None else self._workers.index(wanted)
            self._loads[index] += load
            return self._workers[index]

    def done(self, worker: Worker, load: int) -> None:
        """A worker is through with some load."""
        with self._order:
            self._loads[self._workers.index(worker)] -= load

    def lose(self, worker: Worker) -> bool:
        """A worker's GPU is lost; whether another is left."""
        with self._order:
            self._lost.add(self._workers.index(worker))
            return len(self._lost) < len(self._workers)

    @contextmanager
    def take(self, load: int, wanted: Worker | None = None) -> Iterator[Worker]:
        """A worker for as long as the block runs: a certain one, or the one with the least load."""
        worker = self.choose(load, wanted)
        try:
            yield worker
        except LostDeviceError:
            self.lose(worker)
            raise
        finally:
            self.done(worker, load)
