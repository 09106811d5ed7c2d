"""The graph inside a node (a branch, the body of a loop) brought into the main graph."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from voxelrt.graph.edit import free_name, replace_value


class Names:
    """The names of values and nodes that are taken in a graph and in the graphs inside its nodes, found once."""

    def __init__(self, values: set[str], nodes: set[str]) -> None:
        self.values, self.nodes = values, nodes

    def value(self, stem: str) -> str:
        """A free name for a value, taken from now on."""
        return free_name(self.values, stem)

    def node(self, stem: str) -> str:
        """A free name for a node, taken from now on."""
        return free_name(self.nodes, stem)


def place(graph: ir.Graph, before: ir.Node, body: ir.Graph, given: Sequence[ir.Value], names: Names) -> list[ir.Value]:
    """Move the nodes and constants of a body in front of a node. The body is empty afterwards: give a clone.

    Parameters
    ----------
    graph : the main graph.
    before : one of its nodes.
    body : its values may read those of the main graph.
    given : what takes the place of the body's inputs.
    names : of the graph; what moves in gets free ones.

    Returns
    -------
    The body's results as values of the main graph. Shapes that the file gives for inner values are forgotten: they may
    be of another iteration, or wrong.
    """
    nodes = list(body)
    for value, replacement in zip(body.inputs, given, strict=True):
        value.replace_all_uses_with(replacement, replace_graph_outputs=True)
    results = list(body.outputs)
    body.outputs.clear()
    constants = list(body.initializers.values())
    body.initializers.clear()
    body.remove(nodes)
    for value in constants:
        value.name = names.value(str(value.name))
        graph.register_initializer(value)
    for node in nodes:
        node.name = names.node(node.name or node.op_type)
        for value in node.outputs:
            value.shape = None
            if value.name:
                value.name = names.value(value.name)
    graph.insert_before(before, nodes)
    return results


def take_over(graph: ir.Graph, node: ir.Node, results: Sequence[ir.Value], names: Names) -> list[ir.Node]:
    """Let values take the place of a node's outputs; the node is left without users.

    Returns
    -------
    The Identity nodes that had to be put between two names that the outside knows.
    """
    bridges = []
    for output, result in zip(node.outputs, results, strict=True):
        if replace_value(graph, output, result):
            continue
        name = str(output.name)
        output.name = names.value(f"{name}_was")
        bridge = ir.Node("", "Identity", [result], num_outputs=1, name=names.node(f"{name}_identity"))
        graph.insert_before(node, bridge)
        bridge.outputs[0].name, bridge.outputs[0].type, bridge.outputs[0].shape = name, output.type, output.shape
        output.replace_all_uses_with(bridge.outputs[0], replace_graph_outputs=True)
        bridges.append(bridge)
    return bridges
