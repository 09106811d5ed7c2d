"""Replace operators that ONNX itself defines as functions (Attention, SoftmaxCrossEntropyLoss …) by their bodies."""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from typing import Any

import onnx
import onnx.inliner
import onnx_ir as ir

from voxelrt.graph.spec import opset_of
from voxelrt.graph.structure import structure

# Bodies that say less than the operator: sequences, control flow, or a reference that no executor should follow.
# The body of MeanVarianceNormalization 13 has a Constant without a value and gives wrong answers.
KEPT = frozenset({"SequenceMap", "Clip", "MeanVarianceNormalization"})


def is_function(node: ir.Node, opset: int) -> bool:
    """Whether ONNX defines the node's operator by a body of other operators."""
    if node.domain or node.op_type in KEPT or not onnx.defs.has(node.op_type):
        return False
    schema: Any = onnx.defs.get_schema(node.op_type, opset)
    return bool(schema.has_function or schema.has_context_dependent_function)


def _spell_defaults(proto: onnx.ModelProto, operators: Collection[str], opset: int) -> None:
    """Write out the attributes that nodes leave to their defaults: the inliner takes what is not there for absent."""
    for node in proto.graph.node:
        if node.domain or node.op_type not in operators:
            continue
        present = {attribute.name for attribute in node.attribute}
        for name, attribute in onnx.defs.get_schema(node.op_type, opset).attributes.items():
            if name not in present and attribute.default_value.name:
                node.attribute.append(attribute.default_value)


def run(model: ir.Model, operators: Collection[str]) -> ir.Model:
    """The model with every node of these operators expanded; the weights are shared with the model given.

    Shapes of inner values are as far as the expansion needs them: run the other passes again.
    """
    weights = {name: value.const_value for name, value in model.graph.initializers.items()}
    proto = structure(model)
    _spell_defaults(proto, operators, opset_of(model))
    for operator in sorted(operators):
        # The inliner cannot type a body whose optional input is absent: that operator stays as it is.
        with contextlib.suppress(RuntimeError):
            proto = onnx.inliner.inline_selected_functions(proto, [("", operator)], inline_schema_functions=True)
    expanded = ir.serde.deserialize_model(proto)
    graph = expanded.graph
    for value in list(graph.inputs):
        if value.name in weights:
            graph.inputs.remove(value)
            value.const_value = weights[value.name]
            graph.register_initializer(value)
    for name, value in graph.initializers.items():
        value.const_value = weights.get(name, value.const_value)
    expanded.metadata_props.update(model.metadata_props)
    return expanded
