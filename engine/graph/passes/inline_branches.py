"""Replace an ``If`` whose condition is known by the branch that it takes."""

from __future__ import annotations

import onnx_ir as ir

from voxelrt.graph.bodies import Names, place, take_over
from voxelrt.graph.edit import constant_of, names_of


def run(model: ir.Model) -> ir.Model:
    """Nodes of the branch move into the graph in place of the ``If``; an ``If`` inside them is met in turn."""
    graph = model.graph
    waiting = list(graph)
    for node in waiting:  # grows while it is walked
        condition = constant_of(node.inputs[0]) if _is_if(node) else None
        if condition is not None:
            waiting += _inline(graph, node, "then_branch" if bool(condition.reshape(-1)[0]) else "else_branch")
            graph.remove(node, safe=True)
    return model


def _is_if(node: ir.Node) -> bool:
    return node.op_type == "If" and node.domain == ""


def _inline(graph: ir.Graph, node: ir.Node, which: str) -> list[ir.Node]:
    """Move the branch in front of the node and let its results take the place of the node's outputs."""
    branch = node.attributes[which].as_graph()
    nodes = list(branch)
    node.attributes.clear()  # the names of both branches are free now
    names = Names(names_of(graph), {str(n.name) for n in graph.all_nodes()})
    results = place(graph, node, branch, [], names)
    return nodes + take_over(graph, node, results, names)
