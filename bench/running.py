"""What it costs to run a network beside its arithmetic: the first start, memory, threads, timers.

``python -m bench running``: every start is a process of its own, with an empty cache or with what the one before left
there. Times are medians of runs in turn; ratios carry the ends of their 95 % interval.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.machine import ROOT
from bench.networks import NETWORKS
from bench.worker import peak_bytes
from voxelrt import environment
from voxelrt.measure.ratios import ratio_of

PARTS = ("starts", "memory", "threads", "timers")
MIB = 2**20


def running(asked: argparse.Namespace) -> int:
    """Print what was asked for, part by part."""
    parts = asked.parts.split(",")
    if unknown := sorted(set(parts) - set(PARTS)):
        raise SystemExit(f"no part is named {', '.join(unknown)}; there are {', '.join(PARTS)}")
    if asked.rounds < 6:
        raise SystemExit(f"--rounds {asked.rounds}: an interval of 95 % needs 6")
    with tempfile.TemporaryDirectory(prefix="voxelrt-bench-") as temporary:
        folder = Path(temporary)
        network = NETWORKS[asked.row]
        prepared = network.prepare(folder, asked.seed, network.fixed or asked.size)
        threads = asked.threads or environment.threads()
        print(f"{prepared.title}, {threads} threads", flush=True)
        given = {"folder": temporary, "threads": threads, "rounds": asked.rounds, "limit": asked.weights_memory}
        _child("compiled", {**given, "limit": None, "save": True})  # what the parts below start from
        for part in parts:
            print(f"\n{part}", flush=True)
            for line in {"starts": _starts, "memory": _memory, "threads": _threads, "timers": _timers}[part](given):
                print(f"  {line}", flush=True)
    return 0


def _child(work: str, given: dict[str, Any], cache: str = "cache") -> dict[str, Any]:
    """Do a part of the work in a process of its own."""
    variables = {**os.environ, "VOXELRT_CACHE": str(Path(given["folder"]) / cache)}
    command = [sys.executable, "-m", "bench.running", work, json.dumps(given)]
    done = subprocess.run(command, cwd=ROOT, env=variables, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"the process for {work!r} ended with {done.returncode}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def _starts(given: dict[str, Any]) -> list[str]:
    plain = {**given, "limit": None}
    cold, known = _child("compiled", plain, "empty"), _child("compiled", plain, "empty")
    starts = [_child("opened", given) for _ in range(given["rounds"])]
    totals = [1e3 * (one["open_s"] + one["first_s"]) for one in starts]
    more = sorted(total - 1e3 * one["run_s"] for total, one in zip(totals, starts, strict=True))
    opening = statistics.median(1e3 * one["open_s"] for one in starts)
    return [
        f"compile, nothing known       {cold['compile_s']:7.2f} s, peak {cold['compile_peak'] / MIB:.0f} MiB",
        f"compile, its times kept      {known['compile_s']:7.2f} s, peak {known['compile_peak'] / MIB:.0f} MiB",
        f"open a saved plan            {opening:7.1f} ms, checksums included; medians of {len(starts)} processes",
        f"its first result             {statistics.median(totals):7.1f} ms after opening began",
        f"more than a later run        {statistics.median(more):7.1f} ms ({more[0]:.1f} to {more[-1]:.1f})",
    ]


def _memory(given: dict[str, Any]) -> list[str]:
    lines = []
    for limit in (None, given["limit"]):
        found = _child("compiled", {**given, "limit": limit})
        lines.append(
            f"weights_memory={limit or 'None':<8} peak of a run {found['run_peak'] / 2**30:.2f} GiB (packed weights "
            f"{found['packed'] / MIB:.0f} MiB, arena and scratch {found['context'] / MIB:.0f} MiB), "
            f"of compile {found['compile_peak'] / 2**30:.2f} GiB"
        )
    found = _child("limits", given)
    return [*lines, f"the limit costs {_interval(found['limited'], found['free'])} of the time"]


def _threads(given: dict[str, Any]) -> list[str]:
    found = _child("threads", given)
    lines = []
    for count, times in zip(found["counts"], found["times"], strict=True):
        text = f"{count} thread{'s' * (count > 1)}: {statistics.median(times) * 1e3:.1f} ms"
        lines.append(text if count == 1 else f"{text}, {_interval(found['times'][0], times)} as fast as one")
    return [*lines, f"answers of {', '.join(map(str, found['checked']))} threads: {found['verdict']}"]


def _timers(given: dict[str, Any]) -> list[str]:
    found = _child("timers", given)
    return [
        f"{found['steps']} steps; all timed, a run takes {_interval(found['on'], found['off'])} of its time without",
        f"two clock readings a step take {found['clock_ns'] * 2 * found['steps'] / 1e3:.1f} µs a run, "
        f"{found['clock_ns'] * 2 * found['steps'] / statistics.median(found['off']) / 1e7:.5f} % of it; off, they are "
        "not taken",
    ]


def _interval(a: Sequence[float], b: Sequence[float]) -> str:
    ratio = ratio_of(a, b)
    return f"{ratio.median:.3f}× ({ratio.low:.3f}–{ratio.high:.3f})"


# ---- what the child processes do ----


def _compile(given: dict[str, Any], limit: str | None = None) -> Any:
    from voxelrt.compile import compile as compile_plan

    options: dict[str, Any] = {"verify": False, "fallback": "error", "threads": given["threads"]}
    return compile_plan(str(Path(given["folder"]) / "model.onnx"), device="cpu", weights_memory=limit, **options)


def _input(given: dict[str, Any], plan: Any) -> dict[str, Any]:
    return {plan.inputs[0].name: np.load(Path(given["folder"]) / "x.npy")}


def _in_turn(runs: Sequence[Callable[[], object]], rounds: int) -> list[list[float]]:
    times: list[list[float]] = [[] for _ in runs]
    for number in range(rounds + 1):
        for run, taken in zip(runs, times, strict=True):
            start = time.perf_counter()
            run()
            if number:
                taken.append(time.perf_counter() - start)
    return times


def compiled(given: dict[str, Any]) -> dict[str, Any]:
    """Compile and run once."""
    from voxelrt.plan.description import memory_of

    start = time.perf_counter()
    plan = _compile(given, given["limit"])
    taken = time.perf_counter() - start
    if given.get("save"):
        plan.save(Path(given["folder"]) / "net.vxp")
    compile_peak = peak_bytes(reset=True)
    inputs = _input(given, plan)
    out = plan.run(inputs)
    plan.run(inputs, out=out)
    found = {"compile_s": taken, "compile_peak": compile_peak, "run_peak": peak_bytes(), "context": plan.memory_bytes}
    return {**found, "packed": memory_of(plan)["packed weights"]}


def opened(given: dict[str, Any]) -> dict[str, Any]:
    """Open the saved plan and run it."""
    from voxelrt.plan.plan import Plan

    x = np.load(Path(given["folder"]) / "x.npy")
    start = time.perf_counter()
    plan = Plan.open(Path(given["folder"]) / "net.vxp", threads=given["threads"])
    ready = time.perf_counter()
    inputs = {plan.inputs[0].name: x}
    out = plan.run(inputs)
    first = time.perf_counter() - ready
    (later,) = _in_turn([lambda: plan.run(inputs, out=out)], given["rounds"])
    return {"open_s": ready - start, "first_s": first, "run_s": statistics.median(later)}


def limits(given: dict[str, Any]) -> dict[str, Any]:
    """The plan with and without the limit of packed weights, in turn."""
    plans = [_compile(given), _compile(given, given["limit"])]
    inputs = _input(given, plans[0])
    outs = [plan.run(inputs) for plan in plans]
    runs = [lambda p=p, o=o: p.run(inputs, out=o) for p, o in zip(plans, outs, strict=True)]
    free, limited = _in_turn(runs, given["rounds"])
    return {"free": free, "limited": limited}


def threads(given: dict[str, Any]) -> dict[str, Any]:
    """The saved plan on 1, 2, 4 … threads in turn, and the bits of its answers on up to eight."""
    from voxelrt.plan.plan import Plan

    plan = Plan.open(Path(given["folder"]) / "net.vxp", threads=1)
    inputs = _input(given, plan)
    counts = [n for n in (1, 2, 4, 8, 16, 32, 64) if n < given["threads"]] + [given["threads"]]
    out = plan.run(inputs)
    name = next(iter(out))
    checked, answer = sorted({1, 2, 3, 8, given["threads"]}), out[name].copy()
    same = all(np.array_equal(plan.with_threads(n).run(inputs, out=out)[name], answer) for n in checked)
    plans = [plan.with_threads(n) for n in counts]
    times = _in_turn([lambda p=p: p.run(inputs, out=out) for p in plans], given["rounds"])
    return {"counts": counts, "times": times, "checked": checked, "verdict": "bit-equal" if same else "NOT EQUAL"}


def timers(given: dict[str, Any]) -> dict[str, Any]:
    """The saved plan with and without step timers in turn, and how long a clock reading takes."""
    from voxelrt.plan.description import step_rows
    from voxelrt.plan.plan import Plan

    plan = Plan.open(Path(given["folder"]) / "net.vxp", threads=given["threads"])
    inputs = _input(given, plan)
    out = plan.run(inputs)
    off, on = _in_turn([lambda: plan.run(inputs, out=out), lambda: plan.time_steps(inputs, out=out)], given["rounds"])
    start = time.perf_counter_ns()
    for _ in range(10000):
        time.perf_counter_ns()
    return {"off": off, "on": on, "steps": len(step_rows(plan)), "clock_ns": (time.perf_counter_ns() - start) / 1e4}


if __name__ == "__main__":
    work = {"compiled": compiled, "opened": opened, "limits": limits, "threads": threads, "timers": timers}
    print(json.dumps(work[sys.argv[1]](json.loads(sys.argv[2]))))
