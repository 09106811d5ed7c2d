"""The GPU part of a plan: engines and kernels for each architecture, the typed ONNX of the engines, and the steps.

    META settings["gpu"]     precision, library, architectures, values, steps (``gpu_steps.py``)
    TYPED   cuda             the ONNX of each TensorRT step, in the types to compute in: engines are rebuilt from it
    ENGINES sm_86 …          the engine of each TensorRT step for one architecture
    KERNELS sm_86 …, cuda    our kernels' code for one architecture, and the constants they read (``gpu_codes.py``)

An architecture that no library here builds for has no ENGINES section: its engines are built where it runs, and kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import onnx_ir as ir

from voxelrt.backends.tensorrt import EngineRequest, Progress, build_engine, unsupported_nodes, version
from voxelrt.backends.tensorrt_libraries import RTX, check_architecture, parser
from voxelrt.errors import UnsupportedError, UsageError
from voxelrt.graph.specialise import specialise
from voxelrt.plan.file import Section, SectionKind
from voxelrt.plan.gpu_codes import CONSTANTS_TARGET, add_window_codes
from voxelrt.plan.gpu_partition import partition, prepare
from voxelrt.plan.gpu_steps import (
    DEFAULT_OPTIONS,
    EngineOptions,
    EngineStep,
    GpuPart,
    Range,
    as_range,
    engine_profiles,
    pack_parts,
)

PRECISIONS = ("fp32", "tf32", "fp16", "bf16", "int8", "fp8")
TYPED_TARGET = "cuda"
Tell = Callable[[str], None]


def gpu_part(
    model: ir.Model,
    profiles: Mapping[str, Range],
    precision: str,
    architectures: Sequence[str],
    say: Tell = lambda line: None,
    *,
    twice: ir.Model | None = None,
    windows: bool = False,
    options: EngineOptions = DEFAULT_OPTIONS,
    progress: Progress | None = None,
) -> tuple[GpuPart, list[Section]]:
    """Build the GPU part.

    Parameters
    ----------
    model : specialised, float32; changed in place.
    profiles : input -> shapes (min, opt, max), for every input.
    precision : one of ``PRECISIONS``.
    architectures : such as ``sm_86``.
    say : called with a line of text before each engine, and for each node that a kernel of ours might have taken.
    twice : where the batch is a range, the same model for a batch of two, while `model` is for one.
    windows : add the kernels that gather, sum and decide windows of studies.
    options : how engines are built, here and on the GPU.
    progress : called with (phase, step, steps) while an engine is built.

    Returns
    -------
    The description, and the sections that go beside the CPU's.

    Raises
    ------
    UsageError : an unknown architecture or precision, or one that does not have the other.
    UnsupportedError : nodes that run nowhere on GPUs, all of them named; weights that the precision cannot hold.
    MissingExtraError : TensorRT-RTX is not installed (for GPUs that it does not know, TensorRT will do).
    EngineError : it reported an error.
    DeviceError : a compiler of kernels is missing, or refused.
    """
    if precision not in PRECISIONS:
        raise UsageError(f"precision {precision!r} is not there for GPUs; choose from {', '.join(PRECISIONS)}")
    if not architectures:
        raise UsageError("name the GPUs to compile for: --arch sm_86,sm_89 (nvidia-smi --query-gpu=compute_cap tells)")
    for name in architectures:
        check_architecture(name, precision)
    outputs = tuple(str(v.name) for v in model.graph.outputs)
    model, taken, notes = prepare(model, precision, options.norms)
    if twice is not None:
        twice, _, _ = prepare(twice, precision, options.norms)
        if _essence(model) != _essence(twice):
            raise UsageError("the network is another one for each batch (its constants change); compile one batch size")
    for note in notes:
        say(f"no kernel of ours for {note}")
    parts = partition(model, taken, profiles, twice)
    if windows:
        add_window_codes(parts.codes)
    library = parser()
    refused = [line for typed in parts.typed for line in unsupported_nodes(typed, library)]
    if refused:
        raise UnsupportedError(f"TensorRT does not take {len(refused)} of the network's nodes:", refused)
    engines = [step for step in parts.steps if isinstance(step, EngineStep)]
    requests = [
        EngineRequest(typed, engine_profiles(step.profiles), precision == "tf32", options)
        for typed, step in zip(parts.typed, engines, strict=True)
    ]
    sections = [pack_parts(SectionKind.TYPED, parts.typed, TYPED_TARGET)]
    if parts.codes.names:
        sections.append(pack_parts(SectionKind.KERNELS, parts.constants, CONSTANTS_TARGET))
    states = {}
    for name in dict.fromkeys(architectures):
        states[name] = "engine" if name in RTX.targets else "on device"
        if parts.codes.names:
            say(f"compiling {len(parts.codes.names)} kernels for {name}")
            sections.append(parts.codes.section(name))
        if name in RTX.targets:
            say(f"building {'the engine' if len(requests) == 1 else f'{len(requests)} engines'} for {name}")
            built = [build_engine(request, name, progress=progress) for request in requests]
            sections.append(pack_parts(SectionKind.ENGINES, built, name))
    part = GpuPart(
        precision=precision,
        library=f"{library.module} {version(library)}",
        architectures=states,
        steps=tuple(parts.steps),
        values=parts.values,
        profiles=dict(profiles),
        outputs=outputs,
        codes=parts.codes.names,
        graph=hashlib.sha256(b"".join(parts.typed)).hexdigest(),
        build=options,
    )
    return part, sections


def at_shapes(
    graph: ir.Model, shapes: Mapping[str, Sequence[int | tuple[int, int, int]]], constants: Mapping[str, Any]
) -> tuple[ir.Model, dict[str, Range], ir.Model | None]:
    """The graph at fixed shapes, the profile of its inputs and, where the batch is a range, the graph at two items.

    Parameters
    ----------
    graph : as loaded.
    shapes : input -> dims; the first of an input may be a range (min, opt, max).
    constants : as for ``voxelrt.compile``.

    Raises
    ------
    UsageError : another dimension is a range, or the graph is another one for each batch.
    """
    for name, dims in shapes.items():
        if any(isinstance(d, tuple) for d in dims[1:]):
            raise UsageError(f"{name}: on GPUs the batch alone may be a range; give other dimensions one size each")
    ranged = {name for name, dims in shapes.items() if dims and isinstance(dims[0], tuple)}

    def fixed(batch: int) -> ir.Model:
        static = {name: tuple(batch if isinstance(d, tuple) else int(d) for d in dims) for name, dims in shapes.items()}
        return specialise(graph, static, constants)

    model, twice = fixed(1), fixed(2) if ranged else None
    profiles = {}
    for value in model.graph.inputs:
        own = tuple(int(d) for d in value.shape or ())  # type: ignore[arg-type]
        name = str(value.name)
        batches: tuple[int, int, int] = shapes[name][0] if name in ranged else (own[0],) * 3 if own else (0, 0, 0)  # type: ignore[assignment]
        profiles[name] = as_range([(batch, *own[1:]) for batch in batches] if own else [()] * 3)
    return model, profiles, twice


def _essence(model: ir.Model) -> str:
    """A digest of nodes and constants; shapes of values are not in it."""
    digest = hashlib.sha256()
    for name, value in sorted(model.graph.initializers.items()):
        tensor = value.const_value
        digest.update(name.encode() + (b"" if tensor is None else tensor.tobytes()))
    for node in model.graph:
        names = [str(v.name) for v in (*node.inputs, *node.outputs) if v is not None]
        digest.update(f"{node.domain}.{node.op_type} {names} {sorted(map(str, node.attributes.values()))}".encode())
    return digest.hexdigest()
