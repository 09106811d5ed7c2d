"""A trace of a plan's runs for Perfetto and chrome://tracing: the JSON format of the Trace Event Profiling Tool."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from voxelrt.backends.native import StepTimers
from voxelrt.io.atomic import atomic_path
from voxelrt.plan.description import step_rows

if TYPE_CHECKING:
    from voxelrt.plan.plan import Plan


def write_trace(path: str | Path, plan: Plan, streams: Sequence[Sequence[StepTimers]]) -> Path:
    """Write the runs of each stream, one track a stream; times in microseconds since the first step.

    Parameters
    ----------
    streams : for each stream its runs, as ``plan.time_steps`` gave them.

    Raises
    ------
    OutputError : the file cannot be written.
    """
    rows = step_rows(plan)
    first = min((int(run.begin_ns[0]) for runs in streams for run in runs if len(run.begin_ns)), default=0)
    events: list[dict[str, Any]] = [_name("process_name", f"voxelrt {plan.info.name}", 0)]
    for number, runs in enumerate(streams):
        events.append(_name("thread_name", f"stream {number}, {plan.threads} threads", number))
        for count, run in enumerate(runs):
            events += _run(rows, run, count, number, first)
    with atomic_path(path) as partial:
        partial.write_text(json.dumps({"traceEvents": events, "displayTimeUnit": "ms"}), "utf-8")
    return Path(path)


def _run(
    rows: Sequence[Mapping[str, Any]], run: StepTimers, count: int, stream: int, first: int
) -> list[dict[str, Any]]:
    begins, times = [int(b) - first for b in run.begin_ns], [int(t) for t in run.time_ns]
    if not begins:
        return []
    events = [_span(f"run {count}", "run", begins[0], begins[-1] + times[-1] - begins[0], stream, {})]
    for row, begin, took in zip(rows, begins, times, strict=True):
        rates = {
            "GFLOP/s": round(row["flops"] / took, 1) if took else 0.0,
            "GB/s": round(row["bytes"] / took, 2) if took else 0.0,
        }
        details = {"nodes": row["nodes"], "result": row["result"], "algorithm": row["algorithm"], **rates}
        name = row["nodes"][0] if row["nodes"] else row["kernel"]
        events.append(_span(name, row["kernel"], begin, took, stream, details))
    return events


def _span(
    name: str, category: str, begin_ns: int, took_ns: int, stream: int, details: Mapping[str, Any]
) -> dict[str, Any]:
    times = {"ts": begin_ns / 1e3, "dur": took_ns / 1e3}
    return {"name": name, "cat": category, "ph": "X", "pid": 1, "tid": stream, **times, "args": dict(details)}


def _name(what: str, name: str, stream: int) -> dict[str, Any]:
    return {"name": what, "ph": "M", "pid": 1, "tid": stream, "args": {"name": name}}
