"""What work costs, counted so that another process on the machine does not change it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def at_most_a_second_of_work() -> Iterator[None]:
    """Fails where the calling thread needed more than a second of processor time; waiting for a turn is not counted."""
    start = time.thread_time()
    yield
    assert time.thread_time() - start < 1
