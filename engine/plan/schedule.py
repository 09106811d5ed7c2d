"""The schedule: how a graph runs. Typed steps over operands; what the C++ executor reads.

A schedule has weights, shared by all, and one variant for each set of input shapes. ``serialise`` writes the compiled
section that ``kernels/common/format.h`` describes; the record layouts below mirror its structs and are checked
against the library's own sizes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxelrt.errors import PlanError
from voxelrt.kernels.common import capi, native

LINEAR, BLOCKED16 = native.LINEAR, native.BLOCKED16
HOST_STEP = "host.island"


class Kind(IntEnum):
    """Where an operand's memory is."""

    NONE = 0
    ARENA = 1
    WEIGHT = 2
    INPUT = 3
    OUTPUT = 4


@dataclass(frozen=True)
class Pending:
    """An affine and a leaky ReLU that a value still awaits: x -> leaky(x·scale[n, c] + shift[n, c], slope)."""

    scale: Operand
    shift: Operand
    slope: float = 1.0


@dataclass(frozen=True)
class Operand:
    """A tensor in some memory.

    ``slot`` is the arena buffer, weight, input or output; ``inner`` counts bytes from its start. ``dims`` are logical;
    strides count elements and for BLOCKED16 are (N, channel block, Z, Y, X).
    """

    kind: Kind
    slot: int
    dtype: int
    dims: tuple[int, ...]
    strides: tuple[int, ...]
    layout: int = LINEAR
    inner: int = 0
    batched: bool = False
    pending: Pending | None = None

    @property
    def itemsize(self) -> int:
        return capi.numpy_dtype(self.dtype).itemsize

    @property
    def count(self) -> int:
        return int(np.prod(self.dims, dtype=np.int64))

    @property
    def bytes(self) -> int:
        """The bytes of the whole tensor without gaps."""
        return storage_bytes(self.dims, self.dtype, self.layout)

    @property
    def contiguous(self) -> bool:
        """Row-major without gaps, nothing pending."""
        dense = dense_strides(self.dims, self.layout)
        same = all(d == 1 or a == b for d, a, b in zip(self.dims, self.strides, dense, strict=True))
        return self.layout == LINEAR and same and self.pending is None

    def view(self, dims: Sequence[int], strides: Sequence[int] | None = None, inner: int = 0) -> Operand:
        """Another look at the same memory; without strides it must be contiguous. ``inner`` is in elements."""
        dims = tuple(int(d) for d in dims)
        if strides is None:
            if not self.contiguous:
                raise ValueError("only a contiguous operand can be reshaped")
            strides = dense_strides(dims, LINEAR)
        return replace(
            self, dims=dims, strides=tuple(int(s) for s in strides), inner=self.inner + inner * self.itemsize
        )


def dense_strides(dims: Sequence[int], layout: int = LINEAR) -> tuple[int, ...]:
    """Strides of a tensor without gaps, in elements."""
    if layout == BLOCKED16:
        n, c, z, y, x = dims
        del n
        blocks = -(-c // native.BLOCK)
        block = z * y * x * native.BLOCK
        return (blocks * block, block, y * x * native.BLOCK, x * native.BLOCK, native.BLOCK)
    strides = [1] * len(dims)
    for i in range(len(dims) - 2, -1, -1):
        strides[i] = strides[i + 1] * max(1, dims[i + 1])
    return tuple(strides)


def storage_bytes(dims: Sequence[int], dtype: int, layout: int = LINEAR) -> int:
    """The bytes that a tensor without gaps takes."""
    sizes = [int(d) for d in dims]
    if layout == BLOCKED16:
        sizes[1] = -(-sizes[1] // native.BLOCK) * native.BLOCK
    return int(np.prod(sizes, dtype=np.int64)) * capi.numpy_dtype(dtype).itemsize


@dataclass(frozen=True)
class Guard:
    """One bool that must have a value."""

    condition: Operand
    wanted: bool


@dataclass
class Step:
    """One call of a kernel.

    Parameters
    ----------
    kernel : the library's kernel, or HOST_STEP.
    params : its packed parameters.
    inputs, outputs : operands in the kernel's order; None is an absent optional one.
    nodes : names of the ONNX nodes it carries out; empty for steps the compiler added.
    note : why it is there, for steps without a node.
    flops, bytes : the arithmetic and the least memory traffic for one batch item.
    guards : the step runs only where each has its value, read in order: it belongs to a branch.
    """

    kernel: str
    params: bytes
    inputs: list[Operand | None]
    outputs: list[Operand | None]
    nodes: tuple[str, ...] = ()
    note: str = ""
    flops: int = 0
    guards: tuple[Guard, ...] = ()

    @property
    def operands(self) -> list[Operand]:
        """All present operands, pending vectors included."""
        found = [o for o in (*self.inputs, *self.outputs) if o is not None]
        for o in self.inputs:
            if o is not None and o.pending is not None:
                found += [o.pending.scale, o.pending.shift]
        return found + [guard.condition for guard in self.guards]

    @property
    def bytes(self) -> int:
        return sum(o.bytes for o in self.operands[: len(self.operands) - len(self.guards)])


@dataclass(frozen=True)
class Io:
    """An input or output of a variant; with ``batched`` dims[0] is for a batch of one."""

    name: str
    dtype: int
    dims: tuple[int, ...]
    batched: bool = False


@dataclass
class Variant:
    """The schedule for one set of input shapes."""

    inputs: list[Io]
    outputs: list[Io]
    steps: list[Step]
    buffers: list[int]  # bytes of each arena buffer, for a batch of one
    batch: tuple[int, int] = (1, 1)
    offsets: list[int] = field(default_factory=list)  # of each buffer in the arena, by plan/memory.py
    arena_bytes: int = 0


@dataclass(frozen=True)
class Weight:
    """A constant: raw, or packed by a kernel."""

    raw: NDArray[Any]
    kernel: str = ""
    params: bytes = b""

    @property
    def packed(self) -> bool:
        return bool(self.kernel)


@dataclass
class Schedule:
    """Weights and the variants that share them."""

    weights: list[Weight]
    variants: list[Variant]


_DIMS = ("<i8", (capi.MAX_RANK,))
_TABLE = np.dtype([("offset", "<u8"), ("count", "<u8")])
TABLES = ("strings", "params", "names", "weights", "operands", "steps", "ios", "variants")
RECORDS: dict[str, np.dtype[Any]] = {
    "FileHeader": np.dtype(
        [
            ("magic", "S8"),
            ("major", "<u4"),
            ("minor", "<u4"),
            ("file_bytes", "<u8"),
            ("table_offset", "<u8"),
            ("section_count", "<u4"),
            ("crc", "<u4"),
            ("reserved", "V24"),
        ]
    ),
    "SectionRecord": np.dtype(
        [
            ("kind", "<u4"),
            ("crc", "<u4"),
            ("target", "S32"),
            ("offset", "<u8"),
            ("bytes", "<u8"),
            ("reserved", "V8"),
        ]
    ),
    "CompiledHeader": np.dtype([("library", "S16"), *[(name, _TABLE) for name in TABLES]]),
    "WeightRecord": np.dtype(
        [
            ("form", "<u4"),
            ("kernel", "<u4"),
            ("version", "<u4"),
            ("params_bytes", "<u4"),
            ("params_offset", "<u8"),
            ("raw_offset", "<u8"),
            ("raw_bytes", "<u8"),
            ("packed_offset", "<u8"),
            ("final_bytes", "<u8"),
            ("dtype", "u1"),
            ("rank", "u1"),
            ("reserved", "V6"),
            ("dims", *_DIMS),
        ]
    ),
    "OperandRecord": np.dtype(
        [
            ("kind", "u1"),
            ("dtype", "u1"),
            ("layout", "u1"),
            ("rank", "u1"),
            ("slot", "<u4"),
            ("offset", "<u8"),
            ("inner", "<u8"),
            ("flags", "<u4"),
            ("pending_slope", "<f4"),
            ("pending_scale", "<i4"),
            ("pending_shift", "<i4"),
            ("dims", *_DIMS),
            ("strides", *_DIMS),
        ]
    ),
    "StepRecord": np.dtype(
        [
            ("kernel", "<u4"),
            ("version", "<u4"),
            ("params_offset", "<u8"),
            ("params_bytes", "<u4"),
            ("first_operand", "<u4"),
            ("inputs", "<u4"),
            ("outputs", "<u4"),
            ("extras", "<u4"),
            ("first_name", "<u4"),
            ("name_count", "<u4"),
            ("guards", "<u4"),
            ("flops", "<u8"),
            ("bytes", "<u8"),
        ]
    ),
    "IoRecord": np.dtype(
        [("name", "<u4"), ("dtype", "u1"), ("rank", "u1"), ("batched", "u1"), ("reserved", "u1"), ("dims", *_DIMS)]
    ),
    "VariantRecord": np.dtype(
        [
            ("first_io", "<u4"),
            ("inputs", "<u4"),
            ("outputs", "<u4"),
            ("first_step", "<u4"),
            ("steps", "<u4"),
            ("batch_min", "<u4"),
            ("batch_max", "<u4"),
            ("reserved", "<u4"),
            ("arena_bytes", "<u8"),
        ]
    ),
}

WEIGHT_RAW, WEIGHT_PACKED, WEIGHT_PACK_ON_OPEN = 0, 1, 2


@dataclass(frozen=True)
class StoredWeight:
    """Where a weight lies in the file: its raw bytes in the weights section, its packed ones in the packed section."""

    form: int
    raw_offset: int
    raw_bytes: int
    packed_offset: int
    final_bytes: int


class _Blob:
    """Bytes that grow, each distinct piece once."""

    def __init__(self, align: int = 1) -> None:
        self.data = bytearray()
        self._seen: dict[bytes, int] = {}
        self._align = align

    def add(self, piece: bytes) -> int:
        if piece not in self._seen:
            self.data += b"\0" * (-len(self.data) % self._align)
            self._seen[piece] = len(self.data)
            self.data += piece
        return self._seen[piece]


class _Writer:
    """Turns a schedule into the tables of a compiled section."""

    def __init__(self) -> None:
        self.strings = _Blob()
        self.params = _Blob(align=8)
        self.rows: dict[str, list[tuple[Any, ...]]] = {name: [] for name in TABLES}
        self.names: list[int] = []

    def string(self, text: str) -> int:
        return self.strings.add(text.encode() + b"\0")

    def weight(self, weight: Weight, stored: StoredWeight) -> None:
        packing = weight.packed
        raw = weight.raw
        self.rows["weights"].append(
            (
                stored.form,
                self.string(weight.kernel),
                native.kernels()[weight.kernel].version if packing else 0,
                len(weight.params),
                self.params.add(weight.params),
                stored.raw_offset,
                stored.raw_bytes,
                stored.packed_offset,
                stored.final_bytes,
                capi.dtype_code(raw.dtype),
                raw.ndim,
                b"",
                _padded(raw.shape),
            )
        )

    def variant(self, variant: Variant) -> None:
        first_io, first_step = len(self.rows["ios"]), len(self.rows["steps"])
        for io in (*variant.inputs, *variant.outputs):
            self.rows["ios"].append((self.string(io.name), io.dtype, len(io.dims), io.batched, 0, _padded(io.dims)))
        for step in variant.steps:
            self.step(step, variant)
        self.rows["variants"].append(
            (
                first_io,
                len(variant.inputs),
                len(variant.outputs),
                first_step,
                len(variant.steps),
                *variant.batch,
                0,
                variant.arena_bytes,
            )
        )

    def step(self, step: Step, variant: Variant) -> None:
        first = len(self.rows["operands"])
        extras: list[Operand] = []
        count = len(step.inputs) + len(step.outputs)
        for operand in (*step.inputs, *step.outputs):
            pending = (-1, -1)
            if operand is not None and operand.pending is not None:
                pending = (count + len(extras), count + len(extras) + 1)
                extras += [operand.pending.scale, operand.pending.shift]
            self.operand(operand, variant, pending)
        extras += [guard.condition for guard in step.guards]
        for operand in extras:
            self.operand(operand, variant, (-1, -1))
        first_name = len(self.names)
        self.names += [self.string(name) for name in step.nodes]
        self.rows["steps"].append(
            (
                self.string(step.kernel),
                0 if step.kernel == HOST_STEP else native.kernels()[step.kernel].version,
                self.params.add(step.params),
                len(step.params),
                first,
                len(step.inputs),
                len(step.outputs),
                len(extras),
                first_name,
                len(step.nodes),
                len(step.guards) | sum(guard.wanted << 8 + i for i, guard in enumerate(step.guards)),
                step.flops,
                step.bytes,
            )
        )

    def operand(self, operand: Operand | None, variant: Variant, pending: tuple[int, int]) -> None:
        if operand is None:
            self.rows["operands"].append((0, 0, 0, 0, 0, 0, 0, 0, 1.0, -1, -1, _padded(()), _padded(())))
            return
        arena = operand.kind == Kind.ARENA
        self.rows["operands"].append(
            (
                operand.kind,
                operand.dtype,
                operand.layout,
                len(operand.dims),
                0 if arena else operand.slot,
                variant.offsets[operand.slot] if arena else 0,
                operand.inner,
                int(operand.batched),
                operand.pending.slope if operand.pending else 1.0,
                *pending,
                _padded(operand.dims),
                _padded(operand.strides),
            )
        )

    def section(self) -> bytes:
        tables: Mapping[str, NDArray[Any]] = {
            "strings": np.frombuffer(bytes(self.strings.data) or b"\0", np.uint8),
            "params": np.frombuffer(bytes(self.params.data), np.uint8),
            "names": np.array(self.names, "<u4"),
            "weights": np.array(self.rows["weights"], RECORDS["WeightRecord"]),
            "operands": np.array(self.rows["operands"], RECORDS["OperandRecord"]),
            "steps": np.array(self.rows["steps"], RECORDS["StepRecord"]),
            "ios": np.array(self.rows["ios"], RECORDS["IoRecord"]),
            "variants": np.array(self.rows["variants"], RECORDS["VariantRecord"]),
        }
        header = np.zeros((), RECORDS["CompiledHeader"])
        header["library"] = capi.VERSION.encode()
        body = bytearray(header.nbytes)
        for name in TABLES:
            body += b"\0" * (-len(body) % 64)
            header[name] = (len(body), len(tables[name]))
            body += tables[name].tobytes()
        body[: header.nbytes] = header.tobytes()
        return bytes(body)


def _padded(dims: Sequence[int]) -> tuple[int, ...]:
    if len(dims) > capi.MAX_RANK:
        raise PlanError(f"a tensor of {len(dims)} axes; a plan holds at most {capi.MAX_RANK}")
    return (*(int(d) for d in dims), *(0,) * (capi.MAX_RANK - len(dims)))


def serialise(schedule: Schedule, stored: Sequence[StoredWeight]) -> bytes:
    """The compiled section of a schedule whose weights lie where ``stored`` says."""
    check_records()
    writer = _Writer()
    for weight, place in zip(schedule.weights, stored, strict=True):
        writer.weight(weight, place)
    for variant in schedule.variants:
        writer.variant(variant)
    return writer.section()


def check_records() -> None:
    """Raise PlanError where a record here is not the size of the library's struct."""
    for name, dtype in RECORDS.items():
        size = capi.library().voxelrt_record_size(name.encode())
        if size != dtype.itemsize:
            raise PlanError(f"{name} has {dtype.itemsize} bytes here and {size} in the native library: build it again")
