"""What a plan says of its GPU part: values, and steps between them as data. No GPU and no library of one is needed.

A step is a TensorRT engine, or launches of our own kernels. Values lie in the device's memory in C order; a border
between two steps costs a pointer. Where the batch is a range, a value's first dimension is a multiple of it, and a
kernel step is launched once an item.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import ml_dtypes
import numpy as np

from voxelrt.errors import PlanError, UsageError
from voxelrt.plan.file import Section, SectionKind

Range = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]  # min, opt, max
MOST = 1 << 14  # steps, values, launches of a step, arguments of a launch
MOST_BYTES = 1 << 40
NORMS = ("engine", "kernels")
DTYPES: dict[str, np.dtype[Any]] = {
    name: np.dtype(name) for name in ("float32", "float16", "float64", "int8", "uint8", "int32", "int64", "bool")
} | {"bfloat16": np.dtype(ml_dtypes.bfloat16)}


@dataclass(frozen=True)
class GpuValue:
    """A value between steps, or of the plan's inputs and outputs.

    Parameters
    ----------
    dtype : its name in NumPy.
    dims : for a batch of one where the batch is a range.
    batched : whether its first dimension is a multiple of the batch.
    """

    dtype: str
    dims: tuple[int, ...]
    batched: bool

    @property
    def item_bytes(self) -> int:
        """Its bytes for a batch of one."""
        return int(np.prod(self.dims, dtype=np.int64)) * DTYPES[self.dtype].itemsize

    def dims_at(self, batch: int) -> tuple[int, ...]:
        """Its dims for a batch."""
        return (self.dims[0] * batch, *self.dims[1:]) if self.batched else self.dims

    def bytes_at(self, batch: int) -> int:
        """Its bytes for a batch."""
        return self.item_bytes * (batch if self.batched else 1)


@dataclass(frozen=True)
class EngineStep:
    """A TensorRT engine.

    Parameters
    ----------
    part : its number in the TYPED section and in each ENGINES section.
    inputs, outputs : names of values.
    profiles : input -> shapes (min, opt, max); empty where all are fixed.
    """

    part: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    profiles: dict[str, Range] = field(default_factory=dict)
    backend: str = "tensorrt"


@dataclass(frozen=True)
class StepBuffer:
    """Memory that a kernel step's launches point into: a value, a constant by its number, or scratch memory."""

    kind: str
    bytes: int
    value: str = ""
    constant: int = 0


@dataclass(frozen=True)
class Pointer:
    """An argument: an address, some bytes into a buffer of the step."""

    buffer: int
    offset: int


@dataclass(frozen=True)
class Number:
    """An argument: the bytes of a number, in hexadecimal."""

    type: str
    bits: str

    @property
    def bytes(self) -> bytes:
        return bytes.fromhex(self.bits)


@dataclass(frozen=True)
class GpuLaunch:
    """One launch of a kernel.

    Parameters
    ----------
    code : its number in the KERNELS sections.
    entry : its name there; empty where a section says it itself (Triton names entries by what they are compiled for).
    grid, block : blocks and threads along x, y, z.
    shared : dynamic shared memory in bytes, unless the section says it.
    arguments : in the kernel's order, without those that only a section knows of.
    """

    code: int
    entry: str
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    shared: int
    arguments: tuple[Pointer | Number, ...]


@dataclass(frozen=True)
class KernelStep:
    """Launches of one of our ops, in order.

    Parameters
    ----------
    op : the kernel's folder.
    backend : ``cuda`` or ``triton``.
    node : of the graph, that it carries out.
    inputs, outputs : names of values.
    buffers, launches : see there.
    repeated : whether it is launched once for each item of the batch, batched values one item further each time.
    """

    op: str
    backend: str
    node: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    buffers: tuple[StepBuffer, ...]
    launches: tuple[GpuLaunch, ...]
    repeated: bool


Step = EngineStep | KernelStep


@dataclass(frozen=True)
class EngineOptions:
    """How engines are built.

    Parameters
    ----------
    workspace : bytes that an engine's kernels may use beside its activations; None is the library's default.
    effort : 0 to 5, how long a library may look for fast kernels; None is its default.
    refit : build engines that take other weights: one that was built on a GPU serves every network of its structure.
    norms : ``engine`` leaves instance norms inside engines; ``kernels`` gives each, and the activation behind it, to
        our own kernel between two engines. Which is faster is measured by ``make gpu-acceptance``.
    """

    workspace: int | None = None
    effort: int | None = None
    refit: bool = False
    norms: str = "engine"

    def __post_init__(self) -> None:
        """Raises UsageError for what no library takes."""
        if self.effort is not None and not 0 <= self.effort <= 5:
            raise UsageError(f"the effort of building engines is 0 to 5, not {self.effort}")
        if self.workspace is not None and self.workspace < 0:
            raise UsageError(f"the workspace of engines is a number of bytes, not {self.workspace}")
        if self.norms not in NORMS:
            raise UsageError(f"norms go to one of {', '.join(NORMS)}, not to {self.norms!r}")


DEFAULT_OPTIONS = EngineOptions()


@dataclass(frozen=True)
class GpuPart:
    """What META says of the GPU part.

    Parameters
    ----------
    precision : ``fp32``, ``tf32``, ``fp16``, ``bf16``, or ``int8`` or ``fp8`` where the graph holds Q/DQ.
    library : that built the engines, with its version.
    architectures : architecture -> ``engine`` (built ahead of time) or ``on device``.
    steps : in order.
    values : name -> value, those of ``profiles`` and ``outputs`` among them.
    profiles : input -> shapes (min, opt, max).
    outputs : of the plan, in order.
    codes : what the KERNELS sections hold, in order, in words.
    graph : SHA-256 of the typed ONNX.
    build : how engines are built, where that is done on the GPU too.
    """

    precision: str
    library: str
    architectures: dict[str, str]
    steps: tuple[Step, ...]
    values: dict[str, GpuValue]
    profiles: dict[str, Range]
    outputs: tuple[str, ...]
    codes: tuple[str, ...]
    graph: str
    build: EngineOptions = DEFAULT_OPTIONS

    @property
    def batches(self) -> tuple[int, int]:
        """The least and the most items in a batch; (1, 1) where it is fixed."""
        ranged = [r for r in self.profiles.values() if r[0] != r[2]]
        return (ranged[0][0][0], ranged[0][2][0]) if ranged else (1, 1)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, raw: Any) -> GpuPart:
        """Raises PlanError where it is not what this version writes, or refers to what is not there."""
        try:
            if max(len(raw["steps"]), len(raw["values"])) > MOST:
                raise PlanError("the plan is damaged: number of GPU steps")
            values = {str(name): _value(v) for name, v in raw["values"].items()}
            part = cls(
                str(raw["precision"]),
                str(raw["library"]),
                {str(name): str(state) for name, state in raw["architectures"].items()},
                tuple(_step(s) for s in raw["steps"]),
                values,
                _ranges(raw["profiles"]),
                _names(raw["outputs"]),
                _names(raw["codes"]),
                str(raw["graph"]),
                _build(raw.get("build") or {}),
            )
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, UsageError) as error:
            raise PlanError("the plan is damaged: the description of its GPU part") from error
        _check(part)
        return part


def _value(raw: Any) -> GpuValue:
    dims = tuple(_whole(d) for d in raw["dims"])
    value = GpuValue(str(raw["dtype"]), dims, bool(raw["batched"]))
    if value.dtype not in DTYPES or (value.batched and not dims) or value.item_bytes > MOST_BYTES:
        raise ValueError(value.dtype)
    return value


def _whole(raw: Any, least: int = 0) -> int:
    if type(raw) is not int or not least <= raw <= MOST_BYTES:
        raise ValueError(raw)
    return raw


def _build(raw: Any) -> EngineOptions:
    sizes = {name: raw.get(name) for name in ("workspace", "effort")}
    return EngineOptions(
        **{k: None if v is None else _whole(v) for k, v in sizes.items()},
        refit=raw.get("refit") is True,
        norms=str(raw.get("norms", "engine")),
    )


def _names(raw: Any) -> tuple[str, ...]:
    if not isinstance(raw, list | tuple):
        raise TypeError(raw)
    return tuple(map(str, raw))


def _ranges(raw: Any) -> dict[str, Range]:
    return {str(name): as_range(shapes) for name, shapes in raw.items()}


def as_range(shapes: Any) -> Range:
    """Three shapes as a range. Raises ValueError where they are not three."""
    least, usual, most = (tuple(int(d) for d in shape) for shape in shapes)
    return least, usual, most


def _three(raw: Any, least: int = 1) -> tuple[int, int, int]:
    x, y, z = (_whole(v, least) for v in raw)
    return x, y, z


def _step(raw: Any) -> Step:
    inputs, outputs = _names(raw["inputs"]), _names(raw["outputs"])
    if raw["backend"] == "tensorrt":
        return EngineStep(_whole(raw["part"]), inputs, outputs, _ranges(raw["profiles"]))
    if raw["backend"] not in ("cuda", "triton") or max(len(raw["buffers"]), len(raw["launches"])) > MOST:
        raise ValueError(raw["backend"])
    return KernelStep(
        str(raw["op"]),
        str(raw["backend"]),
        str(raw["node"]),
        inputs,
        outputs,
        tuple(
            StepBuffer(str(b["kind"]), _whole(b["bytes"]), str(b["value"]), _whole(b["constant"]))
            for b in raw["buffers"]
        ),
        tuple(_launch(launch) for launch in raw["launches"]),
        bool(raw["repeated"]),
    )


def _launch(raw: Any) -> GpuLaunch:
    if len(raw["arguments"]) > MOST:
        raise ValueError("arguments")
    return GpuLaunch(
        _whole(raw["code"]),
        str(raw["entry"]),
        _three(raw["grid"]),
        _three(raw["block"]),
        _whole(raw["shared"]),
        tuple(
            Number(str(a["type"]), bytes.fromhex(a["bits"]).hex())
            if "bits" in a
            else Pointer(_whole(a["buffer"]), _whole(a["offset"]))
            for a in raw["arguments"]
        ),
    )


def _check(part: GpuPart) -> None:
    """Every name, number and offset leads to something, and every value is made before it is read.

    Raises
    ------
    PlanError : not so.
    """
    known = set(part.profiles)
    for number, step in enumerate(part.steps):
        if not set(step.inputs) <= known or not known.isdisjoint(step.outputs):
            raise PlanError(f"the plan is damaged: values of GPU step {number}")
        known.update(step.outputs)
        if isinstance(step, KernelStep):
            _check_kernel(part, step, number)
    if not known <= set(part.values) or not set(part.outputs) <= known:
        raise PlanError("the plan is damaged: values of its GPU part")


def _check_kernel(part: GpuPart, step: KernelStep, number: int) -> None:
    for buffer in step.buffers:
        mine = buffer.value in (*step.inputs, *step.outputs) and buffer.value in part.values
        if buffer.kind not in ("value", "constant", "scratch") or (
            buffer.kind == "value" and not (mine and part.values[buffer.value].item_bytes == buffer.bytes)
        ):
            raise PlanError(f"the plan is damaged: buffers of GPU step {number}")
    for launch in step.launches:
        pointers = [a for a in launch.arguments if isinstance(a, Pointer)]
        inside = all(p.buffer < len(step.buffers) and p.offset <= step.buffers[p.buffer].bytes for p in pointers)
        if launch.code >= len(part.codes) or not inside or int(np.prod(launch.block)) > 1024:
            raise PlanError(f"the plan is damaged: launches of GPU step {number}")


def engine_profiles(profiles: Mapping[str, Range]) -> list[Mapping[str, Range]]:
    """What a builder is told of shapes: nothing where all are fixed."""
    ranged = any(least != most for least, _, most in profiles.values())
    return [dict(profiles)] if ranged else []


# ---- sections ----


def pack_parts(kind: SectionKind, parts: Sequence[bytes], target: str) -> Section:
    """A section of several parts: a JSON line of sizes, then the parts."""
    data = json.dumps([len(part) for part in parts]).encode() + b"\n" + b"".join(parts)
    return Section(kind, np.frombuffer(data, np.uint8), target)


def parts_of(section: bytes) -> list[bytes]:
    """The parts of a section that ``pack_parts`` wrote.

    Raises
    ------
    PlanError : the sizes are not those of the section.
    """
    line, _, rest = section.partition(b"\n")
    try:
        raw = json.loads(line) if len(line) < 1 << 18 else None
    except (ValueError, RecursionError):
        raw = None
    sizes = [n for n in raw if type(n) is int and n >= 0] if isinstance(raw, list) else []
    if not isinstance(raw, list) or len(sizes) != len(raw) or sum(sizes) != len(rest):
        raise PlanError("the plan is damaged: sizes of the parts of a GPU section")
    made, at = [], 0
    for size in sizes:
        made.append(rest[at : at + size])
        at += size
    return made
