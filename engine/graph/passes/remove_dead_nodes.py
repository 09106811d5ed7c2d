"""Remove what no output needs: nodes, constants, and optional outputs at the end of a node's list."""

from __future__ import annotations

import onnx
import onnx_ir as ir

from voxelrt.graph.spec import ONNX_DOMAINS, opset_of


def run(model: ir.Model) -> ir.Model:
    """Inputs of the model stay, used or not: they are its signature."""
    graph = model.graph
    for node in reversed(list(graph)):
        if all(_unused(value) for value in node.outputs):
            graph.remove(node, safe=True)
        elif len(node.outputs) > 1 and _unused(node.outputs[-1]):
            _trim(node, opset_of(model))
    for name, value in list(graph.initializers.items()):
        if _unused(value) and not value.is_graph_input():
            del graph.initializers[name]
    return model


def _unused(value: ir.Value) -> bool:
    return not value.uses() and not value.is_graph_output()


def _trim(node: ir.Node, opset: int) -> None:
    """Drop unused outputs from the end, as far as the operator says that they are optional."""
    if node.domain not in ONNX_DOMAINS:
        return
    try:
        outputs = onnx.defs.get_schema(node.op_type, opset, "").outputs
    except onnx.defs.SchemaError:
        return
    count = len(node.outputs)
    optional = onnx.defs.OpSchema.FormalParameterOption.Optional
    while (
        count > 1
        and count <= len(outputs)
        and outputs[count - 1].option == optional
        and _unused(node.outputs[count - 1])
    ):
        count -= 1
    node.resize_outputs(count)
