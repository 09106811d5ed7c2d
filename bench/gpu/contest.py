"""Contestants of a row: answers first, then runs in turns. It knows nothing of GPUs, so it is tested without one."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxelrt.errors import MissingExtraError
from voxelrt.kernels.common.kernel import compare
from voxelrt.measure.ratios import Ratio, ratio_of

Array = NDArray[Any]
Range = Callable[[str], AbstractContextManager[Any]]
SUBJECT = "voxelrt"


@dataclass
class Contestant:
    """One program.

    Parameters
    ----------
    name : its row's word; ``voxelrt`` is what the others are compared with.
    run : does the work once and returns when it is done, the device's queue empty.
    answer : what the last run gave, on the host.
    """

    name: str
    run: Callable[[], Any]
    answer: Callable[[], Array]


@dataclass
class Timed:
    """What came of a contestant: an error in its place, or how far its answer is off and its seconds by round."""

    name: str
    error: str = ""
    difference: float | None = None
    seconds: list[float] = field(default_factory=list)
    ratio: Ratio | None = None  # how many times longer than VoxelRT
    absent: bool = False  # a package that it needs is not installed

    @property
    def median(self) -> float | None:
        return statistics.median(self.seconds) if self.seconds else None


@dataclass(frozen=True)
class Row:
    """One thing to measure.

    Parameters
    ----------
    name, title : its id, and in words.
    work : what one run does, and its unit, such as (2.1e6, "voxels").
    tolerance : ‖e‖/‖ref‖ of an answer past which its time means nothing; a function where it is measured.
    reference : the answer, from the CPU.
    contestants : makers by name: each is called once, and may raise, which is told in its place.
    verdict : a sentence about what came of them; empty where there is none.
    """

    name: str
    title: str
    work: tuple[float, str]
    tolerance: float | Callable[[], float]
    reference: Callable[[], Array]
    contestants: dict[str, Callable[[], Contestant]]
    verdict: Callable[[list[Timed]], str] = lambda timed: ""


@dataclass
class Measured:
    """A row and what came of it."""

    row: Row
    timed: list[Timed]
    error: str = ""
    absent: bool = False  # for want of a package


def hold(row: Row, rounds: int, *, mark: Range = lambda name: nullcontext(), seed: int = 0) -> Measured:
    """Run a row's contest.

    Parameters
    ----------
    rounds : each takes all contestants in a new order.
    mark : a range of a profiler by name (NVTX).
    """
    try:
        reference = row.reference()
        allowed = row.tolerance() if callable(row.tolerance) else row.tolerance
    except Exception as error:  # noqa: BLE001 - told in the row's place
        return Measured(row, [], f"no reference: {_words(error)}", isinstance(error, MissingExtraError))
    timed, running = list[Timed](), dict[str, Contestant]()
    for name, make in row.contestants.items():
        entry = Timed(name)
        timed.append(entry)
        try:
            with mark(f"{row.name} {name}: prepare"):
                one = make()
                one.run()
                entry.difference = compare(one.answer(), reference).relative
        except Exception as error:  # noqa: BLE001 - a program that fails is told in its place
            entry.error, entry.absent = _words(error), isinstance(error, MissingExtraError | ImportError)
            continue
        if not entry.difference <= allowed:
            entry.error = f"its answer differs: {entry.difference:.2g}, allowed is {allowed:.2g}"
            continue
        running[name] = one
    _race(row, timed, running, rounds, mark, random.Random(seed))
    ours = next((entry.seconds for entry in timed if entry.name == SUBJECT and not entry.error), [])
    for entry in timed:
        if ours and entry.name != SUBJECT and len(entry.seconds) == len(ours):
            entry.ratio = ratio_of(entry.seconds, ours)
    return Measured(row, timed)


def _race(
    row: Row, timed: Iterable[Timed], running: dict[str, Contestant], rounds: int, mark: Range, order: random.Random
) -> None:
    entries = {entry.name: entry for entry in timed}
    for _ in range(rounds):
        for name in order.sample(list(running), len(running)):
            entry = entries[name]
            if entry.error:
                continue
            try:
                running[name].run()  # warm: clocks and caches are another program's
                with mark(f"{row.name} {name}"):
                    start = time.perf_counter()
                    running[name].run()
                    entry.seconds.append(time.perf_counter() - start)
            except Exception as error:  # noqa: BLE001 - as above
                entry.error = _words(error)


def _words(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def array_of(value: Any) -> Array:
    """An answer as float32."""
    return np.asarray(value, np.float32)
