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
from voxelrt.plan.plan import ParityLine, Plan

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
) -> Plan:
    """The plan with a GPU part.

    Parameters
    ----------
    plan : for the CPU.
    graph : that it was made of.
    sets, constants, precision, arch, progress : as for ``voxelrt.compile``.

    Raises
    ------
    UsageError : several sets of shapes, an unknown architecture or precision. UnsupportedError : nodes that run
        nowhere on GPUs. MissingExtraError, EngineError : see ``plan/gpu.py``.
    """
    if len(sets) > 1:
        raise UsageError("for GPUs a plan has one set of shapes; give the batch a range instead")
    if plan.parts:
        raise UsageError(f"{plan.info.name} has several networks (a cascade); for GPUs compile one at a time")
    model, profiles, twice = at_shapes(graph, sets[0], constants)
    part, sections = gpu_part(model, profiles, precision, arch, progress or (lambda line: None), twice=twice)
    lines = [*plan.parity, ParityLine("gpu plan", "pending", "the first load on a GPU")]
    info = replace(plan.info, settings={**plan.info.settings, "gpu": part.to_json()}, parity=lines)
    return plan.with_sections(sections, info)
