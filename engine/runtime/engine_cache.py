"""Engines that were built on this machine, kept in the cache folder.

An entry's name is a hash of all that an engine depends on, so one for another GPU, driver or library is never found.
Two processes that want the same engine build it once: the second waits for the first one's lock. An entry that is
damaged is built anew. The oldest entries go when the folder passes its limit.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from voxelrt.environment import cache_folder
from voxelrt.errors import OutputError
from voxelrt.io.atomic import atomic_path

MAGIC = b"VXENGINE"
LIMIT = 8 * 2**30  # bytes of all engines together
_BESIDE = {".timings": "times of kernels, for the next engine", ".compiled": "kernels compiled while an engine ran"}


@dataclass(frozen=True)
class EngineKey:
    """What an engine depends on.

    Parameters
    ----------
    graph : SHA-256 of the typed ONNX, its weights among it.
    profiles : the shapes as text.
    precision : that it computes in.
    gpu, capability, driver : of the machine.
    library : its name and version.
    options : that it was built with, as text.
    """

    graph: str
    profiles: str
    precision: str
    gpu: str
    capability: str
    driver: str
    library: str
    options: str = ""

    @property
    def name(self) -> str:
        """The entry's name; our own version is in it too."""
        parts = json.dumps([asdict(self), version("voxelrt")], sort_keys=True)
        return hashlib.sha256(parts.encode()).hexdigest()[:40]


def engines_folder() -> Path:
    """Where engines are kept; it need not exist yet."""
    return cache_folder() / "engines"


def timings_place(gpu: str, driver: str, library: str) -> Path:
    """Where a library's times of kernels on a GPU are kept, beside the engines."""
    return engines_folder() / f"{_digest(gpu, driver, library)}.timings"


def compiled_place(engine: bytes, gpu: str, driver: str) -> Path:
    """Where kernels are kept that were compiled while an engine ran on a GPU, beside the engines."""
    return engines_folder() / f"{_digest(hashlib.sha256(engine).hexdigest(), gpu, driver)}.compiled"


def _digest(*parts: str) -> str:
    return hashlib.sha256(json.dumps([*parts, version("voxelrt")]).encode()).hexdigest()[:40]


def cached_engine(key: EngineKey, build: Callable[[], bytes], limit: int = LIMIT) -> bytes:
    """The engine, from the cache folder or built and put there.

    Parameters
    ----------
    key : what it depends on.
    build : makes it; called by one process at a time.
    limit : of all entries together, in bytes.

    Raises
    ------
    EngineError : as ``build``. A cache that cannot be written to costs time, not results.
    """
    place = engines_folder() / f"{key.name}.engine"
    found = _read(place)
    if found is not None:
        return found
    with _locked(place.with_suffix(".lock")):
        found = _read(place)
        if found is not None:
            return found
        engine = build()
        with suppress(OSError, OutputError):
            _write(place, engine, key)
            prune_to(limit, spare=place)
    return engine


def _read(place: Path) -> bytes | None:
    """An entry's engine; None where there is none, or it is damaged."""
    try:
        data = place.read_bytes()
    except OSError:
        return None
    head = len(MAGIC) + 32
    if data[: len(MAGIC)] != MAGIC or hashlib.sha256(data[head:]).digest() != data[len(MAGIC) : head]:
        return None
    with suppress(OSError):
        os.utime(place)  # used now: the last to be pruned
    size = int.from_bytes(data[head : head + 4], "little")
    return data[head + 4 + size :]


def _write(place: Path, engine: bytes, key: EngineKey) -> None:
    words = json.dumps(asdict(key)).encode()
    body = len(words).to_bytes(4, "little") + words + engine
    with atomic_path(place) as partial:
        partial.write_bytes(MAGIC + hashlib.sha256(body).digest() + body)


@contextmanager
def _locked(place: Path) -> Iterator[None]:
    """Hold a lock file; where none can be made, everyone builds for himself."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        file = place.open("w")
    except OSError:
        yield
        return
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def described(place: Path) -> str:
    """What an entry is for, in words."""
    if place.suffix in _BESIDE:
        return _BESIDE[place.suffix]
    try:
        with place.open("rb") as file:
            head = file.read(len(MAGIC) + 36)
            size = int.from_bytes(head[-4:], "little")
            words = json.loads(file.read(size)) if head[: len(MAGIC)] == MAGIC and size < 1 << 16 else {}
        return f"{words['precision']} for {words['gpu']}, {words['library']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "damaged; it will be built anew"


def prune_to(limit: int, spare: Path | None = None) -> list[Path]:
    """Remove the engines, and what is kept beside them, that were not used for longest until the rest fit; what was
    removed."""
    kept = [path for suffix in (".engine", *_BESIDE) for path in engines_folder().glob(f"*{suffix}")]
    entries = sorted(kept, key=lambda path: path.stat().st_mtime)
    total, removed = sum(path.stat().st_size for path in entries), []
    for path in entries:
        if total <= limit or path == spare:
            continue
        total -= path.stat().st_size
        with suppress(OSError):
            path.unlink()
            path.with_suffix(".lock").unlink(missing_ok=True)
            removed.append(path)
    return removed
