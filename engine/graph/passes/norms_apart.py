"""Instance norms, each with the activation behind it, as one operator of ours on channels-last volumes.

``x → InstanceNormalization → LeakyRelu`` becomes ``x → Transpose → ChannelsLastNorm → Transpose``: what GPUs' own
kernels take (``kernels/norm3d``), with both transposes left to the engines beside it, which keep their volumes channels
last inside anyway where they compute in half precision.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from voxelrt.graph.edit import free_name, is_constant, names_of, static_shape
from voxelrt.graph.spec import OUR_DOMAIN

OPERATOR = "ChannelsLastNorm"
# Activations that a norm takes along: the attribute that is their parameter, and its default.
_ACTIVATIONS: dict[str, tuple[str, tuple[str, float] | None]] = {
    "Relu": ("relu", None),
    "LeakyRelu": ("leaky_relu", ("alpha", 0.01)),
}


def run(model: ir.Model) -> ir.Model:
    """Every instance norm of known shape whose scale and bias are constants; changed in place."""
    graph, taken = model.graph, names_of(model.graph)
    for node in list(graph):
        shape = static_shape(node.inputs[0]) if node.inputs else None
        norm = node.op_type == "InstanceNormalization" and node.domain == ""
        if norm and shape is not None and len(shape) >= 3 and all(map(is_constant, node.inputs[1:3])):
            _replace(graph, node, shape, taken)
            model.opset_imports.setdefault(OUR_DOMAIN, 1)
    return model


def _replace(graph: ir.Graph, node: ir.Node, shape: Sequence[int], taken: set[str]) -> None:
    axes, source = len(shape), node.inputs[0]
    assert source is not None
    activation = _activation(node)
    last = activation or node
    attributes: list[ir.Attr] = [ir.AttrFloat32("epsilon", _number(node, "epsilon", 1e-5))]
    if activation is not None:
        name, parameter = _ACTIVATIONS[activation.op_type]
        attributes.append(ir.AttrString("activation", name))
        attributes.append(ir.AttrFloat32("alpha", _number(activation, *parameter) if parameter else 0.0))
    moved = (shape[0], *shape[2:], shape[1])
    here = _made(source, moved, free_name(taken, f"{node.name}_last"))
    there = _made(source, moved, free_name(taken, f"{node.name}_normed"))
    back = _made(source, shape, free_name(taken, f"{last.outputs[0].name}_first"))
    forth, home = [0, *range(2, axes), 1], [0, axes - 1, *range(1, axes - 1)]
    nodes = [
        _transpose(source, forth, here, f"{node.name}_to_last"),
        ir.Node(OUR_DOMAIN, OPERATOR, [here, *node.inputs[1:3]], attributes, outputs=[there], name=str(node.name)),
        _transpose(there, home, back, f"{node.name}_to_first"),
    ]
    graph.insert_before(node, nodes)
    old, name = last.outputs[0], str(last.outputs[0].name)
    old.replace_all_uses_with(back, replace_graph_outputs=True)
    graph.remove([n for n in (activation, node) if n is not None], safe=True)
    back.name = name


def _activation(node: ir.Node) -> ir.Node | None:
    """The activation that alone reads a norm."""
    value = node.outputs[0]
    users = [user for user, _ in value.uses()]
    alone = len(users) == 1 and not value.is_graph_output()
    return users[0] if alone and users[0].op_type in _ACTIVATIONS and users[0].domain == "" else None


def _number(node: ir.Node, name: str, default: float) -> float:
    attribute = node.attributes.get(name)
    return float(attribute.as_float()) if attribute is not None else default


def _made(like: ir.Value, shape: Sequence[int], name: str) -> ir.Value:
    return ir.Value(name=name, type=like.type, shape=ir.Shape(list(shape)))


def _transpose(value: ir.Value, order: list[int], out: ir.Value, name: str) -> ir.Node:
    return ir.Node("", "Transpose", [value], [ir.AttrInt64s("perm", order)], outputs=[out], name=name)
