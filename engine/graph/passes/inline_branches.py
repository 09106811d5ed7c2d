"""Replace an ``If`` whose condition is known by the branch that it takes."""

from __future__ import annotations

import onnx_ir as ir

from voxelrt.graph.edit import constant_of, free_name, names_of, replace_value


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
    nodes, results = list(branch), list(branch.outputs)
    node.attributes.clear()  # the names of both branches are free now
    branch.outputs.clear()
    taken = names_of(graph)
    constants = list(branch.initializers.values())
    branch.initializers.clear()
    branch.remove(nodes)
    for value in constants:
        value.name = free_name(taken, str(value.name))
        graph.register_initializer(value)
    for inner in nodes:
        for value in inner.outputs:
            if value.name:
                value.name = free_name(taken, value.name)
    taken_nodes = {str(n.name) for n in graph.all_nodes()}
    for inner in nodes:
        inner.name = free_name(taken_nodes, inner.name or inner.op_type)
    graph.insert_before(node, nodes)
    for output, result in zip(node.outputs, results, strict=True):
        if not replace_value(graph, output, result):
            name = str(output.name)
            output.name = free_name(taken, f"{name}_was")
            bridge = ir.Node("", "Identity", [result], num_outputs=1, name=free_name(taken_nodes, f"{name}_identity"))
            graph.insert_before(node, bridge)
            bridge.outputs[0].name, bridge.outputs[0].type, bridge.outputs[0].shape = name, output.type, output.shape
            output.replace_all_uses_with(bridge.outputs[0], replace_graph_outputs=True)
            nodes.append(bridge)
    return nodes
