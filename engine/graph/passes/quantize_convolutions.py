"""Put QuantizeLinear and DequantizeLinear around what convolutions read, so that they are computed in int8.

One form everywhere: symmetric, int8 with a zero of 0; one scale for the source, one for each output channel's weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from voxelrt.graph.edit import add_initializer, constant_of, free_name, names_of, static_shape, tensor_of
from voxelrt.kernels.conv3d.dot import quantize_weights

FEWEST_CHANNELS = 5  # a first layer stays exact: what rounding the input loses, no later layer brings back


def candidates(model: ir.Model) -> list[ir.Node]:
    """The convolutions that are worth it: one group, known weights of float32, more than a few input channels."""
    found = []
    for node in model.graph:
        if node.op_type != "Conv" or node.domain != "" or node.inputs[0] is None:
            continue
        weights, dims = constant_of(node.inputs[1]), static_shape(node.inputs[0])
        groups = node.attributes["group"].as_int() if "group" in node.attributes else 1
        if weights is None or dims is None or weights.dtype != np.float32 or not np.isfinite(weights).all():
            continue
        if groups == 1 and dims[1] >= FEWEST_CHANNELS and node.inputs[0].dtype == ir.DataType.FLOAT:
            found.append(node)
    return found


def run(model: ir.Model, scales: Mapping[str, float]) -> ir.Model:
    """Quantise the candidates whose source has a scale: value name -> the step of its codes."""
    graph, taken = model.graph, names_of(model.graph)
    for node in candidates(model):
        source, weight = node.inputs[:2]
        assert source is not None
        assert weight is not None
        if str(source.name) not in scales:
            continue
        array = constant_of(weight)
        assert array is not None
        codes, steps = quantize_weights(array)

        def constant(values: NDArray[Any], what: str, stem: str = str(node.name)) -> ir.Value:
            return add_initializer(graph, free_name(taken, f"{stem}_{what}"), tensor_of(values))

        step = constant(np.array(scales[str(source.name)], np.float32), "source_scale")
        zero = constant(np.zeros((), np.int8), "zero")
        stored, spread = constant(codes, "codes"), constant(steps, "scales")

        def spelled(
            op_type: str, inputs: list[ir.Value], like: ir.Value, axis: int = 1, stem: str = str(node.name)
        ) -> ir.Node:
            name = free_name(taken, f"{stem}_{op_type}")
            dtype = ir.DataType.INT8 if op_type == "QuantizeLinear" else ir.DataType.FLOAT
            out = ir.Value(name=free_name(taken, f"{name}_value"), shape=like.shape, type=ir.TensorType(dtype))
            return ir.Node("", op_type, inputs, [ir.AttrInt64("axis", axis)], outputs=[out], name=name)

        rounded = spelled("QuantizeLinear", [source, step, zero], source)
        back = spelled("DequantizeLinear", [rounded.outputs[0], step, zero], source)
        wide = spelled("DequantizeLinear", [stored, spread], weight, axis=0)
        graph.insert_before(node, [rounded, back, wide])
        node.replace_input_with(0, back.outputs[0])
        node.replace_input_with(1, wide.outputs[0])
    return model
