"""voxelrt verify: a model's compiled plan against another executor, on noise, a phantom, or given arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from numpy.typing import NDArray

from voxelrt.commands.console import Screen
from voxelrt.commands.models import is_plan, open_plan
from voxelrt.commands.options import (
    MODEL_HELP,
    ConfigurationOption,
    Fallback,
    FallbackOption,
    FoldsOption,
    JsonOption,
    QuietOption,
    ShapeOption,
    ThreadsOption,
    parse_folds,
    parse_inputs,
    parse_shapes,
)
from voxelrt.errors import ParityError, UsageError
from voxelrt.io.arrays import read_array
from voxelrt.kernels.common.capi import numpy_dtype
from voxelrt.plan.plan import Plan

Array = NDArray[Any]
Runner = Callable[[Mapping[str, Array]], Mapping[str, Array]]


class Peer(StrEnum):
    """Whose answer is the reference."""

    ONNXRUNTIME = "onnxruntime"
    TORCH = "torch"
    NNUNETV2 = "nnunetv2"
    MONAI = "monai"


def verify_command(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP)],
    case: Annotated[
        list[Path] | None,
        typer.Argument(metavar="CASE...", help="A whole study to compare labels on; several images in their order."),
    ] = None,
    against: Annotated[
        Peer,
        typer.Option(
            "--against",
            help="The reference: ONNX Runtime, torch on the network's file; of a CASE nnunetv2, monai or onnxruntime.",
        ),
    ] = Peer.ONNXRUNTIME,
    shape: ShapeOption = None,
    given: Annotated[
        list[str] | None,
        typer.Option("--input", metavar="NAME=FILE.npy", help="A real input as a NumPy array. Repeatable."),
    ] = None,
    tolerance: Annotated[
        float, typer.Option("--tolerance", min=0.0, help="Largest ‖difference‖/‖reference‖ of an output.")
    ] = 5e-5,
    fallback: FallbackOption = Fallback.ONNXRUNTIME,
    threads: ThreadsOption = None,
    python: Annotated[
        str | None,
        typer.Option("--python", metavar="FILE", help="Of a CASE: the interpreter of the reference's environment."),
    ] = None,
    configuration: ConfigurationOption = None,
    folds: FoldsOption = None,
    mirroring: Annotated[
        bool, typer.Option("--mirroring/--no-mirroring", help="Of a CASE and an nnU-Net model: in both.")
    ] = True,
    source_rounding: Annotated[
        bool, typer.Option("--source-rounding", help="Of a CASE: with nnU-Net's half-precision sums.")
    ] = False,
    least: Annotated[
        float,
        typer.Option("--agreement", min=0.0, max=1.0, help="Of a CASE: the share of foreground that must agree."),
    ] = 0.99,
    picture: Annotated[
        Path | None, typer.Option("--picture", metavar="FILE", help="Of a CASE: a PNG of where the labels differ.")
    ] = None,
    json: JsonOption = None,
    quiet: QuietOption = False,
) -> None:
    """Measure how far a model's compiled plan is from another executor. Past the tolerance the exit code is 6.

    Without --input, the inputs are a smooth phantom and noise, both seeded. With a CASE, labels of the whole study are
    compared, with time and memory: the reference runs as it is installed, in a process of its own.

    [bold]Examples[/]

      voxelrt verify net.onnx --shape input=1,1,64,64,64

      voxelrt verify net.pt2 --against torch

      voxelrt verify net.onnx --input image=scan.npy --tolerance 1e-5 --json -

      voxelrt verify Dataset003_Liver/ ct.nii.gz --against nnunetv2 --python ~/nnunet/bin/python --picture differ.png
    """
    inputs = parse_inputs(given)
    if case or (inputs and all(path.suffix not in (".npy", ".npz") for path in inputs.values())):
        if against is Peer.TORCH:
            raise UsageError("a case is compared --against nnunetv2, monai or onnxruntime; torch compares the network")
        from voxelrt.commands.verify_case import Wanted, verify_case

        if case and inputs:
            raise UsageError("give a CASE, or --input NAME=PATH, not both")
        wanted = Wanted(
            model,
            against.value,
            list(case) if case else inputs,
            python,
            configuration,
            parse_folds(folds),
            mirroring,
            source_rounding,
            threads,
            least,
            picture,
        )
        verify_case(wanted, Screen(quiet=quiet, json_to=json))
        return
    if against in (Peer.NNUNETV2, Peer.MONAI):
        raise UsageError(f"--against {against.value} compares the labels of a CASE: name one")
    from voxelrt.plan.verification import passed, verify

    screen = Screen(quiet=quiet, json_to=json)
    arrays = {name: read_array(name, path) for name, path in inputs.items()}
    with screen.progress() as (_, say):
        plan, runner, segmentation = _prepared(model, against, shape, arrays, fallback.value, threads, say)
        say("comparing")
        rows = verify(plan, runner, _inputs(plan, arrays), segmentation, plan.info.precision)
    screen.table(
        ("input", "output", ">max abs", ">relative", "worst at", ">labels equal", "verdict"),
        [
            (
                row.input,
                row.output,
                f"{row.maximum:.2e}",
                f"{row.relative:.2e}",
                ",".join(map(str, row.worst)),
                "" if row.agreement is None else f"{row.agreement:.4%}",
                "ok" if row.passes(tolerance) else row.problem or "past the tolerance",
            )
            for row in rows
        ],
    )
    good = passed(rows, tolerance)
    head = {"name": plan.info.name, "against": against.value, "tolerance": tolerance, "passed": good}
    screen.json({**head, "rows": [vars(row) for row in rows]})
    if not good:
        worst = max(row.relative for row in rows)
        raise ParityError(
            f"the plan departs from {against.value}: relative {worst:.2e}, tolerance {tolerance:g}; "
            f"{sum(not r.passes(tolerance) for r in rows)} of {len(rows)} comparisons fail"
        )


def _prepared(
    model: str,
    against: Peer,
    shape: list[str] | None,
    arrays: Mapping[str, Array],
    fallback: str,
    threads: int | None,
    say: Callable[[str], None],
) -> tuple[Plan, Runner, tuple[float | None, int] | None]:
    """The plan, the peer, and how the output becomes labels where it is a segmentation."""
    from voxelrt.compile import compile as compile_model
    from voxelrt.models.load import load
    from voxelrt.plan.kept import portable_graph
    from voxelrt.preprocess.contract import recipe_shapes

    if against is Peer.ONNXRUNTIME:
        from voxelrt.backends.onnxruntime import runtime

        runtime("voxelrt verify --against onnxruntime")
    if is_plan(model):
        plan = open_plan(model, threads=threads, shapes=parse_shapes(shape))
        if against is Peer.TORCH:
            raise UsageError("a .vxp plan no longer has its torch network: give the .pt2 or .pt file")
        return plan, _graph_runner(portable_graph(plan)), None
    shapes: Any = parse_shapes(shape) or {name: a.shape for name, a in arrays.items()} or None
    say("loading")
    loaded = load(model, progress=say, shapes=shapes)
    if against is Peer.TORCH and loaded.framework is None:
        raise UsageError(f"{Path(model).name} is no network of torch: --against onnxruntime compares it")
    shapes = shapes or (recipe_shapes(loaded.recipe) if loaded.recipe is not None else None)
    say(f"compiling {loaded.name}")
    plan = compile_model(loaded, shapes=shapes, verify=False, fallback=fallback, threads=threads, progress=say)
    segmentation = (loaded.threshold, loaded.channel_axis) if loaded.is_segmentation else None
    runner = loaded.framework if against is Peer.TORCH else None
    return plan, runner or _graph_runner(portable_graph(plan)), segmentation


def _graph_runner(graph: Any) -> Runner:
    from voxelrt.plan.parity import ReferenceRunner

    return ReferenceRunner(graph).run


def _inputs(plan: Plan, arrays: Mapping[str, Array]) -> dict[str, Mapping[str, Array]]:
    """What to run on: the arrays given, or made-up ones."""
    from voxelrt.plan.kept import portable_graph
    from voxelrt.plan.parity import sample_inputs

    if not arrays:
        samples = sample_inputs(plan, portable_graph(plan))
        if not samples:
            raise UsageError("the model has inputs that cannot be made up: give them with --input")
        return dict(zip(("phantom", "noise"), samples, strict=True))
    missing = [io.name for io in plan.inputs if io.name not in arrays]
    if missing:
        raise UsageError(f"--input is missing for {', '.join(missing)}")
    wanted = {io.name: numpy_dtype(io.dtype) for io in plan.inputs}
    return {"given": {name: a.astype(wanted[name]) if name in wanted else a for name, a in arrays.items()}}
