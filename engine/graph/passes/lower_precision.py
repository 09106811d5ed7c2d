"""Write a lower type into a float32 graph, for executors that compute in what a tensor's type says (strong typing).

Inputs and outputs of the graph stay float32. Norms, softmax and sums over many elements stay float32 too, with casts
around them: their sums pass float16's largest value (65504) on ordinary activations, which makes whole answers NaN.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from voxelrt.errors import UnsupportedError
from voxelrt.graph.edit import add_initializer, constant_of, free_name, names_of
from voxelrt.graph.passes import infer_shapes, norms_apart

LOW = {"fp16": ir.DataType.FLOAT16, "bf16": ir.DataType.BFLOAT16}
LARGEST = {"fp16": 65504.0, "bf16": 3.389e38}
KEPT = frozenset(
    {
        "InstanceNormalization",
        "GroupNormalization",
        "LayerNormalization",
        "BatchNormalization",
        "LpNormalization",
        "MeanVarianceNormalization",
        "Softmax",
        "LogSoftmax",
        "ReduceMean",
        "ReduceSum",
        "ReduceSumSquare",
        "ReduceL1",
        "ReduceL2",
        "ReduceLogSumExp",
        "ReduceProd",
        "CumSum",
        "Exp",
        "Pow",
        "GridSample",
        "Range",
        "QuantizeLinear",
        "DequantizeLinear",
    }
)
# TensorRT-RTX has no transposed convolution in bfloat16.
KEPT_IN = {"fp16": KEPT, "bf16": KEPT | {"ConvTranspose"}}
# Inputs that ONNX, or a kernel of ours, wants in float32 whatever the data are.
FLOAT_INPUTS = {"Resize": (1, 2), "Upsample": (1,), norms_apart.OPERATOR: (1, 2)}


def run(model: ir.Model, precision: str) -> ir.Model:
    """The model in float16 or bfloat16; changed in place.

    Parameters
    ----------
    model : shapes known; float32.
    precision : ``fp16`` or ``bf16``.

    Raises
    ------
    UnsupportedError : weights that the type cannot hold, all of them named.
    """
    low = LOW[precision]
    graph = model.graph
    _refuse_large(graph, precision)
    kept = {node for node in graph if node.op_type in KEPT_IN[precision] or _is_ours(node)}
    changed = _values_to_lower(graph, kept)
    lowered = _Casts(graph, low)
    for node in list(graph):
        for index, value in enumerate(node.inputs):
            if value is None or not _is_float(value):
                continue
            stays = node in kept or index in FLOAT_INPUTS.get(node.op_type, ())
            if stays and value in changed:
                node.replace_input_with(index, lowered.to_float(value))
            elif not stays and value not in changed:
                node.replace_input_with(index, lowered.to_low(value))
        if node not in kept:
            _lower_attributes(node, low)
    for value in changed:
        value.dtype = low
    _cast_outputs(graph, changed)
    return infer_shapes.run(model)


def _is_ours(node: ir.Node) -> bool:
    """An operator of ours that takes float32 alone; the norm takes what it gets, and sums in float32."""
    return node.domain != "" and node.op_type != norms_apart.OPERATOR


def _is_float(value: ir.Value) -> bool:
    return value.dtype == ir.DataType.FLOAT


def _values_to_lower(graph: ir.Graph, kept: set[ir.Node]) -> set[ir.Value]:
    """The float values that nodes in the lower type make."""
    return {value for node in graph if node not in kept for value in node.outputs if _is_float(value)}


def _refuse_large(graph: ir.Graph, precision: str) -> None:
    """float16 weights past its largest value would become infinities."""
    found = []
    for name, value in graph.initializers.items():
        array = constant_of(value) if _is_float(value) else None
        largest = 0.0 if array is None else float(np.abs(array[np.isfinite(array)]).max(initial=0))
        if largest > LARGEST[precision]:
            found.append(f"{name}: largest value {largest:.4g}")
    if found:
        raise UnsupportedError(f"{len(found)} weights are past what {precision} holds:", found)


class _Casts:
    """Casts of values and copies of constants in the other type, each made once."""

    def __init__(self, graph: ir.Graph, low: ir.DataType) -> None:
        self._graph, self._low, self._names = graph, low, names_of(graph)
        self._made: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}

    def to_low(self, value: ir.Value) -> ir.Value:
        array = constant_of(value)
        key = (value, self._low)
        if array is not None and key not in self._made:
            name = free_name(self._names, f"{value.name}_low")
            tensor = ir.Tensor(_rounded(array, self._low), dtype=self._low)
            self._made[key] = add_initializer(self._graph, name, tensor)
        return self._cast(value, self._low)

    def to_float(self, value: ir.Value) -> ir.Value:
        return self._cast(value, ir.DataType.FLOAT)

    def _cast(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        key = (value, dtype)
        if key not in self._made:
            made = _cast_node(value, dtype, free_name(self._names, f"{value.name}_{dtype.name.lower()}"))
            producer = value.producer()
            if producer is None:
                first = next(iter(self._graph))
                self._graph.insert_before(first, made)
            else:
                self._graph.insert_after(producer, made)
            self._made[key] = made.outputs[0]
        return self._made[key]


def _cast_node(value: ir.Value, dtype: ir.DataType, name: str) -> ir.Node:
    out = ir.Value(name=name, type=ir.TensorType(dtype), shape=value.shape)
    return ir.Node("", "Cast", [value], [ir.AttrInt64("to", int(dtype))], outputs=[out], name=f"{name}_cast")


def _rounded(array: NDArray[Any], low: ir.DataType) -> NDArray[Any]:
    return array.astype(low.numpy())


def _lower_attributes(node: ir.Node, low: ir.DataType) -> None:
    """Types that a node's attributes name."""
    if node.op_type in ("Cast", "RandomNormal", "RandomUniform", "EyeLike"):
        name = "to" if node.op_type == "Cast" else "dtype"
        if name in node.attributes and node.attributes[name].as_int() == int(ir.DataType.FLOAT):
            node.attributes[name] = ir.AttrInt64(name, int(low))
    attribute = node.attributes.get("value")
    if attribute is not None and attribute.type == ir.AttributeType.TENSOR:
        tensor = attribute.as_tensor()
        if tensor.dtype == ir.DataType.FLOAT:
            node.attributes["value"] = ir.AttrTensor("value", ir.Tensor(_rounded(tensor.numpy(), low), dtype=low))


def _cast_outputs(graph: ir.Graph, changed: set[ir.Value]) -> None:
    """Outputs keep their names and float32; what made them gets another name."""
    names = names_of(graph)
    for index, value in enumerate(list(graph.outputs)):
        if value not in changed:
            continue
        name = str(value.name)
        value.name = free_name(names, f"{name}_low")
        made = _cast_node(value, ir.DataType.FLOAT, name)
        graph.append(made)
        graph.outputs[index] = made.outputs[0]
