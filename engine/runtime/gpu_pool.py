"""Several GPUs: one worker each; a study goes to the one with the least to do."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Generic, TypeVar

Worker = TypeVar("Worker")


class LeastLoaded(Generic[Worker]):
    """Hands workers out, each to one caller at a time.

    Parameters
    ----------
    workers : at least one.
    """

    def __init__(self, workers: Sequence[Worker]) -> None:
        self._workers = list(workers)
        self._loads = [0] * len(self._workers)
        self._locks = [threading.Lock() for _ in self._workers]
        self._order = threading.Lock()

    def __len__(self) -> int:
        return len(self._workers)

    @property
    def workers(self) -> list[Worker]:
        """All of them."""
        return list(self._workers)

    @contextmanager
    def take(self, load: int) -> Iterator[Worker]:
        """The worker with the least load, alone; `load` counts as its own until it is given back."""
        with self._order:
            index = min(range(len(self._loads)), key=self._loads.__getitem__)
            self._loads[index] += load
        try:
            with self._locks[index]:
                yield self._workers[index]
        finally:
            with self._order:
                self._loads[index] -= load
