"""One row's contest: contestants in processes of their own, checked first, then timed in interleaved rounds.

Only one process runs at a time: the others are stopped (SIGSTOP), so that spinning threads of one never slow another.
Each round takes them in a new random order; ratios are formed within a round.
"""

from __future__ import annotations

import json
import math
import os
import random
import select
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bench.machine import ROOT
from bench.peers import Contestant
from voxelrt.kernels.common.kernel import compare

TURN_S = 0.25  # a turn in a round lasts about this long; slow networks run once
MOST_RUNS = 50
TIMEOUT_S = 1800.0


class WorkerError(Exception):
    """A contestant failed, or its process died."""


class Process:
    """The worker process of one contestant."""

    def __init__(self, contestant: Contestant, threads: int, log: Path) -> None:
        self.name = contestant.name
        self.log = log
        with log.open("wb") as errors:
            self.process = subprocess.Popen(
                [contestant.python or sys.executable, "-m", "bench.worker"],
                cwd=contestant.root or ROOT,
                env={**os.environ, **contestant.variables(threads)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                bufsize=0,
            )

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Send a command and wait for its reply.

        Raises
        ------
        WorkerError
            The command failed, took too long, or the process died; the message says which.
        """
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps({"do": do, **arguments}).encode() + b"\n")
            reply = json.loads(self._line())
        except BrokenPipeError:
            raise WorkerError(self._death()) from None
        if "error" in reply:
            raise WorkerError(reply["error"])
        result: dict[str, Any] = reply
        return result

    def pause(self) -> None:
        """Stop it where it is."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it run on."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """End it and wait for its end."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()

    def _line(self) -> bytes:
        assert self.process.stdout is not None
        end = time.monotonic() + TIMEOUT_S
        line = b""
        while not line.endswith(b"\n"):
            ready, _, _ = select.select([self.process.stdout], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                raise WorkerError(f"no answer for {TIMEOUT_S:.0f} s")
            part = os.read(self.process.stdout.fileno(), 1 << 16)
            if not part:
                raise WorkerError(self._death())
            line += part
        return line

    def _death(self) -> str:
        code = self.process.wait()
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        if code == -signal.SIGKILL:
            how += " (out of memory?)"
        said = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return f"its process was {how}{': ' + said[-1][:300] if said else ''}"


@dataclass
class Entry:
    """One contestant's part of a row: an error and no times, or times."""

    contestant: Contestant
    error: str = ""
    difference: float | None = None  # ‖e‖/‖ref‖; None for the reference itself
    maximum: float | None = None
    times_s: list[float] = field(default_factory=list)  # one per round: the median of its runs
    runs: int = 1
    load_s: float = 0.0
    peak_load_bytes: int = 0
    peak_run_bytes: int = 0

    def fail(self, error: str) -> None:
        """Keep the reason; a failed contestant has no times."""
        self.error, self.times_s = error, []

    def record(self) -> dict[str, Any]:
        """As JSON."""
        c = self.contestant
        kept = {name: value for name, value in self.__dict__.items() if name != "contestant"}
        described = {"title": c.title, "precision": c.precision, "tolerance": c.tolerance, "mode": c.mode}
        settings = {"options": dict(c.options), "environment": dict(c.environment)}
        return {**described, **settings, **kept, "median_s": statistics.median(self.times_s) if self.times_s else None}


@dataclass(frozen=True)
class Contest:
    """What a row is run on."""

    model: Path
    x: Path
    reference: str  # the contestant whose answer the others are compared with
    folder: Path  # for answers and logs
    threads: int
    rounds: int
    seed: int
    budget_s: float = math.inf
    tell: Callable[[str], None] = print


def hold(contest: Contest, contestants: Sequence[Contestant]) -> list[Entry]:
    """Run the contest.

    Every contestant answers the same input before any is timed; one whose answer is past its tolerance, or which
    fails, keeps its error and is not timed.
    """
    entries = [Entry(c) for c in contestants]
    ordered = sorted(entries, key=lambda e: e.contestant.name != contest.reference)
    processes: dict[str, Process] = {}
    try:
        for entry in ordered:
            _enter(contest, entry, processes)
        _rounds(contest, [e for e in entries if not e.error], processes)
    finally:
        for process in processes.values():
            process.close()
    return entries


@contextmanager
def _turn(entry: Entry, process: Process) -> Iterator[None]:
    """Let one process run; its failure is kept in its entry."""
    process.resume()
    try:
        yield
    except WorkerError as error:
        entry.fail(str(error))
        process.close()
    finally:
        process.pause()


def _enter(contest: Contest, entry: Entry, processes: dict[str, Process]) -> None:
    """Start a contestant, let it load and answer, and compare the answer with the reference."""
    name = entry.contestant.name
    process = processes[name] = Process(entry.contestant, contest.threads, contest.folder / f"{name}.log")
    answer = contest.folder / f"{name}.npy"
    with _turn(entry, process):
        loaded = process.ask(
            "load",
            runner=entry.contestant.runner,
            model=str(contest.model),
            x=str(contest.x),
            threads=contest.threads,
            options=dict(entry.contestant.options),
        )
        entry.load_s, entry.peak_load_bytes = loaded["load_s"], loaded["peak_load_bytes"]
        process.ask("answer", to=str(answer))
    if not entry.error:
        _check(contest, entry, answer)
    if entry.error:
        process.close()
    contest.tell(f"    {name}: {entry.error or f'ready in {entry.load_s:.1f} s'}")


def _check(contest: Contest, entry: Entry, answer: Path) -> None:
    """The gate: no time without a right answer."""
    reference = contest.folder / f"{contest.reference}.npy"
    out = np.load(answer)
    if entry.contestant.name == contest.reference:
        if not np.isfinite(out).all() or float(out.std()) == 0.0:
            entry.fail("its answer is the reference and is constant or not finite")
        elif not np.array_equal(out, np.load(reference)):
            entry.fail("its answer changed from one run to another")
        return
    if not reference.exists():
        entry.fail(f"no reference: {contest.reference} gave no answer")
        return
    expected = np.load(reference)
    if out.shape != expected.shape:
        entry.fail(f"wrong answer: shape {out.shape} is not the reference's {expected.shape}")
        return
    difference = compare(out, expected)
    entry.difference, entry.maximum = difference.relative, difference.maximum
    if not difference.relative <= entry.contestant.tolerance:
        entry.fail(f"wrong answer: {difference}; allowed is {entry.contestant.tolerance:g}")


def _rounds(contest: Contest, entries: Sequence[Entry], processes: dict[str, Process]) -> None:
    """Warm-up, then interleaved rounds; a round in which one fails ends that one's part."""
    order = random.Random(contest.seed)
    for entry in entries:
        with _turn(entry, processes[entry.contestant.name]):
            first = processes[entry.contestant.name].ask("time", warm=0, runs=2)["times_s"][-1]
            entry.runs = max(1, min(MOST_RUNS, math.ceil(TURN_S / first)))
    start = time.monotonic()
    for number in range(contest.rounds):
        racing = [e for e in entries if not e.error]
        spent = time.monotonic() - start
        if number and spent + spent / number > contest.budget_s:
            contest.tell(f"    the budget of {contest.budget_s:.0f} s ends after {number} of {contest.rounds} rounds")
            break
        for entry in order.sample(racing, len(racing)):
            process = processes[entry.contestant.name]
            with _turn(entry, process):
                # A stopped process comes back to cold caches: short runs are warmed again, outside the clock.
                times = process.ask("time", warm=1 if entry.runs > 1 else 0, runs=entry.runs)["times_s"]
                entry.times_s.append(statistics.median(times))
    for entry in entries:
        if not entry.error:
            _leave(contest, entry, processes[entry.contestant.name])


def _leave(contest: Contest, entry: Entry, process: Process) -> None:
    """The peak of memory, and the last timed answer through the gate as well."""
    last = contest.folder / f"{entry.contestant.name}.last.npy"
    with _turn(entry, process):
        entry.peak_run_bytes = process.ask("memory")["peak_run_bytes"]
        process.ask("answer", to=str(last))
    if not entry.error:
        _check(contest, entry, last)
