"""A folder that fills: files are taken when they have stopped changing, whatever order they come in.

The folder is looked at again and again. Notifications of the system do not cross network shares, which is
where scanners and archives put their files, and a look takes less than a slice does.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

from voxelrt.errors import InputError

POLL_SECONDS = 0.05
LOOKS = 8  # at least, before a quiet time has passed
LEAST_STEP = 0.25
Signature = tuple[tuple[str, int, int], ...]  # name, size, time of change of every file of an entry


def files_below(folder: Path) -> Iterator[os.DirEntry[str]]:
    """The files of a folder and its subfolders; what begins with a dot is another program's own. Raises InputError."""
    try:
        with os.scandir(folder) as entries:
            found = list(entries)
    except FileNotFoundError:
        return  # gone since it was seen
    except OSError as error:
        raise InputError(f"cannot look into the watched folder: {error.strerror}") from None
    for entry in found:
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from files_below(Path(entry.path))
        elif entry.is_file():
            yield entry


def signature_of(entry: os.DirEntry[str]) -> tuple[str, int, int]:
    """What of a file changes while it is written; size -1 where it is gone."""
    try:
        found = entry.stat()
    except OSError:
        return entry.path, -1, 0
    return entry.path, found.st_size, found.st_mtime_ns


class Settled:
    """Tells entries that have stopped changing from those that still do.

    Parameters
    ----------
    seconds : how long nothing of an entry may have changed for it to be whole.

    Time in which this process stood still (suspended, starved) does not count: who writes may have stood still too.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._seen: dict[str, tuple[Signature, float]] = {}
        self._given: dict[str, Signature] = {}
        self.clock = self.changed = 0.0  # seconds, and when anything last changed
        self._last = time.monotonic()

    def _tick(self) -> None:
        now = time.monotonic()
        self.clock += min(now - self._last, max(LEAST_STEP, self._seconds / LOOKS))
        self._last = now

    def look(self, found: dict[str, Signature]) -> list[str]:
        """Of the entries that are there, those that have become whole; one that changes later is given again."""
        self._tick()
        now, whole = self.clock, []
        for name, signature in found.items():
            before, since = self._seen.get(name, (None, now))
            if signature != before:
                self._seen[name] = signature, now
                self.changed = now
            elif now - since >= self._seconds and self._given.get(name) != signature:
                self._given[name] = signature
                whole.append(name)
        return whole

    def waits(self, found: dict[str, Signature]) -> bool:
        """Whether some entry is still to be given."""
        return any(self._given.get(name) != signature for name, signature in found.items())


def refuse_no_folder(folder: Path) -> None:
    """Raise InputError where there is no folder to watch."""
    if not folder.is_dir():
        raise InputError(f"{folder.name!r} is not a folder that can be watched; make it first")
