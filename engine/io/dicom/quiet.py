"""Keep pydicom's own remarks to itself.

pydicom warns, and logs under its own name, about values that are badly written, and quotes them. In a damaged file
the wrong length of one harmless element is enough for such a remark to hold the patient's name. What is wrong with a
file is said by our errors, which quote nothing.
"""

from __future__ import annotations

import logging
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_reading: ContextVar[bool] = ContextVar("_reading", default=False)

# warnings.catch_warnings changes the process's state, so two readers in two threads must take turns.
_turn = threading.RLock()


def _forget_turn() -> None:
    """In a forked child nobody is left who could give the turn back."""
    global _turn
    _turn = threading.RLock()


os.register_at_fork(after_in_child=_forget_turn)


def _not_reading(record: logging.LogRecord) -> bool:
    return not _reading.get()


logging.getLogger("pydicom").addFilter(_not_reading)


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """No warnings and no log records of pydicom from this thread inside; other users of pydicom keep theirs."""
    with _turn, warnings.catch_warnings(action="ignore"):
        token = _reading.set(True)
        try:
            yield
        finally:
            _reading.reset(token)
