"""A model as protobuf without its large weights: what onnx.checker and onnx.shape_inference work on.

Both parse and copy all they are given, and protobuf ends at 2 GiB; neither needs to see the weights.
"""

from __future__ import annotations

import onnx
import onnx_ir as ir

KEPT_BYTES = 1024  # smaller constants stay: shapes, axes, scales


def structure(model: ir.Model) -> onnx.ModelProto:
    """The model with every large constant of its main graph turned into a graph input of the same type.

    The model is left as it is.
    """
    copy = model.clone()
    graph = copy.graph
    for name, value in list(graph.initializers.items()):
        tensor = value.const_value
        if tensor is None or tensor.nbytes > KEPT_BYTES:
            del graph.initializers[name]
            value.const_value = None
            if not value.is_graph_input():
                graph.inputs.append(value)
    for node in list(graph):
        attribute = node.attributes.get("value") if node.op_type == "Constant" and not node.domain else None
        if attribute is None or attribute.is_ref() or attribute.as_tensor().nbytes <= KEPT_BYTES:
            continue
        tensor = attribute.as_tensor()
        value = node.outputs[0]
        if value.is_graph_output():
            continue
        stand_in = ir.Value(name=value.name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(tensor.shape.numpy()))
        value.replace_all_uses_with(stand_in)
        graph.remove(node, safe=True)
        graph.inputs.append(stand_in)
    return ir.serde.serialize_model(copy)
