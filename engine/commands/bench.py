"""voxelrt bench: how fast a model is on this machine, and against ONNX Runtime in the same run."""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import StrEnum
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
from voxelrt.errors import MissingExtraError
from voxelrt.kernels.common.kernel import compare
from voxelrt.kernels.common.native import numpy_dtype
from voxelrt.plan.description import step_rows
from voxelrt.plan.file import SectionKind
from voxelrt.plan.plan import Plan

Arrays = dict[str, NDArray[Any]]
Runner = Callable[[Arrays], Arrays]


class Peer(StrEnum):
    """Who else runs the same network."""

    ONNXRUNTIME = "onnxruntime"


def bench(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP)],
    shape: ShapeOption = None,
    repeat: Annotated[int, typer.Option("--repeat", min=1, max=100000, help="Timed runs.")] = 20,
    warm_up: Annotated[int, typer.Option("--warm-up", min=0, max=1000, help="Runs before the timed ones.")] = 3,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the random input.")] = 0,
    against: Annotated[
        Peer | None, typer.Option("--against", help="Time it too, turn by turn, in the same run.")
    ] = None,
    profile: Annotated[bool, typer.Option("--profile", help="A table of the steps.")] = False,
    precision: PrecisionOption = Precision.FP32,
    threads: ThreadsOption = None,
    fallback: FallbackOption = Fallback.ONNXRUNTIME,
    json: JsonOption = None,
    quiet: QuietOption = False,
) -> None:
    """Measure latency and throughput of a model on this machine, with random input.

    [bold]Examples[/]

      voxelrt bench brain-extraction --against onnxruntime

      voxelrt bench net.vxp --repeat 50 --profile

      voxelrt bench net.onnx --shape input=1,1,96,96,96 --threads 2 --json bench.json
    """
    screen = Screen(quiet=quiet, json_to=json)
    with screen.progress() as (tell, say):
        plan = plan_of(
            model,
            shapes=parse_shapes(shape),
            precision=precision.value,
            fallback=fallback.value,
            threads=threads,
            say=say,
        )
        inputs = random_inputs(plan, seed)
        runners: dict[str, Runner] = {"voxelrt": plan.run}
        if against is not None:
            say(f"preparing {against.value}")
            runners[against.value] = onnxruntime_runner(plan)
        difference = _difference(runners, inputs, plan)
        seconds = _times(runners, inputs, warm_up, repeat, tell)
        steps = _profile(plan, inputs) if profile else None
    flops = sum(row["flops"] for row in step_rows(plan))
    rows = {name: _statistics(times, flops) for name, times in seconds.items()}
    _show(rows, difference, plan, flops, screen)
    if steps is not None:
        _show_steps(steps, screen)
    screen.json(
        {
            "model": plan.info.name,
            "threads": plan.threads,
            "seed": seed,
            "repeat": repeat,
            "flops": flops,
            "memory_bytes": plan.memory_bytes,
            "rows": rows,
            "difference": difference,
            "steps": steps,
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


def onnxruntime_runner(plan: Plan) -> Runner:
    """The plan's own graph in ONNX Runtime, with as many threads.

    Raises
    ------
    MissingExtraError : ONNX Runtime is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError("onnxruntime", "onnxruntime", "--against onnxruntime") from error
    import onnx_ir as ir  # costs a third of a second, which `voxelrt --help` should not pay

    from voxelrt.plan.portable import read_graph

    graph = read_graph(bytes(plan.section(SectionKind.GRAPH)), plan.section(SectionKind.WEIGHTS))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = plan.threads, 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        ir.to_proto(graph).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    taken = {value.name for value in session.get_inputs()}

    def run(inputs: Arrays) -> Arrays:
        fed = {name: array for name, array in inputs.items() if name in taken}
        return dict(zip(names, session.run(names, fed), strict=True))

    return run


def _difference(runners: dict[str, Runner], inputs: Arrays, plan: Plan) -> dict[str, float] | None:
    """How far the peer's answer is from ours: a comparison of speeds means nothing without it."""
    others = [runner for name, runner in runners.items() if name != "voxelrt"]
    if not others:
        return None
    ours, theirs = runners["voxelrt"](inputs), others[0](inputs)
    found = [compare(ours[io.name], theirs[io.name]) for io in plan.outputs]
    return {"relative": max(d.relative for d in found), "maximum": max(d.maximum for d in found)}


def _times(
    runners: dict[str, Runner], inputs: Arrays, warm_up: int, repeat: int, tell: Callable[[str, int, int], None]
) -> dict[str, list[float]]:
    """Seconds of every run; the runners take turns, so that a busy moment hits all."""
    for runner in runners.values():
        for _ in range(warm_up):
            runner(inputs)
    seconds: dict[str, list[float]] = {name: [] for name in runners}
    for number in range(repeat):
        tell("run", number, repeat)
        for name, runner in runners.items():
            start = time.perf_counter()
            runner(inputs)
            seconds[name].append(time.perf_counter() - start)
    return seconds


def _statistics(times: list[float], flops: int) -> dict[str, float]:
    p50, p90, p99 = (float(p) for p in np.percentile(times, (50, 90, 99)))
    return {
        "p50_ms": p50 * 1e3,
        "p90_ms": p90 * 1e3,
        "p99_ms": p99 * 1e3,
        "runs_per_s": len(times) / sum(times),
        "gflop_per_s": flops / p50 / 1e9,
    }


def _show(
    rows: dict[str, dict[str, float]], difference: dict[str, float] | None, plan: Plan, flops: int, screen: Screen
) -> None:
    shapes = ", ".join(f"{io.name} {'×'.join(map(str, io.dims))}" for io in plan.inputs)
    screen.table(
        ("", ">p50 ms", ">p90 ms", ">p99 ms", ">runs/s", ">GFLOP/s"),
        (
            (name, *(f"{row[key]:.2f}" for key in ("p50_ms", "p90_ms", "p99_ms")), f"{row['runs_per_s']:.2f}",
             f"{row['gflop_per_s']:.1f}")
            for name, row in rows.items()
        ),
        title=f"{plan.info.name}: {shapes}; {plan.threads} threads; {flops / 1e9:.2f} GFLOP a run",
    )  # fmt: skip
    if difference is not None:
        screen.line(
            f"difference of the answers: relative {difference['relative']:.1e}, maximum {difference['maximum']:.1e}"
        )
    screen.line(f"memory of the plan's runs: {plan.memory_bytes / 2**20:.1f} MiB")


def _profile(plan: Plan, inputs: Arrays) -> list[dict[str, Any]]:
    """The median time of every step over five runs, with what it does."""
    runs = np.array([plan.time_steps(inputs) for _ in range(5)])
    milliseconds = np.median(runs, axis=0) / 1e6
    return [{**row, "ms": float(ms)} for row, ms in zip(step_rows(plan), milliseconds, strict=True)]


def _show_steps(steps: list[dict[str, Any]], screen: Screen) -> None:
    total = sum(step["ms"] for step in steps) or 1.0
    screen.table(
        (">#", "kernel", "result", ">ms", ">%", ">GFLOP/s", ">GB/s", "nodes"),
        (
            (
                number,
                step["kernel"],
                step["result"],
                f"{step['ms']:.3f}",
                f"{100 * step['ms'] / total:.1f}",
                f"{step['flops'] / step['ms'] / 1e6:.1f}" if step["flops"] and step["ms"] else "",
                f"{step['bytes'] / step['ms'] / 1e6:.1f}" if step["ms"] else "",
                " + ".join(step["nodes"]),
            )
            for number, step in enumerate(steps)
        ),
        title="steps",
    )
