"""voxelrt compile: a model in, a .vxp plan out."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from voxelrt.commands.console import Screen
from voxelrt.commands.options import (
    MODEL_HELP,
    ArchOption,
    ConfigurationOption,
    Device,
    DeviceOption,
    EngineEffortOption,
    EngineWorkspaceOption,
    Fallback,
    FallbackOption,
    FoldsOption,
    GpuNorms,
    GpuNormsOption,
    JsonOption,
    Precision,
    PrecisionOption,
    QuietOption,
    RefitOption,
    ShapeOption,
    ThreadsOption,
    Tune,
    TuneOption,
    WeightsMemoryOption,
    parse_arch,
    parse_folds,
    parse_shapes,
)
from voxelrt.errors import OutputError, UsageError
from voxelrt.memory_size import parse_size
from voxelrt.plan.description import gpu_line
from voxelrt.plan.gpu_steps import EngineOptions, GpuPart
from voxelrt.plan.info import ParityLine
from voxelrt.plan.plan import Plan
from voxelrt.preprocess.contract import recipe_shapes


def compile_command(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP)],
    out: Annotated[Path, typer.Option("-o", "--output", metavar="PLAN", help="The plan to write, .vxp.")],
    shape: ShapeOption = None,
    configuration: ConfigurationOption = None,
    folds: FoldsOption = None,
    device: DeviceOption = Device.AUTO,
    arch: ArchOption = None,
    precision: PrecisionOption = Precision.FP32,
    fallback: FallbackOption = Fallback.ONNXRUNTIME,
    verify: Annotated[
        bool,
        typer.Option("--verify/--no-verify", help="Measure the plan against another executor; fail if it departs."),
    ] = True,
    describe: Annotated[bool, typer.Option("--describe", help="Say where every node runs and why.")] = False,
    threads: ThreadsOption = None,
    tune: TuneOption = Tune.FAST,
    weights_memory: WeightsMemoryOption = None,
    engine_workspace: EngineWorkspaceOption = None,
    engine_effort: EngineEffortOption = None,
    refit: RefitOption = False,
    gpu_norms: GpuNormsOption = GpuNorms.ENGINE,
    calibration: Annotated[
        list[Path] | None,
        typer.Option(
            "--calibration",
            metavar="PATH",
            help="int8: a study, .npy or .npz to calibrate on; auto: to compare labels on. Repeatable.",
        ),
    ] = None,
    calibration_method: Annotated[
        str, typer.Option("--calibration-method", help="minmax, percentile or mse.")
    ] = "percentile",
    label_agreement: Annotated[
        float,
        typer.Option(
            "--label-agreement", metavar="SHARE", help="auto: of the foreground's voxels, how many must be fp32's."
        ),
    ] = 0.999,
    json: JsonOption = None,
    quiet: QuietOption = False,
) -> None:
    """Compile a model for this machine, or for GPUs elsewhere, into a plan (.vxp), and measure its answer.

    [bold]Examples[/]

      voxelrt compile brain-extraction -o brain.vxp

      voxelrt compile net.onnx -o net.vxp --shape input=1,1,128,128,128

      voxelrt compile net.onnx -o net.vxp --shape input=1:4:8,1,96,96,96 --fallback error

      voxelrt compile Dataset003_Liver/ -o liver.vxp --configuration 3d_fullres --folds 0,1

      voxelrt compile net.onnx -o net.vxp --tune full --weights-memory 400MiB

      voxelrt compile net.onnx -o net.vxp --precision int8 --calibration scan.npy

      voxelrt compile brain-extraction -o brain.vxp --precision auto --label-agreement 0.999

      voxelrt compile net.onnx -o net.vxp --device cuda --arch sm_86,sm_89 --precision fp16
    """
    # Importers and passes take a second to import, which `voxelrt --help` should not cost.
    from voxelrt.compile import compile as compile_model
    from voxelrt.models.load import load
    from voxelrt.quantise import read_calibration

    screen = Screen(quiet=quiet, json_to=json)
    if out.suffix != ".vxp":
        raise UsageError(f"{out.name!r}: the name of a plan ends in .vxp")
    if not out.parent.is_dir():
        raise OutputError(f"cannot write {out.name!r}: there is no such folder; make it first")
    started = time.perf_counter()
    workspace = None if engine_workspace is None else parse_size(engine_workspace, "--engine-workspace")
    with screen.progress() as (tell, say):
        loaded = load(
            model,
            progress=say,
            shapes=parse_shapes(shape),
            configuration=configuration,
            folds=parse_folds(folds),
        )
        say(f"compiling {loaded.name}")
        shapes: Any = parse_shapes(shape) or (recipe_shapes(loaded.recipe) if loaded.recipe is not None else None)
        exactly: dict[str, Any] = {"shapes": shapes, "verify": False, "tune": "off", "threads": threads}
        real = read_calibration(calibration or (), loaded, lambda m: compile_model(m, **exactly))
        auto = precision is Precision.AUTO
        plan = compile_model(
            loaded,
            calibration=() if auto else real,
            samples=real if auto else (),
            label_agreement=label_agreement,
            calibration_method=calibration_method,
            device=device.value,
            arch=parse_arch(arch),
            precision=precision.value,
            shapes=shapes,
            verify=verify,
            fallback=fallback.value,
            threads=threads,
            tune=tune.value,
            weights_memory=weights_memory,
            progress=say,
            engine=EngineOptions(workspace, engine_effort, refit, gpu_norms.value),
            tell=tell,
        )
        say("writing")
        plan.save(out)
    for note in loaded.source.get("notes", ()):
        screen.line(f"note: {note}")
    if describe:
        screen.line(plan.describe())
    else:
        _show(plan, screen)
    seconds, size = time.perf_counter() - started, out.stat().st_size
    screen.line(f"wrote {out}, {size / 2**20:.1f} MiB, in {seconds:.1f} s")
    screen.json(
        {
            "out": str(out),
            "bytes": size,
            "seconds": seconds,
            "name": plan.info.name,
            "targets": plan.targets,
            "placements": counts(plan),
            "parity": [vars(line) for line in plan.parity],
        }
    )


def counts(plan: Plan) -> dict[str, int]:
    """How many nodes run in which backend."""
    found: dict[str, int] = {}
    for placement in plan.info.placements:
        found[placement.backend] = found.get(placement.backend, 0) + 1
    return found


def parity_text(line: ParityLine) -> str:
    """One line of the parity report in words."""
    against = f" against {line.against}" if line.against else ""
    figure = f", relative {line.relative:.1e}, maximum {line.maximum:.1e}" if line.relative is not None else ""
    return f"{line.status}{against}{figure}"


def _show(plan: Plan, screen: Screen) -> None:
    screen.line("nodes: " + ", ".join(f"{count} in {backend}" for backend, count in counts(plan).items()))
    if "gpu" in plan.info.settings:
        screen.line(gpu_line(GpuPart.from_json(plan.info.settings["gpu"])))
    for line in plan.parity:
        screen.line(f"parity, {line.name}: {parity_text(line)}")
