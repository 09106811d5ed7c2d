"""Replace a ``Loop`` whose number of iterations is known by its iterations, one behind the other.

The number is known where the trip count is a constant and the condition is absent, always true, or follows from
constants, the iteration's number and states that do. A loop that hands on how far it came in data stays as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from voxelrt.graph.bodies import Names, place, take_over
from voxelrt.graph.edit import add_initializer, constant_of, is_constant, names_of, tensor_of
from voxelrt.graph.passes import fold_constants

Array = NDArray[Any]

MAX_NODES = 50_000  # of all iterations of one loop: a file's word alone buys no more than this
MAX_EVALUATED = 2_000  # nodes run to learn when a condition ends a loop


def run(model: ir.Model) -> ir.Model:
    """Unroll the loops of the main graph; those inside their bodies are met in the next round."""
    graph = model.graph
    for node in [n for n in graph if n.op_type == "Loop" and n.domain == ""]:
        trips = _trips(model, node)
        if trips is not None:
            _unroll(graph, node, trips)
            graph.remove(node, safe=True)
    return model


def affordable(trips: int, body: ir.Graph) -> bool:
    """Whether so many copies of a body are within what one loop may become."""
    return trips * (len(body) + len(body.outputs)) <= MAX_NODES


def joined(graph: ir.Graph, before: ir.Node, parts: Sequence[ir.Value], axis: int, name: str, names: Names) -> ir.Value:
    """The parts along a new axis, in order, as nodes in front of another."""
    index = add_initializer(graph, names.value(f"{name}_axis"), tensor_of(np.array([axis], np.int64)))
    nodes = [ir.Node("", "Unsqueeze", [p, index], num_outputs=1, name=names.node(f"{name}_part")) for p in parts]
    nodes.append(
        ir.Node(
            "",
            "Concat",
            [n.outputs[0] for n in nodes],
            [ir.AttrInt64("axis", axis)],
            num_outputs=1,
            name=names.node(f"{name}_join"),
        )
    )
    for node in nodes:
        node.outputs[0].name = names.value(f"{name}_part")
    graph.insert_before(before, nodes)
    return nodes[-1].outputs[0]


def _trips(model: ir.Model, node: ir.Node) -> int | None:
    """How often the body runs; None where that is not known, or is too often, or never with results to join."""
    body = node.attributes["body"].as_graph()
    if any(value is not None and not is_constant(value) for value in node.inputs[:2]):
        return None
    limit, start = (constant_of(value) for value in node.inputs[:2])
    most = max(0, int(limit.reshape(-1)[0])) if limit is not None else MAX_NODES + 1
    if start is not None and not bool(start.reshape(-1)[0]):
        most = 0
    trips = _until_false(model, node, body, most)
    states = len(node.inputs) - 2
    if trips is None or not affordable(trips, body):
        return None
    makes_rows = any(v.uses() or v.is_graph_output() for v in node.outputs[states:])
    return None if trips == 0 and makes_rows else trips


def _until_false(model: ir.Model, node: ir.Node, body: ir.Graph, most: int) -> int | None:
    """After how many of at most ``most`` iterations the condition ends the loop; None where it depends on data."""
    condition = body.outputs[0]
    needed = _needed(body, condition)
    if needed is None:
        return None
    if not needed and condition is body.inputs[1]:
        return most
    wanted = {value for inner in needed for value in inner.inputs} | {condition}
    states = [constant_of(value) for value in node.inputs[2:]]
    depends = [value in wanted for value in body.inputs[2:]]
    if not any(depends) and body.inputs[0] not in wanted:
        most, asked = min(most, MAX_NODES + 1), 1  # the condition is the same in every iteration
    else:
        asked = most
    if asked * max(1, len(needed)) > MAX_EVALUATED:
        return None
    for trip in range(asked):
        known: dict[ir.Value, Array | None] = {
            body.inputs[0]: np.array(trip, np.int64),
            body.inputs[1]: np.array(True),
            **dict(zip(body.inputs[2:], states, strict=True)),
        }
        _evaluate(model, needed, known)
        answer = _look_up(known, condition)
        if answer is None:
            return None
        if not bool(answer.reshape(-1)[0]):
            return trip + 1
        states = [_look_up(known, value) for value in body.outputs[1 : 1 + len(states)]]
    return most


def _needed(body: ir.Graph, condition: ir.Value) -> list[ir.Node] | None:
    """The nodes that the condition of the next iterations hangs on, states included, in order."""
    found: set[ir.Node] = set()
    waiting = [condition]
    seen: set[ir.Value] = set()
    inputs = list(body.inputs)
    while waiting:
        value = waiting.pop()
        if value in seen:
            continue
        seen.add(value)
        if value in inputs[2:]:
            waiting.append(body.outputs[inputs.index(value) - 1])
        maker = value.producer()
        if maker is not None and maker.graph is body:
            if any(a.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for a in maker.attributes.values()):
                return None
            found.add(maker)
            waiting += [v for v in maker.inputs if v is not None]
    return [node for node in body if node in found]


def _evaluate(model: ir.Model, nodes: Sequence[ir.Node], known: dict[ir.Value, Array | None]) -> None:
    """Run nodes in the reference evaluator as far as what they read is known and small."""
    for node in nodes:
        arrays = [None if value is None else _look_up(known, value) for value in node.inputs]
        missing = any(a is None for a, value in zip(arrays, node.inputs, strict=True) if value is not None)
        small = all(a is None or a.size <= fold_constants.SLOW_ELEMENTS for a in arrays)
        results = None
        if not missing and small and node.op_type not in fold_constants.GROWING | fold_constants.RANDOM:
            results = fold_constants.reference(model, node, arrays)
        for index, value in enumerate(node.outputs):
            known[value] = np.asarray(results[index]) if results is not None and results[index] is not None else None


def _look_up(known: dict[ir.Value, Array | None], value: ir.Value) -> Array | None:
    return known[value] if value in known else constant_of(value)


def _unroll(graph: ir.Graph, node: ir.Node, trips: int) -> None:
    body = node.attributes["body"].as_graph()
    states: list[ir.Value] = [value for value in node.inputs[2:] if value is not None]
    rows: list[list[ir.Value]] = [[] for _ in node.outputs[len(states) :]]
    names = Names(names_of(graph), {str(n.name) for n in graph.all_nodes()})
    true = add_initializer(graph, names.value("loop_goes_on"), tensor_of(np.array(True)))
    for trip in range(trips):
        number = add_initializer(graph, names.value("loop_iteration"), tensor_of(np.array(trip, np.int64)))
        results = place(graph, node, body.clone(allow_outer_scope_values=True), [number, true, *states], names)
        states = results[1 : 1 + len(states)]
        for row, value in zip(rows, results[1 + len(states) :], strict=True):
            row.append(value)
    # Without an iteration nothing reads the rows; something has to stand for them.
    made = [joined(graph, node, row, 0, str(node.name), names) if row else true for row in rows]
    take_over(graph, node, [*states, *made], names)
