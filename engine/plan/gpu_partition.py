"""Partition for GPUs: TensorRT takes as much of the graph as it can at once, our kernels stand between.

norms apart, where asked → try our kernels → spell what none takes in plain ONNX → types → group the rest for TensorRT
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from voxelrt.errors import UnsupportedError
from voxelrt.graph.edit import is_constant, static_shape
from voxelrt.graph.passes import infer_shapes, lower_precision, norms_apart, spell_domain
from voxelrt.graph.spec import OUR_DOMAIN
from voxelrt.plan.gpu_codes import CodeTable
from voxelrt.plan.gpu_kernels import is_candidate, kernel_step, trace
from voxelrt.plan.gpu_steps import DTYPES, EngineStep, GpuValue, Range, Step
from voxelrt.plan.grouping import Grouping
from voxelrt.plan.islands import captured, island_bytes, outputs_of


@dataclass
class Parts:
    """A graph cut into steps.

    Parameters
    ----------
    steps : in order.
    values : those between steps, and inputs and outputs.
    typed : the ONNX of each part for TensorRT.
    codes, constants : of the kernel steps.
    notes : for each node that our kernels might have taken and did not, why.
    """

    steps: list[Step] = field(default_factory=list)
    values: dict[str, GpuValue] = field(default_factory=dict)
    typed: list[bytes] = field(default_factory=list)
    codes: CodeTable = field(default_factory=CodeTable)
    constants: list[bytes] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def prepare(model: ir.Model, precision: str, norms: str = "engine") -> tuple[ir.Model, set[str], list[str]]:
    """The typed model, the names of the nodes that our kernels take, and notes on those that they do not.

    norms : where instance norms go, see ``EngineOptions``.

    Raises
    ------
    UnsupportedError : nodes of our own domain that neither a kernel nor plain ONNX carries out, all of them named.
    """
    if norms == "kernels":
        model = norms_apart.run(model)
    taken, spelled, notes, refused = set[str](), set[ir.Node](), list[str](), list[str]()
    for node in model.graph:
        ours = node.domain == OUR_DOMAIN
        why = f"{node.op_type} has no kernel for GPUs" if ours else None
        if is_candidate(node):
            try:
                trace(node)
                taken.add(str(node.name))
                continue
            except UnsupportedError as error:
                why = str(error)
        if why is None:
            continue
        line = f"{node.name} ({node.op_type}): {why}"
        notes.append(line)
        if ours and node.op_type not in spell_domain.SPELLED:
            refused.append(line)
        elif ours:
            spelled.add(node)
    if refused:
        raise UnsupportedError(f"{len(refused)} nodes run nowhere on GPUs:", refused)
    if spelled:
        model = infer_shapes.run(spell_domain.run(model, spelled))
    if precision in ("fp16", "bf16"):
        model = lower_precision.run(model, precision)
    return model, taken, notes


def partition(model: ir.Model, taken: set[str], profiles: Mapping[str, Range], twice: ir.Model | None) -> Parts:
    """Cut a typed model into steps.

    Parameters
    ----------
    model : from ``prepare``; at a batch of one where the batch is a range. Changed in place.
    taken : the nodes that our kernels take, by name.
    profiles : input -> shapes (min, opt, max).
    twice : where the batch is a range, the same model at a batch of two.

    Raises
    ------
    UnsupportedError : a value between steps whose batch is not its first dimension; an output that no node makes.
    """
    made = Parts()
    nodes = list(model.graph)
    stranded = [str(v.name) for v in model.graph.outputs if v.producer() is None]
    if stranded:
        raise UnsupportedError(f"no node makes the outputs {', '.join(stranded)}: they are inputs or constants")
    shapes = {} if twice is None else {str(v.name): static_shape(v) for v in _values(twice)}
    segments = Grouping(nodes, [n for n in nodes if n.name not in taken]).segments()
    groups = [(part, engine) for group, engine in segments for part in ([group] if engine else [[n] for n in group])]
    between = [*model.graph.inputs, *model.graph.outputs]
    for group, _ in groups:
        between += [*captured(group), *outputs_of(group)]
    batched = {value: _grows(value, shapes) for value in dict.fromkeys(between)}
    for value, grows in batched.items():
        made.values[str(value.name)] = _described(value, grows)
    kernels = {
        group[0]: kernel_step(group[0], trace(group[0]), made.codes, made.constants, batched)
        for group, engine in groups
        if not engine
    }
    if twice is not None:
        _open_batch(model, batched)
    ranged = next((r for r in profiles.values() if r[0] != r[2]), None)
    batches = None if ranged is None else (ranged[0][0], ranged[1][0], ranged[2][0])
    for group, engine in groups:
        made.steps.append(_engine_step(model, group, made, batches) if engine else kernels[group[0]])
    return made


def _values(model: ir.Model) -> list[ir.Value]:
    return [*model.graph.inputs, *(v for node in model.graph for v in node.outputs)]


def _grows(value: ir.Value, twice: Mapping[str, tuple[int, ...] | None]) -> bool:
    """Whether a value's first dimension is a multiple of the batch."""
    one, two = static_shape(value), twice.get(str(value.name))
    if not twice or one == two:
        return False
    if one and two and two == (2 * one[0], *one[1:]):
        return True
    raise UnsupportedError(f"{value.name} is {one} for one item and {two} for two: compile one batch size")


def _described(value: ir.Value, grows: bool) -> GpuValue:
    shape = static_shape(value)
    name = "" if value.dtype is None else value.dtype.numpy().name
    if shape is None or name not in DTYPES:
        raise UnsupportedError(f"{value.name} ({name or 'of unknown type'}, {shape}) cannot lie between steps on a GPU")
    return GpuValue(name, shape, grows)


def _open_batch(model: ir.Model, batched: Mapping[ir.Value, bool]) -> None:
    """Make the batch symbolic: shapes of borders say it, shapes within parts follow from them."""
    for value in _values(model):
        if batched.get(value):
            first, *rest = static_shape(value) or ()
            value.shape = ir.Shape(["batch" if first == 1 else f"batch_times_{first}", *rest])
        elif value not in batched:
            value.shape = None


def _engine_step(
    model: ir.Model, nodes: Sequence[ir.Node], made: Parts, batches: tuple[int, int, int] | None
) -> EngineStep:
    inputs, outputs = captured(nodes), outputs_of(nodes)
    inputs = [v for v in inputs if not is_constant(v)]
    made.typed.append(island_bytes(model, nodes, inputs, outputs))
    names = tuple(str(v.name) for v in inputs)
    profiles: dict[str, Range] = {}
    if batches is not None:
        low, usual, most = batches
        for name in names:
            value = made.values[name]
            profiles[name] = (value.dims_at(low), value.dims_at(usual), value.dims_at(most))
    return EngineStep(len(made.typed) - 1, names, tuple(str(v.name) for v in outputs), profiles)
