"""voxelrt info: what a model, a plan or a study is."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from voxelrt.commands.compile import counts, parity_text
from voxelrt.commands.console import Screen
from voxelrt.commands.models import is_plan, open_plan
from voxelrt.commands.options import (
    Fallback,
    FallbackOption,
    JsonOption,
    QuietOption,
    RepairOption,
    SeriesOption,
    ShapeOption,
    VolumeOption,
    parse_shapes,
)
from voxelrt.errors import UsageError
from voxelrt.kernels.common.capi import numpy_dtype
from voxelrt.models.formats.nnunet_folder import is_nnunet_folder
from voxelrt.models.recipe import shipped_recipes
from voxelrt.plan.description import gpu_line, memory_of, step_rows
from voxelrt.plan.gpu_steps import GpuPart
from voxelrt.plan.plan import Plan

MODEL_SUFFIXES = (".onnx", ".pb", ".toml", ".safetensors", ".pt2", ".pt", ".pth")


def info(
    what: Annotated[
        str, typer.Argument(metavar="MODEL|PLAN|STUDY", help="A model, a recipe's name, a .vxp plan, or an image.")
    ],
    shape: ShapeOption = None,
    fallback: FallbackOption = Fallback.ONNXRUNTIME,
    describe: Annotated[bool, typer.Option("--describe", help="Every node and every step.")] = False,
    series: SeriesOption = None,
    volume: VolumeOption = None,
    repair: RepairOption = False,
    with_identifiers: Annotated[
        bool, typer.Option("--with-identifiers", help="Of DICOM: descriptions and UIDs in full.")
    ] = False,
    json: JsonOption = None,
    quiet: QuietOption = False,
) -> None:
    """Say what a model, a plan or a study is. Never shows who a study is of.

    Of a model: inputs, outputs, parameters, operations; at a shape also FLOPs, memory and where the nodes run.

    [bold]Examples[/]

      voxelrt info brain-extraction

      voxelrt info net.onnx --shape input=1,1,96,96,96 --describe

      voxelrt info net.pt2 --json -

      voxelrt info head.nii.gz --json -

      voxelrt info dicom-folder/

      voxelrt info study.zip --series 3
    """
    screen = Screen(quiet=quiet, json_to=json)
    if is_plan(what):
        screen.json(_plan(open_plan(what, threads=None, shapes=parse_shapes(shape)), screen, describe))
    elif what in shipped_recipes() or Path(what).suffix in MODEL_SUFFIXES or is_nnunet_folder(Path(what)):
        screen.json(_model(what, shape, fallback.value, screen, describe))
    else:
        if shape:
            raise UsageError("--shape is for models")
        from voxelrt.commands.study_info import study_info

        screen.json(
            study_info(what, screen, series=series, volume=volume, repair=repair, with_identifiers=with_identifiers)
        )


def _model(what: str, shape: list[str] | None, fallback: str, screen: Screen, describe: bool) -> dict[str, Any]:
    from voxelrt.compile import compile as compile_model
    from voxelrt.models.load import load
    from voxelrt.preprocess.contract import recipe_shapes

    with screen.progress() as (_, say):
        loaded = load(what, progress=say, shapes=parse_shapes(shape))
        graph = loaded.graph.graph
        ops = Counter(node.op_type for node in graph)
        known = [v.const_value for v in graph.initializers.values() if v.const_value is not None]
        data: dict[str, Any] = {
            "kind": "model",
            "name": loaded.name,
            "format": loaded.source.get("format"),
            "inputs": [_value(v) for v in graph.inputs if v.name not in graph.initializers],
            "outputs": [_value(v) for v in graph.outputs],
            "parameters": sum(int(w.size) for w in known if w.dtype is not None and w.dtype.is_floating_point()),
            "ops": dict(ops.most_common()),
            "notes": list(loaded.source.get("notes", ())),
        }
        if loaded.recipe is not None:
            data |= {"title": loaded.recipe.title, "licence": loaded.recipe.licence, "citation": loaded.recipe.citation}
        say("lowering")
        shapes: Any = parse_shapes(shape) or (recipe_shapes(loaded.recipe) if loaded.recipe else None)
        is_open = any(d is None or isinstance(d, str) for value in data["inputs"] for d in value["shape"])
        plan = None
        if shapes is not None or not is_open:
            plan = compile_model(loaded, shapes=shapes, verify=False, fallback=fallback)
    _lines(data, screen)
    if plan is None:
        screen.line("shapes are open: --shape NAME=1,1,128,128,128 shows FLOPs and where the nodes run")
        return data
    return data | {"at_shape": _work(plan, screen, describe)}


def _plan(plan: Plan, screen: Screen, describe: bool) -> dict[str, Any]:
    data: dict[str, Any] = {
        "kind": "plan",
        "name": plan.info.name,
        "precision": plan.info.precision,
        "targets": plan.targets,
        "inputs": [
            {"name": io.name, "shape": list(io.dims), "dtype": str(numpy_dtype(io.dtype))} for io in plan.inputs
        ],
        "outputs": [
            {"name": io.name, "shape": list(io.dims), "dtype": str(numpy_dtype(io.dtype))} for io in plan.outputs
        ],
        "variants": len(plan.variants),
        "has_recipe": bool(plan.info.recipe),
        "parity": [vars(line) for line in plan.parity],
    }
    _lines(data, screen)
    if "gpu" in plan.info.settings:
        part = GpuPart.from_json(plan.info.settings["gpu"])
        data["gpu"] = {name: part.to_json()[name] for name in ("precision", "library", "architectures", "build")}
        screen.line(gpu_line(part))
    for line in plan.parity:
        screen.line(f"parity, {line.name}: {parity_text(line)}")
    return data | {"at_shape": _work(plan, screen, describe)}


def _work(plan: Plan, screen: Screen, describe: bool) -> dict[str, Any]:
    """FLOPs, steps and placement of the first variant."""
    rows = step_rows(plan)
    flops, placed, memory = sum(row["flops"] for row in rows), counts(plan), memory_of(plan)
    where = ", ".join(f"{count} in {backend}" for backend, count in placed.items())
    screen.line(f"one run: {flops / 1e9:.2f} GFLOP in {len(rows)} steps; nodes: {where}")
    sizes = ", ".join(f"{name} {size / 2**20:.1f} MiB" for name, size in memory.items())
    screen.line(f"memory: {sizes}")
    operators = _operators(plan)
    screen.table(
        ("operator", ">nodes", *(f">{backend}" for backend in placed)),
        [(op, sum(where.values()), *(where.get(backend, 0) for backend in placed)) for op, where in operators.items()],
    )
    for placement in plan.info.placements:
        if placement.backend != "native":
            screen.line(f"  {placement.node} ({placement.op}) runs in {placement.backend}: {placement.why}")
    if describe:
        screen.line(plan.describe())
    return {
        "flops": flops,
        "steps": len(rows),
        "placements": placed,
        "memory_bytes": memory,
        "operators": operators,
        "inputs": {io.name: list(io.dims) for io in plan.inputs},
        "outputs": {io.name: list(io.dims) for io in plan.outputs},
    }


def _operators(plan: Plan) -> dict[str, dict[str, int]]:
    """Operator -> backend -> how many nodes of the specialised graph it takes, the most frequent first."""
    found: dict[str, dict[str, int]] = {}
    for placement in plan.info.placements:
        places = found.setdefault(placement.op, {})
        places[placement.backend] = places.get(placement.backend, 0) + 1
    return dict(sorted(found.items(), key=lambda item: -sum(item[1].values())))


def _value(value: Any) -> dict[str, Any]:
    shape = [d if isinstance(d, int) else getattr(d, "value", None) for d in value.shape or ()]
    return {"name": str(value.name), "shape": shape, "dtype": str(value.dtype).lower() if value.dtype else "unknown"}


def _lines(data: dict[str, Any], screen: Screen) -> None:
    screen.line(f"{data['name']}: {data.get('title') or data['kind']}")
    for side in ("inputs", "outputs"):
        for value in data[side]:
            sizes = " × ".join("?" if d is None else str(d) for d in value["shape"])
            screen.line(f"{side[:-1]} {value['name']}: {sizes}, {value['dtype']}")
    if "parameters" in data:
        ops = ", ".join(f"{count} {op}" for op, count in data["ops"].items())
        screen.line(f"{data['parameters']:,} parameters; {ops}")
    for name in ("licence", "citation"):
        if data.get(name):
            screen.line(f"{name}: {data[name]}")
    for note in data.get("notes", ()):
        screen.line(f"note: {note}")
