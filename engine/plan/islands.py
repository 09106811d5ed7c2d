"""A part of a graph as an ONNX model of its own, for a backend that takes ONNX."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import onnx_ir as ir

from voxelrt.errors import UnsupportedError
from voxelrt.graph.edit import is_constant

MAX_BYTES = (1 << 31) - 1  # what protobuf can hold


def reads(node: ir.Node) -> Iterator[ir.Value]:
    """The values that a node reads from its graph, those that its inner graphs capture included."""
    inner = [graph for attribute in node.attributes.values() for graph in _graphs(attribute)]
    yield from (value for value in node.inputs if value is not None)
    if not inner:
        return
    graphs = set(inner)
    for graph in inner:
        graphs.update(graph.subgraphs())
    for graph in graphs:
        for nested in graph:
            for value in nested.inputs:
                if value is not None and value.graph not in graphs:
                    yield value


def producer(value: ir.Value) -> list[ir.Node]:
    """The node that makes a value, if one does."""
    node = value.producer()
    return [] if node is None else [node]


def _graphs(attribute: ir.Attr) -> Sequence[ir.Graph]:
    if attribute.type == ir.AttributeType.GRAPH:
        return (attribute.as_graph(),)
    return attribute.as_graphs() if attribute.type == ir.AttributeType.GRAPHS else ()


def captured(nodes: Iterable[ir.Node]) -> list[ir.Value]:
    """What a set of nodes needs from outside, in order of first use; constants are not among it."""
    members = set(nodes)
    found: dict[ir.Value, None] = {}
    for node in nodes:
        for value in reads(node):
            if value.producer() not in members and not is_constant(value):
                found[value] = None
    return list(found)


def outputs_of(nodes: Iterable[ir.Node]) -> list[ir.Value]:
    """What a set of nodes makes for others and for the outputs of the graph, in order."""
    members = set(nodes)
    graph = next((node.graph for node in members), None)
    inner = {
        nested for node in members for a in node.attributes.values() for g in _graphs(a) for nested in g.all_nodes()
    }

    def leaves(value: ir.Value) -> bool:
        outside = any(use.node not in members and use.node not in inner for use in value.uses())
        return bool(value.name) and (outside or (graph is not None and value in graph.outputs))

    return [value for node in nodes for value in node.outputs if leaves(value)]


def island_bytes(
    model: ir.Model, nodes: Sequence[ir.Node], inputs: Sequence[ir.Value], outputs: Sequence[ir.Value]
) -> bytes:
    """Nodes of a model's main graph as a serialised ONNX model with these inputs and outputs, in this order.

    Raises
    ------
    UnsupportedError : the constants that the nodes need are more than an ONNX file can hold.
    """
    constants = {value: None for node in nodes for value in reads(node) if is_constant(value)}
    size = sum(value.const_value.nbytes for value in constants if value.const_value is not None)
    if size > MAX_BYTES:
        raise UnsupportedError(
            f"an island of {len(nodes)} nodes has {size} bytes of constants; at most {MAX_BYTES} fit:",
            [f"{node.name} ({node.op_type})" for node in nodes],
        )
    view = ir.GraphView(
        inputs, outputs, nodes=nodes, initializers=tuple(constants), name="island", opset_imports=model.opset_imports
    )
    part = ir.Model(view, ir_version=model.ir_version or 10)  # type: ignore[arg-type]
    return bytes(ir.serde.serialize_model(part).SerializeToString())


def make_island(model: ir.Model, nodes: Sequence[ir.Node]) -> tuple[bytes, list[ir.Value], list[ir.Value]]:
    """``island_bytes`` with the inputs and outputs that follow from the graph: (bytes, inputs, outputs)."""
    inputs, outputs = captured(nodes), outputs_of(nodes)
    return island_bytes(model, nodes, inputs, outputs), inputs, outputs
