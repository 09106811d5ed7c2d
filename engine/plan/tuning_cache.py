"""What tuning found out, kept in the cache folder: one JSON file for each machine, number of threads and mode.

It is a hint, never needed: a damaged file is nothing known, and a folder that cannot be written keeps nothing.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from voxelrt import environment
from voxelrt.errors import OutputError
from voxelrt.io.atomic import atomic_path
from voxelrt.kernels.common import capi

FORMAT = 2  # 1 also kept what a busy machine had measured


@dataclass(frozen=True)
class Timing:
    """One convolution: what it is, the ways that were timed and their cycles."""

    problem: str
    ways: list[str]
    cycles: list[float]


class TuningCache:
    """The timings of one machine, ``threads`` and ``mode``; ``basis``: whatever else they depend on."""

    def __init__(self, threads: int, mode: str, basis: list[Any]) -> None:
        self._head = {"format": FORMAT, "target": capi.target(), "threads": threads, "mode": mode}
        parts = [*self._head.values(), _processor(), version("voxelrt"), *basis]
        name = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:24]
        self._path = environment.cache_folder() / "tuning" / f"{name}.json"
        self._known = read_timings(self._path)

    def get(self, key: str) -> Timing | None:
        """What is known of a convolution."""
        return self._known.get(key)

    def keep(self, key: str, timing: Timing) -> None:
        """Know it from now on, and write it down."""
        self._known[key] = timing
        with suppress(OutputError, OSError):  # a machine without a cache folder tunes anew
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(self._path) as partial:
                rows = {key: vars(timing) for key, timing in self._known.items()}
                partial.write_text(json.dumps({**self._head, "timings": rows}))


def read_timings(path: Path) -> dict[str, Timing]:
    """The timings of a file by their keys; nothing where it is damaged or of another format."""
    with suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
        found = json.loads(path.read_text())
        timings = {str(key): Timing(**row) for key, row in found["timings"].items()}
        if found["format"] == FORMAT and all(_sound(t) for t in timings.values()):
            return timings
    return {}


def described(path: Path) -> str:
    """What a file of timings is, in words."""
    timings = read_timings(path)
    if not timings:
        return f"{path.name}: of an earlier version, or damaged"
    head = json.loads(path.read_text())
    return f"{len(timings)} convolutions on {head['target']}, {head['threads']} threads, {head['mode']}"


def rows_of(path: Path) -> list[tuple[str, str, str]]:
    """Of every convolution in a file: what it is, its fastest way, and how many times as long the next one takes."""
    rows = []
    for timing in read_timings(path).values():
        order = sorted(zip(timing.cycles, timing.ways, strict=True))
        following = f"{order[1][0] / order[0][0]:.2f}×: {order[1][1]}" if len(order) > 1 else ""
        rows.append((timing.problem, order[0][1], following))
    return rows


def _sound(timing: Timing) -> bool:
    return (
        isinstance(timing.problem, str)
        and len(timing.ways) == len(timing.cycles) > 0
        and all(isinstance(way, str) for way in timing.ways)
        and all(isinstance(value, float) and value > 0 for value in timing.cycles)
    )


def _processor() -> str:
    """Which processor this is."""
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return "".join(line for line in lines if line.startswith(("model", "CPU part", "stepping")))[:400]
    return ""
