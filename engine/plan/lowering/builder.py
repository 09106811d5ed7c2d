"""The builder that lowering rules work with: values in layouts, memory, weights, steps."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from voxelrt.errors import ShapeError, UsageError
from voxelrt.kernels.common import capi, native
from voxelrt.plan.choice import Choice
from voxelrt.plan.guards import Needs
from voxelrt.plan.schedule import (
    BLOCKED16,
    HOST_STEP,
    LINEAR,
    Guard,
    Io,
    Kind,
    Operand,
    Pending,
    Step,
    Variant,
    Weight,
    dense_strides,
    storage_bytes,
)

SMALL_BYTES = 2 << 20  # volumes below it stay float32 in a plan that stores others in bfloat16
FLOAT32, BFLOAT16 = capi.DTYPES["float32"], capi.DTYPES["bfloat16"]


class Unsupported(Exception):  # noqa: N818 - an answer of a rule, not an error of the user
    """A rule's refusal of a node; its text says why."""


Rule = Callable[["Builder", ir.Node], None]
RULES: dict[str, Rule] = {}


def lowers(*op_types: str) -> Callable[[Rule], Rule]:
    """Register the rule of ONNX operators."""

    def register(rule: Rule) -> Rule:
        for op_type in op_types:
            RULES[op_type] = rule
        return rule

    return register


class WeightTable:
    """The weights of a schedule: equal ones are kept once, whichever variant asks."""

    def __init__(self) -> None:
        self.weights: list[Weight] = []
        self._known: dict[tuple[Any, ...], int] = {}
        self._digests: dict[int, tuple[NDArray[Any], bytes]] = {}  # keeps the array, so that its id stays its own

    def digest(self, raw: NDArray[Any]) -> bytes:
        """SHA-256 of a weight's bytes."""
        if id(raw) not in self._digests:
            self._digests[id(raw)] = (raw, hashlib.sha256(np.ascontiguousarray(raw).view(np.uint8).data).digest())
        return self._digests[id(raw)][1]

    def add(self, raw: NDArray[Any], kernel: str, params: bytes) -> int:
        key = (self.digest(raw), raw.shape, raw.dtype.str, kernel, params)
        if key not in self._known:
            self._known[key] = len(self.weights)
            self.weights.append(Weight(np.ascontiguousarray(raw), kernel, params))
        return self._known[key]


@dataclass(frozen=True)
class Activation:
    """What a step applies to its result before it stores it (kinds of kernels/common/activation.h)."""

    kind: int = 0
    alpha: float = 0.0
    beta: float = 0.0


class Builder:
    """Builds one variant from a graph whose shapes are all static.

    Parameters
    ----------
    graph : the specialised graph.
    weights : the table that all variants share.
    native_nodes : the nodes that are lowered here; a fusion never reaches past them. None means all.
    fuse : whether a rule may absorb the node behind it.
    choice : picks the algorithms of convolutions.
    half : store blocked volumes in bfloat16. A kernel that does not take them gets copies in float32.
    needs : by ``plan/guards.py``: which nodes belong to a branch.
    """

    def __init__(
        self,
        graph: ir.Graph,
        weights: WeightTable,
        *,
        native_nodes: Collection[ir.Node] | None = None,
        fuse: bool = True,
        choice: Choice | None = None,
        half: bool = False,
        needs: Mapping[ir.Node, Needs] | None = None,
    ) -> None:
        self.graph = graph
        self.weights = weights
        self.fuse = fuse
        self.choice = choice or Choice()
        self.half = half
        self.steps: list[Step] = []
        self.buffers: list[int] = []
        self.absorbed: set[ir.Node] = set()
        self._native = native_nodes
        self._values: dict[ir.Value, Operand] = {}
        self._converted: dict[tuple[ir.Value, int, tuple[Guard, ...]], Operand] = {}
        self._needs = needs or {}
        self._guards: tuple[Guard, ...] = ()  # of the node at work
        self._constants: dict[ir.Value, NDArray[Any]] = {}
        self._deferred: dict[ir.Value, tuple[ir.Value, ir.Value]] = {}
        self._nodes: tuple[str, ...] = ()
        self._summing: dict[tuple[Kind, int], Step] = {}
        self._outputs = {value: i for i, value in enumerate(graph.outputs)}
        for i, value in enumerate(graph.inputs):
            with contextlib.suppress(Unsupported):  # an input that no schedule can hold stops those who read it
                self._values[value] = self._dense(Kind.INPUT, i, dims_of(value), dtype_of(value))

    # ---- what a rule asks of its node ----

    def constant(self, value: ir.Value | None) -> NDArray[Any] | None:
        """The value's array if it is known at compile time."""
        if value is None or value.const_value is None:
            return None
        if value not in self._constants:
            self._constants[value] = np.asarray(value.const_value.numpy())
        return self._constants[value]

    def need_constant(self, value: ir.Value | None, what: str) -> NDArray[Any]:
        """Like ``constant``; refuses the node where it is not known."""
        array = self.constant(value)
        if array is None:
            raise Unsupported(f"{what} is not known at compile time")
        return array

    def value(self, value: ir.Value) -> Operand:
        """The value as it is: any layout, perhaps with a norm pending. Volumes (blocked or pending) are 5-D."""
        if value not in self._values and value in self._deferred:
            raise Unsupported("a concat that was left to its consumer is read by another")
        if value not in self._values:
            array = self.constant(value)
            if array is None:
                raise Unsupported(f"the value {value.name!r} is not produced here")
            self._values[value] = self.weight(array)
        return self._values[value]

    def linear(self, value: ir.Value) -> Operand:
        """The value row-major without gaps, nothing pending, in the dims of the graph; adds a copy where needed."""
        operand = self.value(value)
        dims = dims_of(value)
        if operand.contiguous:
            return operand if operand.dims == dims else operand.view(dims)
        found = self._known_copy(value, LINEAR)
        if found is None:
            target = self.temporary(operand.dims, dtype_of(value))
            self._copy(operand, target)
            found = self._converted[value, LINEAR, self._guards] = target.view(dims)
        return found

    def _known_copy(self, value: ir.Value, layout: int) -> Operand | None:
        """A copy that was made before, if it was made wherever the node at work runs."""
        prefixes = (self._guards[:n] for n in range(len(self._guards) + 1))
        return next(
            (self._converted[value, layout, p] for p in prefixes if (value, layout, p) in self._converted), None
        )

    def blocked(self, value: ir.Value) -> Operand:
        """The value as a BLOCKED16 volume (N, C, Z, Y, X), nothing pending; adds a copy where needed.

        Values of rank 3 and 4 get leading unit axes in front of their spatial axes. float32 only.
        """
        operand = self.value(value)
        if operand.layout == BLOCKED16 and operand.pending is None:
            return operand
        if dtype_of(value) != FLOAT32:
            raise Unsupported("blocked volumes are float32")
        found = self._known_copy(value, BLOCKED16)
        if found is None:
            source = self.volume(operand)
            found = self.temporary(source.dims, self._stored(source.dims), BLOCKED16)
            self._copy(source, found)
            self._converted[value, BLOCKED16, self._guards] = found
        return found

    def is_blocked(self, value: ir.Value) -> bool:
        """Whether the value lies as a BLOCKED16 volume already."""
        return value in self._values and self._values[value].layout == BLOCKED16

    def is_output(self, value: ir.Value) -> bool:
        """Whether the value is an output of the graph."""
        return value in self._outputs

    def concat_sources(self, value: ir.Value) -> tuple[ir.Value, ir.Value] | None:
        """The two values of a channel concat that was left for its one consumer to read; see ``defer_concat``."""
        return self._deferred.get(value)

    def defer_concat(self, value: ir.Value, first: ir.Value, second: ir.Value) -> None:
        """Leave a concat of two values along the channels to the convolution that reads it."""
        self._deferred[value] = (first, second)

    @staticmethod
    def volume(operand: Operand) -> Operand:
        """A view as (N, C, Z, Y, X): unit axes before the spatial ones. Rank 2 is (N, C, 1, 1, 1)."""
        if operand.layout == BLOCKED16 or len(operand.dims) == 5:
            return operand
        if not 2 <= len(operand.dims) <= 4:
            raise Unsupported(f"a volume has 1 to 3 spatial axes; this value has the shape {operand.dims}")
        dims = (*operand.dims[:2], *(1,) * (5 - len(operand.dims)), *operand.dims[2:])
        strides = (*operand.strides[:2], *(0,) * (5 - len(operand.dims)), *operand.strides[2:])
        return replace(operand, dims=dims, strides=strides)

    # ---- memory ----

    def temporary(self, dims: Sequence[int], dtype: int, layout: int = LINEAR) -> Operand:
        """New arena memory without a name in the graph."""
        dims = tuple(int(d) for d in dims)
        self.buffers.append(storage_bytes(dims, dtype, layout))
        return self._dense(Kind.ARENA, len(self.buffers) - 1, dims, dtype, layout)

    def result(self, value: ir.Value, layout: int = LINEAR, *, exact: bool = False) -> Operand:
        """New memory for a value of the graph: the output's own where it is one. A blocked one is a 5-D volume, stored
        in bfloat16 where the builder does and the value need not be ``exact``."""
        dims, dtype = dims_of(value), dtype_of(value)
        if layout == LINEAR and value in self._outputs:
            operand = self._dense(Kind.OUTPUT, self._outputs[value], dims, dtype)
        else:
            if layout == BLOCKED16:
                dims = volume_dims(dims)
                dtype = self._stored(dims) if dtype == FLOAT32 and not exact else dtype
            operand = self.temporary(dims, dtype, layout)
        self._values[value] = operand
        return operand

    def _stored(self, dims: Sequence[int]) -> int:
        """How a blocked volume of float32 is stored. Small ones lose digits in bfloat16 and save nothing."""
        small = storage_bytes(dims, FLOAT32, BLOCKED16) < SMALL_BYTES
        return BFLOAT16 if self.half and not small else FLOAT32

    def alias(self, value: ir.Value, operand: Operand) -> None:
        """Say that a value is this operand: a view of another's memory, or one with a norm pending."""
        self._values[value] = operand

    def pend(self, value: ir.Value, source: Operand, scale: Operand, shift: Operand, slope: float = 1.0) -> None:
        """Say that a value is ``leaky(source·scale + shift, slope)``, still to be computed by who loads it."""
        self._values[value] = replace(self.volume(source), pending=Pending(scale, shift, slope))

    def weight(self, array: NDArray[Any], kernel: str = "", /, **params: Any) -> Operand:
        """A constant as an operand, packed for a kernel where one is named (then a flat float32 operand)."""
        if not kernel:
            slot = self.weights.add(array, "", b"")
            return self._dense(Kind.WEIGHT, slot, array.shape, capi.dtype_code(array.dtype))
        packed = native.kernels()[kernel].pack(params)
        try:
            size = native.packed_bytes(kernel, array, packed)
        except ShapeError as error:
            raise Unsupported(str(error)) from error
        slot = self.weights.add(array, kernel, packed)
        return self._dense(Kind.WEIGHT, slot, (size // 4,), capi.DTYPES["float32"])

    # ---- steps ----

    def step(
        self,
        kernel: str,
        inputs: Sequence[Operand | None],
        outputs: Sequence[Operand | None],
        /,
        *,
        flops: int = 0,
        note: str = "",
        **params: Any,
    ) -> None:
        """Add a step for the node at work. Raises Unsupported with the kernel's own reason where it refuses.

        Volumes stored in bfloat16 that the kernel refuses are copied to float32 and back.
        """
        packed = native.kernels()[kernel].pack(params)
        refusal = refusal_of(kernel, packed, inputs, outputs)
        if refusal is None:
            self._append(Step(kernel, packed, list(inputs), list(outputs), self._nodes, note, int(flops)))
            return
        if not any(map(_is_half, (*inputs, *outputs))):
            raise Unsupported(refusal)
        wide: dict[Operand | None, Operand] = {
            operand: replace(self.temporary(operand.dims, FLOAT32, BLOCKED16), pending=operand.pending)
            for operand in (*inputs, *outputs)
            if operand is not None and _is_half(operand)
        }
        sources, targets = ([wide.get(o, o) for o in operands] for operands in (inputs, outputs))
        refusal = refusal_of(kernel, packed, sources, targets)
        if refusal is not None:
            raise Unsupported(refusal)
        for narrow in dict.fromkeys(o for o in inputs if o is not None and o in wide):
            self._convert(replace(narrow, pending=None), replace(wide[narrow], pending=None), "widen")
        self._append(Step(kernel, packed, sources, targets, self._nodes, note, int(flops)))
        for narrow in (o for o in outputs if o is not None and o in wide):
            self._convert(wide[narrow], narrow, "narrow")

    def _append(self, step: Step) -> None:
        step.guards = self._guards
        self.steps.append(step)

    def _convert(self, source: Operand, target: Operand, note: str) -> None:
        """A volume into another dtype of storage."""
        self.step("copy", [source], [target], note=note, reserved=0)

    def offer_sums(self, target: Operand) -> None:
        """Say that the step just added could also sum its result over each channel, as a second output."""
        if self.steps[-1].outputs[0] == target:
            self._summing[target.kind, target.slot] = self.steps[-1]

    def sums_of(self, source: Operand) -> Operand | None:
        """The sums and sums of squares (N, C, 2) of a volume that a step could make on its way; or None."""
        step = self._summing.pop((source.kind, source.slot), None)
        if step is None or source.pending is not None or step.outputs[0] != source:
            return None
        sums = self.temporary((*source.dims[:2], 2), capi.DTYPES["float64"])
        step.outputs.append(sums)
        return sums

    def island(
        self,
        number: int,
        nodes: Sequence[str],
        inputs: Sequence[ir.Value],
        outputs: Sequence[ir.Value],
        members: Sequence[ir.Node] = (),
    ) -> None:
        """Add a step that the host executes; ``members`` are its nodes, where they may all lie in one branch."""
        needs = [self._needs.get(node, ()) for node in members]
        common = [pair for pair in (needs[0] if needs else ()) if all(pair in other for other in needs)]
        self._guards = self._guards_of(tuple(common))
        sources: list[Operand | None] = [self.linear(v) for v in inputs]
        targets: list[Operand | None] = [self.result(v) for v in outputs]
        self._append(Step(HOST_STEP, number.to_bytes(4, "little"), sources, targets, tuple(nodes)))
        self._guards = ()

    def lower(self, node: ir.Node) -> None:
        """Lower one node, unless another has absorbed it."""
        if node in self.absorbed:
            return
        rule = RULES.get(node.op_type)
        if rule is None:
            raise Unsupported("there is no native kernel for this operator")
        for value in (*node.inputs, *node.outputs):
            if value is not None and value.name != "":
                check_value(value)
        self._nodes = (node.name or node.op_type,)
        self._guards = self._guards_of(self._needs.get(node, ()))
        rule(self, node)
        self._nodes, self._guards = (), ()

    def _guards_of(self, needs: Needs) -> tuple[Guard, ...]:
        """The conditions as operands, as far as they are made already: what is not skipped is computed for nothing."""
        found: list[Guard] = []
        for condition, wanted in needs:
            operand = self._values.get(condition)
            if operand is None or not operand.contiguous or operand.batched:
                break
            found.append(Guard(operand, wanted))
        return tuple(found)

    def next_node(self, value: ir.Value, *op_types: str) -> ir.Node | None:
        """The one node that uses the value, if it is of these types and may be absorbed by the node at work."""
        uses = list(value.uses())
        if len(uses) != 1 or value in self._outputs:
            return None
        node = uses[0].node
        return node if node.op_type in op_types and self.may_absorb(node) else None

    def may_absorb(self, node: ir.Node) -> bool:
        """Whether the node at work may do this one's work too: it is computed here, and nobody else took it."""
        here = self._native is None or node in self._native
        return self.fuse and node not in self.absorbed and here and (not self._guards or self._shares_guards(node))

    def _shares_guards(self, node: ir.Node) -> bool:
        return self._guards_of(self._needs.get(node, ()))[: len(self._guards)] == self._guards

    def absorb(self, node: ir.Node) -> None:
        """Say that the node at work does this one's work too."""
        self.absorbed.add(node)
        self._nodes = (*self._nodes, node.name or node.op_type)

    def finish(self) -> Variant:
        """The variant. Values that are outputs but lie elsewhere are copied to where they belong."""
        for value, index in self._outputs.items():
            operand = self.value(value)
            if operand.kind == Kind.OUTPUT and operand.slot == index and operand.contiguous and operand.inner == 0:
                continue
            target = self._dense(Kind.OUTPUT, index, dims_of(value), dtype_of(value))
            if len(operand.dims) != len(target.dims):
                target = replace(target.view(operand.dims))
            self._copy(operand, target)
        inputs = [Io(str(v.name), dtype_of(v), dims_of(v)) for v in self.graph.inputs]
        outputs = [Io(str(v.name), dtype_of(v), dims_of(v)) for v in self.graph.outputs]
        return Variant(inputs, outputs, self.steps, self.buffers)

    def _copy(self, source: Operand, target: Operand) -> None:
        note = "materialise a pending norm" if source.pending else "reorder"
        self.step("copy", [source], [target], note=note, reserved=0)

    @staticmethod
    def _dense(kind: Kind, slot: int, dims: Sequence[int], dtype: int, layout: int = LINEAR) -> Operand:
        dims = tuple(int(d) for d in dims)
        return Operand(kind, slot, dtype, dims, dense_strides(dims, layout), layout)


def _is_half(operand: Operand | None) -> bool:
    """Whether a float32 value is stored in bfloat16: only volumes are, and only blocked ones."""
    return operand is not None and operand.layout == BLOCKED16 and operand.dtype == BFLOAT16


def refusal_of(
    kernel: str, packed: bytes, inputs: Sequence[Operand | None], outputs: Sequence[Operand | None]
) -> str | None:
    """Why a kernel does not take these operands, or None where it does."""
    try:
        native.check_kernel(kernel, packed, list(map(_description, inputs)), list(map(_description, outputs)))
    except (ShapeError, UsageError) as error:
        return str(error)
    return None


def volume_dims(dims: Sequence[int]) -> tuple[int, ...]:
    """(N, C, …) of rank 2 to 5 as (N, C, Z, Y, X)."""
    if not 2 <= len(dims) <= 5:
        raise Unsupported(f"a volume has 1 to 3 spatial axes; this value has the shape {tuple(dims)}")
    return (*dims[:2], *(1,) * (5 - len(dims)), *dims[2:])


def dims_of(value: ir.Value) -> tuple[int, ...]:
    """The value's static dims."""
    if value.shape is None or not all(isinstance(d, int) for d in value.shape):
        raise Unsupported(f"the shape of {value.name!r} is not known at compile time")
    return tuple(int(d) for d in value.shape)  # type: ignore[arg-type]


def dtype_of(value: ir.Value) -> int:
    """The library's number of the value's dtype."""
    if value.dtype is None:
        raise Unsupported(f"the dtype of {value.name!r} is not known")
    try:
        return capi.dtype_code(value.dtype.numpy())
    except (UsageError, TypeError) as error:
        raise Unsupported(f"the dtype {value.dtype.name} has no native kernel") from error


def check_value(value: ir.Value) -> None:
    """Refuse what no schedule can hold: unknown shapes, other types than tensors, more axes than the format has."""
    if value.type is not None and not isinstance(value.type, ir.TensorType):
        raise Unsupported("sequences, maps and optionals are not tensors")
    dtype_of(value)
    if len(dims_of(value)) > capi.MAX_RANK:
        raise Unsupported(f"{value.name!r} has {len(dims_of(value))} axes; at most {capi.MAX_RANK} are supported")


def _description(operand: Operand | None) -> tuple[int, int, Sequence[int], Sequence[int], bool] | None:
    if operand is None:
        return None
    return (operand.dtype, operand.layout, operand.dims, operand.strides, operand.pending is not None)


def supports(graph: ir.Graph, node: ir.Node) -> str | None:
    """Why a node cannot run natively, or None where it can: its rule is tried on a builder that is thrown away."""
    builder = Builder(graph, WeightTable(), fuse=False)
    try:
        for value in node.inputs:
            if value is None or value.const_value is not None:
                continue
            check_value(value)
            builder.alias(value, builder.temporary(dims_of(value), dtype_of(value)))
        builder.lower(node)
    except Unsupported as refusal:
        return str(refusal)
    return None
