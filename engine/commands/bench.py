"""voxelrt bench: how fast a model is on this machine, where its time goes, and how fast others are on it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from voxelrt.commands.console import Screen
from voxelrt.commands.models import plan_of
from voxelrt.commands.options import (
    MODEL_HELP,
    Fallback,
    FallbackOption,
    JsonOption,
    Precision,
    PrecisionOption,
    QuietOption,
    ShapeOption,
    ThreadsOption,
    parse_shapes,
)
from voxelrt.errors import UsageError
from voxelrt.kernels.common.capi import numpy_dtype
from voxelrt.measure.contest import PEERS, Rival, find_peers, hold
from voxelrt.measure.profile import Profile
from voxelrt.measure.roofline import draw_profile
from voxelrt.measure.throughput import Throughput, batch_of, measure_throughput, trace_streams
from voxelrt.measure.trace import write_trace
from voxelrt.plan.description import step_rows
from voxelrt.plan.plan import Plan

Arrays = dict[str, NDArray[Any]]
TRACED_RUNS = 3


def bench(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP)],
    shape: ShapeOption = None,
    repeat: Annotated[int, typer.Option("--repeat", min=1, max=100000, help="Timed runs.")] = 20,
    warm_up: Annotated[int, typer.Option("--warm-up", min=0, max=1000, help="Runs before the timed ones.")] = 3,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the random input and of the order of turns.")] = 0,
    against: Annotated[
        str | None,
        typer.Option(
            "--against", metavar="NAMES", help=f"Time others too, in turns in the same run: {', '.join(PEERS)}."
        ),
    ] = None,
    batches: Annotated[
        str | None, typer.Option("--batches", metavar="1,2,...", help="Throughput of these batches.")
    ] = None,
    streams: Annotated[
        str | None, typer.Option("--streams", metavar="1,2,...", help="Throughput of so many callers at once.")
    ] = None,
    seconds: Annotated[
        float, typer.Option("--seconds", min=0.01, max=3600, help="Of each setting of batch and streams.")
    ] = 3.0,
    profile: Annotated[
        bool, typer.Option("--profile", help="A table of the steps, against what this machine can do.")
    ] = False,
    picture: Annotated[
        Path | None, typer.Option("--picture", metavar="FILE.svg", help="The profile as a picture: roofline and times.")
    ] = None,
    trace: Annotated[
        Path | None, typer.Option("--trace", metavar="FILE.json", help="A trace of some runs, for Perfetto.")
    ] = None,
    precision: PrecisionOption = Precision.FP32,
    threads: ThreadsOption = None,
    fallback: FallbackOption = Fallback.ONNXRUNTIME,
    json: JsonOption = None,
    quiet: QuietOption = False,
) -> None:
    """Measure latency and throughput of a model on this machine, with random input.

    [bold]Examples[/]

      voxelrt bench brain-extraction --against onnxruntime,openvino

      voxelrt bench net.vxp --repeat 50 --profile --picture net.svg

      voxelrt bench net.onnx --shape input=1:4:8,1,96,96,96 --batches 1,4 --streams 1,2 --trace trace.json
    """
    peers = _words(against, "--against", PEERS)
    sizes, callers = _numbers(batches, "--batches"), _numbers(streams, "--streams")
    screen = Screen(quiet=quiet, json_to=json)
    with screen.progress() as (tell, say):
        find_peers(peers)
        plan = plan_of(
            model,
            shapes=parse_shapes(shape),
            precision=precision.value,
            fallback=fallback.value,
            threads=threads,
            say=say,
        )
        inputs = random_inputs(plan, seed)
        for size in sizes:
            batch_of(plan, inputs, size)  # what cannot be done is said before anything is measured
        times, rivals = hold(plan, inputs, peers, rounds=repeat, warm_up=warm_up, seed=seed, say=say, tell=tell)
        say("throughput")
        throughput = [
            measure_throughput(plan, inputs, size, count, seconds)
            for size in sizes or ([1] if callers else [])
            for count in callers or [1]
        ]
        say("profile")
        found = plan.profile(inputs, runs=min(repeat, 7)) if profile or picture else None
        if picture is not None and found is not None:
            draw_profile(found, picture)
        if trace is not None:
            write_trace(trace, plan, trace_streams(plan, inputs, max(callers, default=1), TRACED_RUNS))
    flops = sum(row["flops"] for row in step_rows(plan))
    rows = {"voxelrt": _statistics(times, flops)}
    rows |= {rival.name: _statistics(rival.seconds, flops) for rival in rivals if rival.seconds}
    _show(rows, rivals, plan, flops, screen)
    _show_throughput(throughput, screen)
    if found is not None:
        _show_profile(found, screen)
    for path in (picture, trace):
        if path is not None:
            screen.line(f"written: {path.name}")
    screen.json(
        {
            "model": plan.info.name,
            "threads": plan.threads,
            "seed": seed,
            "repeat": repeat,
            "flops": flops,
            "memory_bytes": plan.memory_bytes,
            "rows": rows,
            "rivals": {rival.name: _record(rival) for rival in rivals},
            "throughput": [vars(row) for row in throughput],
            "profile": None if found is None else found.record(),
        }
    )


def random_inputs(plan: Plan, seed: int) -> Arrays:
    """Uniform noise in 0..1 for every input of the first variant."""
    rng = np.random.default_rng(seed)
    made: Arrays = {}
    for io in plan.inputs:
        dtype = numpy_dtype(io.dtype)
        made[io.name] = (
            rng.random(io.dims).astype(dtype) if dtype.kind not in "iub" else rng.integers(0, 2, io.dims, dtype)
        )
    return made


def _words(text: str | None, option: str, known: Sequence[str]) -> list[str]:
    words = list(dict.fromkeys(word.strip() for word in (text or "").split(",") if word.strip()))
    if unknown := [word for word in words if word not in known]:
        raise UsageError(f"{option}: {', '.join(unknown)} is unknown; there are {', '.join(known)}")
    return words


def _numbers(text: str | None, option: str) -> list[int]:
    words = [word.strip() for word in text.split(",")] if text else []
    if wrong := [word for word in words if not word.isdigit() or not 1 <= int(word) <= 1024]:
        raise UsageError(f"{option}: {', '.join(map(repr, wrong))}: give whole numbers from 1 to 1024, such as 1,2,4")
    return list(dict.fromkeys(int(word) for word in words))


def _statistics(times: Sequence[float], flops: int) -> dict[str, float]:
    p50, p90, p99 = (float(p) for p in np.percentile(times, (50, 90, 99)))
    return {
        "p50_ms": p50 * 1e3,
        "p90_ms": p90 * 1e3,
        "p99_ms": p99 * 1e3,
        "runs_per_s": len(times) / sum(times),
        "gflop_per_s": flops / p50 / 1e9,
    }


def _record(rival: Rival) -> dict[str, Any]:
    found = {"error": rival.error, "relative": rival.relative, "maximum": rival.maximum}
    return {**found, "ratio": None if rival.ratio is None else rival.ratio.record()}


def _show(rows: dict[str, dict[str, float]], rivals: Sequence[Rival], plan: Plan, flops: int, screen: Screen) -> None:
    shapes = ", ".join(f"{io.name} {'×'.join(map(str, io.dims))}" for io in plan.inputs)
    ratios = {rival.name: rival.ratio for rival in rivals}

    def slower(name: str) -> str:
        ratio = ratios.get(name)
        if ratio is None:
            return ""
        sure = "" if ratio.claim is not None else f", only {ratio.coverage:.0%} sure"
        return f"{ratio.median:.2f} ({ratio.low:.2f}–{ratio.high:.2f}{sure})"

    screen.table(
        ("", ">p50 ms", ">p90 ms", ">p99 ms", ">runs/s", ">GFLOP/s", *((">times slower (95 %)",) if rivals else ())),
        (
            (name, *(f"{row[key]:.2f}" for key in ("p50_ms", "p90_ms", "p99_ms")), f"{row['runs_per_s']:.2f}",
             f"{row['gflop_per_s']:.1f}", *((slower(name),) if rivals else ()))
            for name, row in rows.items()
        ),
        title=f"{plan.info.name}: {shapes}; {plan.threads} threads; {flops / 1e9:.2f} GFLOP a run in direct form",
    )  # fmt: skip
    for rival in rivals:
        if rival.error:
            screen.warn(f"{rival.name} was not timed: {rival.error}")
        elif rival.relative is not None:
            screen.line(f"answer of {rival.name}: relative {rival.relative:.1e}, maximum {rival.maximum:.1e} from ours")
    screen.line(f"memory of the plan's runs: {plan.memory_bytes / 2**20:.1f} MiB")


def _show_throughput(rows: Sequence[Throughput], screen: Screen) -> None:
    if rows:
        screen.table(
            (">batch", ">streams", ">threads each", ">items/s", ">p50 ms", ">p99 ms"),
            (
                (row.batch, row.streams, row.threads, *(f"{v:.2f}" for v in (row.items_per_s, row.p50_ms, row.p99_ms)))
                for row in rows
            ),
            title="throughput",
        )


def _show_profile(profile: Profile, screen: Screen) -> None:
    screen.table(
        (">#", "kernel", "algorithm", "result", ">ms", ">%", ">GFLOP/s", ">of peak", ">GB/s", ">of roof", "nodes"),
        (
            (
                number,
                step.kernel,
                step.algorithm,
                step.result,
                f"{step.ms:.3f}",
                f"{100 * step.share:.1f}",
                f"{step.gflops:.1f}" if step.flops else "",
                f"{step.of_peak:.0%}" if step.flops else "",
                f"{step.gbps:.1f}",
                f"{step.of_roof:.0%} {step.bound}",
                " + ".join(step.nodes),
            )
            for number, step in enumerate(profile.steps)
        ),
        title=f"steps: {profile.total_ms:.2f} ms a run; ceilings measured here: {profile.ceilings}",
    )
    screen.table(
        ("kernel and algorithm", ">steps", ">ms", ">%", ">GFLOP/s", ">GB/s"),
        (
            (
                row["kind"],
                row["steps"],
                f"{row['ms']:.3f}",
                f"{100 * row['ms'] / (profile.total_ms or 1.0):.1f}",
                f"{row['flops'] / row['ms'] / 1e6:.1f}" if row["flops"] and row["ms"] else "",
                f"{row['bytes'] / row['ms'] / 1e6:.1f}" if row["ms"] else "",
            )
            for row in profile.kinds()
        ),
        title="where the time goes",
    )
    screen.line(
        "of peak and of roof count the work of a direct algorithm: Winograd, with fewer products, passes 100 %. "
        f"Runs with timers took {1 + profile.timers_cost:.3f} times as long as runs without."
    )
