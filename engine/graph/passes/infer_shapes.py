"""Give every value its shape and dtype, as far as ONNX shape inference with data propagation knows them."""

from __future__ import annotations

import onnx
import onnx_ir as ir

from voxelrt.errors import ModelError
from voxelrt.graph import domain
from voxelrt.graph.edit import static_shape
from voxelrt.graph.spec import ONNX_DOMAINS, first_line, lenient, opset_of
from voxelrt.graph.structure import structure

# Operators that are functions without an inference rule of their own, where inference through the body fails.
LIKE_INPUT = ("GroupNormalization", "MeanVarianceNormalization")
FAILURES = (onnx.shape_inference.InferenceError, onnx.checker.ValidationError, RuntimeError, ValueError)


def run(model: ir.Model) -> ir.Model:
    """Values of the main graph get what is inferred; what is known already stays where nothing is.

    A node that does not fit its inputs is passed over (its branch may never be taken); ``check`` tells of it.
    """
    proto = structure(model)
    try:
        inferred = onnx.shape_inference.infer_shapes(proto, data_prop=True)
    except FAILURES:  # data propagation is the less stable part
        try:
            inferred = onnx.shape_inference.infer_shapes(proto)
        except FAILURES as error:
            raise ModelError(f"the shapes of the model cannot be inferred: {first_line(error)}") from error
    found = {info.name: info.type for info in (*inferred.graph.value_info, *inferred.graph.output)}
    for node in model.graph:
        for value in node.outputs:
            if value.name and value.name in found:
                _tell(value, found[value.name])
        if node.op_type in LIKE_INPUT and node.domain == "" and node.inputs[0] is not None:
            _tell_like(node.outputs[0], node.inputs[0])
    return domain.run(model)


def _tell_like(value: ir.Value, source: ir.Value) -> None:
    if static_shape(value) is None and static_shape(source) is not None:
        value.shape, value.type = ir.Shape(list(source.shape or ())), source.type


def check(model: ir.Model) -> None:
    """Raise ModelError if an operator cannot work on the shapes it gets.

    Says nothing of a model with branches or loops: what does not fit there may never run.
    """
    if lenient(model):
        return
    try:
        onnx.shape_inference.infer_shapes(structure(model), check_type=True, strict_mode=True)
    except FAILURES as error:
        raise ModelError(f"the shapes of the model do not fit together: {first_line(error)}") from error


def cannot_run(model: ir.Model) -> bool:
    """Whether a node outside of branches and loops does not fit what it gets, so that every run of the graph fails."""
    version = opset_of(model)
    imports = [onnx.helper.make_opsetid("", version)]
    for node in model.graph:
        inputs = [value for value in node.inputs if value is not None]
        told = all(static_shape(value) is not None and value.dtype is not None for value in inputs)
        made = all(static_shape(value) is not None for value in node.outputs if value.name)
        nested = any(a.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for a in node.attributes.values())
        if node.domain not in ONNX_DOMAINS or nested or made or not told:
            continue
        types = {str(v.name): ir.serde.serialize_value(v).type for v in inputs}
        proto = ir.serde.serialize_node(node)
        proto.domain = ""
        try:
            onnx.shape_inference.infer_node_outputs(
                onnx.defs.get_schema(node.op_type, version), proto, types, opset_imports=imports
            )
        except onnx.shape_inference.InferenceError:
            return True
        except (onnx.defs.SchemaError, *FAILURES):
            continue
    return False


def _tell(value: ir.Value, inferred: onnx.TypeProto) -> None:
    kind = ir.serde.deserialize_type_proto_for_type(inferred)
    shape = ir.serde.deserialize_type_proto_for_shape(inferred)
    if kind is not None:
        value.type = kind
    if shape is not None:
        value.shape = shape
