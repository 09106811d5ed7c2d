"""Partition: which backend runs which node, as segments in an order that can run.

Native takes what it supports. What is left forms islands for ONNX Runtime: connected sets of nodes, each as large as it
can be while no path leaves an island and comes back (it runs as one step). A value that a schedule cannot hold (a shape
that depends on data, strings, sequences, dtypes without a native kernel) never crosses from one segment to another: who
makes it and who reads it are in one island.

Where such a value is an input or output of the graph itself, its island and all that follows from it form the *tail*,
which runs behind the schedule in memory of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from voxelrt.errors import UnsupportedError
from voxelrt.plan.grouping import Grouping
from voxelrt.plan.info import Placement
from voxelrt.plan.islands import captured, island_bytes, outputs_of, producer, reads
from voxelrt.plan.lowering.builder import Unsupported, check_value
from voxelrt.plan.tail import Tail

NATIVE, ISLAND = "native", "onnxruntime"
FOLLOWS = "it follows from a value that only the plan's tail can hold"
BETWEEN = "it lies between nodes that exchange a value no schedule can hold"
Supported = Callable[[ir.Node], str | None]


@dataclass
class Segment:
    """Nodes that one backend runs in one go, in the graph's order.

    ``inputs`` are the values it needs from other segments or the plan's inputs, constants not among them; ``outputs``
    those that other segments or the plan's outputs need. The ``tail`` may take and give values of any kind.
    """

    backend: str
    nodes: list[ir.Node]
    model: ir.Model
    tail: bool = False
    inputs: list[ir.Value] = field(init=False)
    outputs: list[ir.Value] = field(init=False)

    def __post_init__(self) -> None:
        self.inputs = captured(self.nodes)
        self.outputs = outputs_of(self.nodes)

    def onnx_bytes(self) -> bytes:
        """The segment as an ONNX model with these inputs and outputs in this order."""
        return island_bytes(self.model, self.nodes, self.inputs, self.outputs)


def unholdable(value: ir.Value) -> str | None:
    """Why a schedule cannot hold a value; None where it can."""
    try:
        check_value(value)
    except Unsupported as refusal:
        return str(refusal)
    return None


def partition(model: ir.Model, supported: Supported) -> tuple[list[Segment], list[Placement]]:
    """Split a specialised graph.

    Parameters
    ----------
    model : after ``specialise``.
    supported : None for a node that runs natively, else the reason why it does not.

    Returns
    -------
    The segments in an order in which each has what it needs, the tail last if there is one; and a row for every node in
    the graph's order.

    Raises
    ------
    UnsupportedError : an input that no schedule can hold and nothing reads, or a constant of that kind as an output.
    """
    nodes = list(model.graph)
    refused = {value: why for value in _values(model.graph) if (why := unholdable(value)) is not None}
    reasons: dict[ir.Node, str | None] = {}
    for node in nodes:
        held = next((refused[v] for v in (*reads(node), *node.outputs) if v in refused), None)
        reasons[node] = supported(node) if held is None else held
    tail = _tail(model.graph, refused)
    stranded = [v for v in (*model.graph.inputs, *model.graph.outputs) if v in refused and v.producer() is None]
    if stranded and not tail:
        raise UnsupportedError(
            "no schedule can hold these inputs or constant outputs of the model, and no node is there to take them:",
            [f"{value.name}: {refused[value]}" for value in stranded],
        )
    reasons.update({node: FOLLOWS for node in tail if reasons[node] is None})
    body = [node for node in nodes if node not in tail]
    grouping = Grouping(body, [node for node in body if reasons[node] is not None])
    for node in body:
        for value in reads(node):
            for maker in producer(value) if value in refused else ():
                grouping.force(maker, node)
    segments = []
    for group, is_island in grouping.segments():
        reasons.update({node: BETWEEN for node in group if is_island and reasons[node] is None})
        segments.append(Segment(ISLAND if is_island else NATIVE, group, model))
    if tail:
        segments.append(Segment(ISLAND, [node for node in nodes if node in tail], model, tail=True))
    backends = {node: segment.backend for segment in segments for node in segment.nodes}
    return segments, [Placement(str(n.name), n.op_type, backends[n], reasons[n] or "") for n in nodes]


def _values(graph: ir.Graph) -> Iterable[ir.Value]:
    yield from graph.inputs
    yield from graph.initializers.values()
    for node in graph:
        yield from (value for value in node.outputs if value.name)


def _tail(graph: ir.Graph, refused: Collection[ir.Value]) -> set[ir.Node]:
    """The nodes of islands at the plan's edge, and all that follows from them."""
    edge = {value for value in (*graph.inputs, *graph.outputs) if value in refused}
    users: dict[ir.Value, list[ir.Node]] = {}
    for node in graph:
        for value in reads(node):
            users.setdefault(value, []).append(node)
    waiting = [node for value in edge for node in users.get(value, ())]
    waiting += [maker for value in edge for maker in producer(value)]
    found: set[ir.Node] = set()
    while waiting:
        node = waiting.pop()
        if node in found:
            continue
        found.add(node)
        for value in node.outputs:
            waiting += users.get(value, ())
        for value in reads(node):
            if value in refused:
                waiting += (*users.get(value, ()), *producer(value))
    return found


def detach(graph: ir.Graph, segment: Segment, island: int) -> tuple[Tail, list[ir.Value]]:
    """Take what only the tail can hold out of the graph's inputs and outputs, before the graph is lowered.

    Returns
    -------
    The tail, and the values that the schedule hands to it.
    """
    hosts = [value for value in segment.inputs if unholdable(value) is not None]
    steps = [value for value in segment.inputs if value not in hosts]
    makes = [value for value in segment.outputs if value in graph.outputs]
    tail = Tail(
        island,
        reads=_names(segment.inputs),
        steps=_names(steps),
        hosts=_names(hosts),
        makes=_names(makes),
        inputs=_names(graph.inputs),
        outputs=_names(graph.outputs),
    )
    for values, gone in ((graph.inputs, hosts), (graph.outputs, makes)):
        for value in gone:
            while value in values:
                values.remove(value)
    for value in [v for v in graph.inputs if unholdable(v) is not None]:
        graph.inputs.remove(value)  # an input that nothing reads
    return tail, steps


def _names(values: Sequence[ir.Value]) -> list[str]:
    return [str(value.name) for value in values]
