"""Evaluate what is known at compile time: nodes that read only constants, and the shapes of values of static shape.

Nodes run in the ONNX reference evaluator. What it does not know, or where its answer is not of the inferred type and
shape, stays as it is.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from voxelrt.graph.edit import become_constant, constant_of, is_constant, static_shape, tensor_of
from voxelrt.graph.quantised import left_to_convolutions

Array = NDArray[Any]

LIMIT_BYTES = 64 << 20  # a result may be this large, or as large as what it is made of
SLOW_ELEMENTS = 1 << 14
RANDOM = frozenset(
    ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli", "Dropout")
)
# The size of these results is told by the values of their inputs, not by their sizes.
GROWING = frozenset(
    ("Expand", "ConstantOfShape", "Tile", "Range", "OneHot", "Pad", "Resize", "EyeLike", "CenterCropPad", "Upsample")
)
# Loops in Python where the reference evaluator does them.
SLOW = frozenset(
    ("Conv", "ConvTranspose", "ConvInteger", "DeformConv", "QLinearConv", "MaxPool", "AveragePool", "LpPool", "LRN")
).union(("Resize", "GridSample", "RoiAlign", "NonMaxSuppression", "LSTM", "GRU", "RNN", "Scatter", "ScatterElements"))


def run(model: ir.Model) -> ir.Model:
    """Fold in one sweep over the main graph, in order, so that what follows from a folded node is folded too."""
    graph = model.graph
    for node in list(graph):
        tensors = _evaluate(model, node)
        if tensors is None:
            continue
        for value, tensor in zip(node.outputs, tensors, strict=True):
            if value.name and tensor is not None:
                become_constant(graph, value, tensor)
        if not any(value.uses() or value.is_graph_output() for value in node.outputs):
            graph.remove(node, safe=True)
    return model


def _evaluate(model: ir.Model, node: ir.Node) -> list[ir.TensorProtocol | None] | None:
    """The node's results as tensors; None where it is not folded."""
    if node.domain != "" or node.op_type in RANDOM or _has_graphs(node):
        return None
    if node.op_type == "Constant":
        try:
            tensor = ir.convenience.get_const_tensor(node.outputs[0])
        except (ValueError, TypeError):  # no value, or several: left for its backend to refuse
            return None
        return None if tensor is None else [tensor]
    if node.op_type == "DequantizeLinear" and left_to_convolutions(node):
        return None  # their weights stay integers
    if node.op_type in ("Shape", "Size"):
        array = _shape(node)
        return None if array is None else [tensor_of(array)]
    if not all(value is None or is_constant(value) for value in node.inputs) or not _affordable(node):
        return None
    arrays = [constant_of(value) for value in node.inputs]
    if node.op_type == "Range":  # one-element vectors are taken for scalars everywhere but in the evaluator
        arrays = [array.reshape(()) if array is not None and array.size == 1 else array for array in arrays]
    results = reference(model, node, arrays)
    if results is None or len(results) != len(node.outputs):
        return None
    return _checked(node, results)


def _has_graphs(node: ir.Node) -> bool:
    kinds = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
    return any(attribute.type in kinds or attribute.is_ref() for attribute in node.attributes.values())


def _shape(node: ir.Node) -> Array | None:
    dims = static_shape(node.inputs[0])
    if dims is None:
        return None
    if node.op_type == "Size":
        return np.array(math.prod(dims), np.int64)
    start = node.attributes["start"].as_int() if "start" in node.attributes else 0
    end = node.attributes["end"].as_int() if "end" in node.attributes else len(dims)
    rank = len(dims)
    start, end = (max(0, min(rank, i + rank if i < 0 else i)) for i in (start, end))
    return np.array(dims[start:end], np.int64)


def _affordable(node: ir.Node) -> bool:
    given = sum(
        value.const_value.nbytes for value in node.inputs if value is not None and value.const_value is not None
    )
    made = 0
    for value in node.outputs:
        dims = static_shape(value) if value.name else ()
        if dims is None and node.op_type == "Range":
            dims = _range_length(node)
        if dims is None:
            if node.op_type in GROWING or given > SLOW_ELEMENTS:
                return False
            continue
        count = math.prod(dims)
        if node.op_type in SLOW and count > SLOW_ELEMENTS:
            return False
        made += math.ceil(count * (value.dtype.itemsize if value.dtype is not None else 8))
    return made <= max(LIMIT_BYTES, given)


def _range_length(node: ir.Node) -> tuple[int] | None:
    """The shape of a Range; inference does not know it where the inputs are one-element vectors."""
    arrays = [constant_of(value) for value in node.inputs]
    if any(array is None or array.size != 1 for array in arrays):
        return None
    start, limit, delta = (float(np.asarray(array).reshape(-1)[0]) for array in arrays)
    length = (limit - start) / delta if delta else math.inf
    return (max(0, math.ceil(length)),) if math.isfinite(length) else None


def reference(model: ir.Model, node: ir.Node, arrays: list[Array | None]) -> list[Any] | None:
    """The node's results on these inputs in the ONNX reference evaluator; None where it fails."""
    proto = ir.serde.serialize_node(node)
    inputs = {name: array for name, array in zip(proto.input, arrays, strict=True) if name}
    types = [
        onnx.helper.make_tensor_value_info(
            str(value.name), int(value.const_value.dtype), value.const_value.shape.numpy()
        )
        for value in dict.fromkeys(node.inputs)
        if value is not None and value.const_value is not None
    ]
    graph = onnx.GraphProto(name="one", node=[proto], input=types)
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in proto.output if name)
    opsets = [onnx.helper.make_opsetid(domain, version) for domain, version in model.opset_imports.items()]
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            evaluator = ReferenceEvaluator(
                onnx.ModelProto(ir_version=model.ir_version, graph=graph, opset_import=opsets)
            )
            found = iter(evaluator.run(None, inputs))
    except Exception:  # noqa: BLE001 - the evaluator raises anything on what it does not know; the node then stays
        return None
    return [next(found) if name else None for name in proto.output]


def _checked(node: ir.Node, results: list[Any]) -> list[ir.TensorProtocol | None] | None:
    """The results as tensors if each is what inference expects."""
    tensors: list[ir.TensorProtocol | None] = []
    for value, result in zip(node.outputs, results, strict=True):
        if not value.name:
            tensors.append(None)
            continue
        if isinstance(result, (list, tuple, dict)) or result is None or isinstance(value.type, ir.SequenceType):
            return None
        array = np.asarray(result)
        dims = static_shape(value)
        if dims is not None and array.shape != dims:
            return None
        try:
            tensor = tensor_of(array)
        except (TypeError, ValueError):
            return None
        if value.dtype is not None and tensor.dtype != value.dtype:
            return None
        tensors.append(tensor)
    return tensors
