"""The GPU part of compiling: engines beside the CPU's sections of a plan.

specialise (the batch may stay open) → lower types → build for each architecture → put into the plan
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import onnx_ir as ir

from voxelrt.errors import UsageError
from voxelrt.plan.gpu import at_shapes, gpu_part
from voxelrt.plan.gpu_steps import DEFAULT_OPTIONS, EngineOptions
from voxelrt.plan.info import ParityLine
from voxelrt.plan.plan import Plan

# Windows in one run: the least, what is aimed at, the most.
WINDOWS = (1, 2, 4)
Shapes = Mapping[str, Sequence[int | tuple[int, int, int]]]


def with_gpu(
    plan: Plan,
    graph: ir.Model,
    sets: Sequence[Shapes],
    constants: Mapping[str, Any],
    *,
    precision: str,
    arch: Sequence[str],
    progress: Callable[[str], None] | None = None,
    engine: EngineOptions = DEFAULT_OPTIONS,
    tell: Callable[[str, int, int], None] | None = None,
    windows: bool = False,
) -> Plan:
    """The plan with a GPU part.

    Parameters
    ----------
    plan : for the CPU.
    graph : that it was made of.
    sets, constants, precision, arch, progress, engine, tell : as for ``voxelrt.compile``.
    windows : the network sees windows of studies, as nnU-Net's do: an open batch, and kernels for them.

    Raises
    ------
    UsageError : several sets of shapes, an unknown architecture or precision. UnsupportedError : nodes that run
        nowhere on GPUs. MissingExtraError, EngineError : see ``plan/gpu.py``.
    """
    if len(sets) > 1:
        raise UsageError("for GPUs a plan has one set of shapes; give the batch a range instead")
    windows = windows or plan.info.model_settings is not None
    if windows and not sets[0] and precision not in ("int8", "fp8"):
        graph, sets = _open_batch(graph)
    model, profiles, twice = at_shapes(graph, sets[0], constants)
    say = progress or (lambda line: None)
    options: dict[str, Any] = {"twice": twice, "windows": windows, "options": engine, "progress": tell}
    part, sections = gpu_part(model, profiles, precision, arch, say, **options)
    lines = [*plan.parity, ParityLine("gpu plan", "pending", "the first load on a GPU")]
    info = replace(plan.info, settings={**plan.info.settings, "gpu": part.to_json()}, parity=lines)
    return plan.with_sections(sections, info)


def _open_batch(graph: ir.Model) -> tuple[ir.Model, list[Shapes]]:
    """A network of windows with an open batch, and its range; its file fixes the batch at one."""
    graph = graph.clone()
    shapes: Shapes = {}
    for value in graph.graph.inputs:
        dims = [int(d) for d in value.shape or ()]  # type: ignore[arg-type]
        value.shape = ir.Shape(["batch", *dims[1:]])
        shapes = {**shapes, str(value.name): [WINDOWS, *dims[1:]]}
    for value in (*graph.graph.outputs, *(v for node in graph.graph for v in node.outputs)):
        value.shape = None
    return graph, [shapes]
