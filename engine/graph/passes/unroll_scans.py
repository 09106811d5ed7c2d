"""Replace a ``Scan`` over an axis of known length by its iterations, one behind the other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from voxelrt.graph.bodies import Names, place, take_over
from voxelrt.graph.edit import add_initializer, names_of, static_shape, tensor_of
from voxelrt.graph.passes.unroll_loops import affordable, joined


def run(model: ir.Model) -> ir.Model:
    """Unroll the scans of the main graph; those inside their bodies are met in the next round."""
    graph = model.graph
    for node in [n for n in graph if n.op_type == "Scan" and n.domain == ""]:
        body = node.attributes["body"].as_graph()
        trips = _trips(node)
        if trips and affordable(trips, body):
            _unroll(graph, node, body, trips)
            graph.remove(node, safe=True)
    return model


def _integers(node: ir.Node, name: str, count: int) -> list[int]:
    attribute = node.attributes.get(name)
    return [int(v) for v in attribute.as_ints()] if attribute is not None else [0] * count


def _scanned(node: ir.Node) -> tuple[int, list[tuple[ir.Value, int, bool]]]:
    """How many states there are; and each value that is scanned with its axis and whether it runs backwards."""
    count = int(node.attributes["num_scan_inputs"].as_int())
    states = len(node.inputs) - count
    axes = _integers(node, "scan_input_axes", count)
    backwards = _integers(node, "scan_input_directions", count)
    values = [value for value in node.inputs[states:] if value is not None]
    return states, [(v, axis, bool(back)) for v, axis, back in zip(values, axes, backwards, strict=True)]


def _trips(node: ir.Node) -> int | None:
    """The common length of what is scanned; None where it is not known (or is not common)."""
    lengths = set()
    for value, axis, _ in _scanned(node)[1]:
        dims = static_shape(value)
        lengths.add(dims[axis] if dims is not None and -len(dims) <= axis < len(dims) else None)
    return lengths.pop() if len(lengths) == 1 else None


def _unroll(graph: ir.Graph, node: ir.Node, body: ir.Graph, trips: int) -> None:
    count, scanned = _scanned(node)
    states = [value for value in node.inputs[:count] if value is not None]
    made = len(node.outputs) - count
    axes, backwards = _integers(node, "scan_output_axes", made), _integers(node, "scan_output_directions", made)
    rows: list[list[ir.Value]] = [[] for _ in range(made)]
    names = Names(names_of(graph), {str(n.name) for n in graph.all_nodes()})
    for trip in range(trips):
        parts = [_part(graph, node, v, axis, trips - 1 - trip if back else trip, names) for v, axis, back in scanned]
        results = place(graph, node, body.clone(allow_outer_scope_values=True), [*states, *parts], names)
        states = results[:count]
        for row, value in zip(rows, results[count:], strict=True):
            row.append(value)
    results = states + _joined_rows(graph, node, rows, axes, backwards, names)
    take_over(graph, node, results, names)


def _part(graph: ir.Graph, node: ir.Node, value: ir.Value, axis: int, index: int, names: Names) -> ir.Value:
    """One element of a value along an axis, which is gone afterwards."""
    which = add_initializer(graph, names.value(f"{node.name}_index"), tensor_of(np.array(index, np.int64)))
    gather = ir.Node(
        "",
        "Gather",
        [value, which],
        [ir.AttrInt64("axis", axis)],
        num_outputs=1,
        name=names.node(f"{node.name}_element"),
    )
    gather.outputs[0].name = names.value(f"{node.name}_element")
    graph.insert_before(node, gather)
    return gather.outputs[0]


def _joined_rows(
    graph: ir.Graph,
    node: ir.Node,
    rows: Sequence[Sequence[ir.Value]],
    axes: Sequence[int],
    backwards: Sequence[int],
    names: Names,
) -> list[ir.Value]:
    return [
        joined(graph, node, row[::-1] if back else row, axis, str(node.name), names)
        for row, axis, back in zip(rows, axes, backwards, strict=True)
    ]
