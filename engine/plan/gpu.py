"""The GPU part of a plan: engines for each architecture, the typed ONNX they were built of, and the order of steps.

    META settings["gpu"]     precision, library, architectures, steps, inputs and outputs
    TYPED   cuda             the ONNX of each TensorRT step, in the types to compute in: engines are rebuilt from it
    ENGINES sm_86 …          the engine of each TensorRT step for one architecture

An architecture that no library here builds for has no ENGINES section: its engines are built where it runs, and kept.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir

from voxelrt.backends.tensorrt import EngineRequest, Range, build_engine, unsupported_nodes, version
from voxelrt.backends.tensorrt_libraries import RTX, check_architecture
from voxelrt.errors import PlanError, UnsupportedError, UsageError
from voxelrt.graph.passes import lower_precision
from voxelrt.graph.specialise import specialise
from voxelrt.plan.file import Section, SectionKind
from voxelrt.plan.islands import MAX_BYTES

PRECISIONS = ("fp32", "tf32", "fp16", "bf16", "int8")
TYPED_TARGET = "cuda"
MOST_STEPS = 1024
Tell = Callable[[str], None]


@dataclass(frozen=True)
class GpuStep:
    """One step: a TensorRT engine, between values of the graph by name."""

    backend: str
    part: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class GpuPart:
    """What META says of the GPU part.

    Parameters
    ----------
    precision : ``fp32``, ``tf32``, ``fp16``, ``bf16``, or ``int8`` where the graph holds Q/DQ.
    library : that built the engines, with its version.
    architectures : architecture -> ``engine`` (built ahead of time) or ``on device``.
    steps : in order.
    profiles : input -> shapes (min, opt, max).
    graph : SHA-256 of the typed ONNX.
    """

    precision: str
    library: str
    architectures: dict[str, str]
    steps: tuple[GpuStep, ...]
    profiles: dict[str, Range]
    graph: str
    notes: tuple[str, ...] = field(default=())

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, raw: Any) -> GpuPart:
        """Raises PlanError where it is not what this version writes."""
        try:
            if len(raw["steps"]) > MOST_STEPS:
                raise PlanError("the plan is damaged: number of GPU steps")
            steps = tuple(
                GpuStep(str(s["backend"]), int(s["part"]), tuple(map(str, s["inputs"])), tuple(map(str, s["outputs"])))
                for s in raw["steps"]
            )
            profiles = {str(name): _range(shapes) for name, shapes in raw["profiles"].items()}
            words = {name: str(raw[name]) for name in ("precision", "library", "graph")}
            built = {str(name): str(state) for name, state in raw["architectures"].items()}
            return cls(
                words["precision"], words["library"], built, steps, profiles, words["graph"], tuple(raw["notes"])
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise PlanError("the plan is damaged: the description of its GPU part") from error


def _range(shapes: Any) -> Range:
    least, usual, most = (tuple(int(d) for d in shape) for shape in shapes)
    return least, usual, most


def gpu_part(
    model: ir.Model,
    profiles: Mapping[str, Range],
    precision: str,
    architectures: Sequence[str],
    say: Tell = lambda line: None,
) -> tuple[GpuPart, list[Section]]:
    """Build the GPU part.

    Parameters
    ----------
    model : specialised, float32; changed in place.
    profiles : input -> shapes (min, opt, max), for every input.
    precision : one of ``PRECISIONS``.
    architectures : such as ``sm_86``.
    say : called with a line of text before each engine.

    Returns
    -------
    The description, and the sections that go beside the CPU's.

    Raises
    ------
    UsageError : an unknown architecture or precision, or one that does not have the other.
    UnsupportedError : nodes that TensorRT does not take, all of them named; weights that the precision cannot hold.
    MissingExtraError : TensorRT-RTX is not installed. EngineError : it reported an error.
    """
    if precision not in PRECISIONS:
        raise UsageError(f"precision {precision!r} is not there for GPUs; choose from {', '.join(PRECISIONS)}")
    if not architectures:
        raise UsageError("name the GPUs to compile for: --arch sm_86,sm_89 (nvidia-smi --query-gpu=compute_cap tells)")
    for name in architectures:
        check_architecture(name, precision)
    inputs, outputs = (tuple(str(v.name) for v in values) for values in (model.graph.inputs, model.graph.outputs))
    typed = _typed(model, profiles, precision)
    refused = unsupported_nodes(typed)
    if refused:
        raise UnsupportedError(f"TensorRT does not take {len(refused)} of the network's nodes:", refused)
    request = EngineRequest(typed, engine_profiles(profiles), tf32=precision == "tf32")
    sections = [_section(SectionKind.TYPED, [typed], TYPED_TARGET)]
    states = {}
    for name in dict.fromkeys(architectures):
        states[name] = "engine" if name in RTX.targets else "on device"
        if name in RTX.targets:
            say(f"building the engine for {name}")
            sections.append(_section(SectionKind.ENGINES, [build_engine(request, name)], name))
    part = GpuPart(
        precision,
        f"{RTX.module} {version()}",
        states,
        (GpuStep("tensorrt", 0, inputs, outputs),),
        dict(profiles),
        hashlib.sha256(typed).hexdigest(),
    )
    return part, sections


def at_shapes(
    graph: ir.Model, shapes: Mapping[str, Sequence[int | tuple[int, int, int]]], constants: Mapping[str, Any]
) -> tuple[ir.Model, dict[str, Range]]:
    """The graph with every shape known but the batch, and the profile of its inputs.

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

    model = fixed(1)
    if ranged and _essence(model) != _essence(fixed(2)):
        raise UsageError("the network is another one for each batch (its constants change); compile one batch size")
    profiles = {}
    for value in model.graph.inputs:
        own = tuple(int(d) for d in value.shape or ())  # type: ignore[arg-type]
        name = str(value.name)
        batches: tuple[int, int, int] = shapes[name][0] if name in ranged else (own[0],) * 3 if own else (0, 0, 0)  # type: ignore[assignment]
        profiles[name] = _range([(batch, *own[1:]) for batch in batches] if own else [()] * 3)
    return model, profiles


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


def _typed(model: ir.Model, profiles: Mapping[str, Range], precision: str) -> bytes:
    """The model in the types to compute in; a first dimension that has a range becomes symbolic."""
    if precision in ("fp16", "bf16"):
        model = lower_precision.run(model, precision)
    if any(least != most for least, _, most in profiles.values()):
        for value in (*model.graph.inputs, *(v for node in model.graph for v in node.outputs)):
            if value.shape is not None and len(value.shape):
                dims = list(value.shape)
                value.shape = ir.Shape(["batch", *dims[1:]]) if value in model.graph.inputs else None
    size = sum(v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value is not None)
    if size > MAX_BYTES:
        raise UnsupportedError(f"the network has {size} bytes of weights; an engine is built of at most {MAX_BYTES}")
    return bytes(ir.serde.serialize_model(model).SerializeToString())


def engine_profiles(profiles: Mapping[str, Range]) -> list[Mapping[str, Range]]:
    """What a builder is told of shapes: nothing where all are fixed."""
    ranged = any(least != most for least, _, most in profiles.values())
    return [dict(profiles)] if ranged else []


def _section(kind: SectionKind, parts: Sequence[bytes], target: str) -> Section:
    """A JSON line of sizes, then the parts."""
    data = json.dumps([len(part) for part in parts]).encode() + b"\n" + b"".join(parts)
    return Section(kind, np.frombuffer(data, np.uint8), target)


def parts_of(section: bytes) -> list[bytes]:
    """The parts of a section that ``_section`` wrote.

    Raises
    ------
    PlanError : the sizes are not those of the section.
    """
    line, _, rest = section.partition(b"\n")
    try:
        raw = json.loads(line) if len(line) < 1 << 16 else None
    except ValueError:
        raw = None
    sizes = [n for n in raw if type(n) is int and n >= 0] if isinstance(raw, list) else []
    if not isinstance(raw, list) or len(sizes) != len(raw) or sum(sizes) != len(rest):
        raise PlanError("the plan is damaged: sizes of the parts of a GPU section")
    made, at = [], 0
    for size in sizes:
        made.append(rest[at : at + size])
        at += size
    return made
