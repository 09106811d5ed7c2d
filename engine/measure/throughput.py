"""Throughput: how many items a second go through a plan, by batch and by streams that run at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from voxelrt.backends.native import StepTimers
from voxelrt.errors import UsageError

if TYPE_CHECKING:
    from voxelrt.plan.plan import Plan

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Throughput:
    """One setting: ``streams`` callers at once, each with ``threads`` compute threads and a batch."""

    batch: int
    streams: int
    threads: int
    items_per_s: float
    p50_ms: float  # of one call
    p99_ms: float


def batch_of(plan: Plan, inputs: Arrays, batch: int) -> dict[str, NDArray[Any]]:
    """The inputs repeated to a batch. Raises UsageError where the plan takes no such batch."""
    low, high = plan.variants[0][2]
    if not low <= batch <= high:
        known = low if low == high else f"{low} to {high}"
        raise UsageError(
            f"a batch of {batch}: the plan takes {known}; compile it with a range, such as "
            "--shape input=1:4:8,1,128,128,128"
        )
    made = {}
    for io in plan.inputs:
        array = inputs[io.name]
        one = array[: io.dims[0]] if io.batched else array
        made[io.name] = np.concatenate([one] * batch) if io.batched and batch > 1 else one
    return made


def measure_throughput(plan: Plan, inputs: Arrays, batch: int, streams: int, seconds: float) -> Throughput:
    """Let ``streams`` callers run for so many seconds; the plan's threads are shared out among them.

    Raises
    ------
    UsageError : a batch that the plan does not take, or more streams than threads.
    """
    if streams > plan.threads:
        raise UsageError(f"{streams} streams: there are {plan.threads} compute threads, and each stream needs one")
    threads = plan.threads // streams
    given = batch_of(plan, inputs, batch)
    plans = [plan if streams == 1 else plan.with_threads(threads) for _ in range(streams)]
    times: list[list[float]] = [[] for _ in plans]
    spans: list[tuple[float, float]] = [(0.0, 0.0)] * streams
    gate = threading.Barrier(streams)
    failures: list[BaseException] = []

    def stream(number: int) -> None:
        try:
            out = {name: np.asarray(array) for name, array in plans[number].run(given).items()}
            gate.wait()
            start = now = time.perf_counter()
            while now - start < seconds or len(times[number]) < 2:
                plans[number].run(given, out=out)
                times[number].append(time.perf_counter() - now)
                now = time.perf_counter()
            spans[number] = (start, now)
        except BaseException as error:  # noqa: BLE001 - raised again by the caller, when all have come back
            failures.append(error)
            gate.abort()

    _together(stream, streams)
    if failures:
        raise next((f for f in failures if not isinstance(f, threading.BrokenBarrierError)), failures[0])
    took = max(end for _, end in spans) - min(start for start, _ in spans)
    every = [t for row in times for t in row]
    p50, p99 = (float(p) * 1e3 for p in np.percentile(every, (50, 99)))
    return Throughput(batch, streams, threads, len(every) * batch / took, p50, p99)


def trace_streams(plan: Plan, inputs: Arrays, streams: int, runs: int) -> list[list[StepTimers]]:
    """The steps of some runs of every stream, the streams at once."""
    plans = [plan if streams == 1 else plan.with_threads(max(1, plan.threads // streams)) for _ in range(streams)]
    found: list[list[StepTimers]] = [[] for _ in plans]

    def stream(number: int) -> None:
        plans[number].run(inputs)
        found[number] = [plans[number].time_steps(inputs) for _ in range(runs)]

    _together(stream, streams)
    return found


def _together(work: Any, streams: int) -> None:
    if streams == 1:
        work(0)
        return
    threads = [threading.Thread(target=work, args=(number,)) for number in range(streams)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
