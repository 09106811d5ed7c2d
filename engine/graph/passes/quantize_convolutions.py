"""Put QuantizeLinear and DequantizeLinear around what convolutions read, so that they are computed in int8 or fp8.

One form everywhere: symmetric, with a zero of 0; one scale for the source, one for each output channel's weights. Codes
are int8 or, for GPUs that have it, float8 e4m3, whose largest is 448.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from voxelrt.errors import UsageError
from voxelrt.graph.edit import add_initializer, constant_of, free_name, names_of, static_shape, tensor_of
from voxelrt.graph.spec import opset_of
from voxelrt.kernels.conv3d.dot import quantize_weights

INT8, FP8 = "int8", "fp8"
LARGEST = {INT8: 127.0, FP8: 448.0}
_KINDS = {
    INT8: (np.dtype(np.int8), ir.DataType.INT8),
    FP8: (np.dtype(ml_dtypes.float8_e4m3fn), ir.DataType.FLOAT8E4M3FN),
}
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


def _weights(array: NDArray[np.float32], form: str) -> tuple[NDArray[Any], NDArray[np.float32]]:
    """Codes of weights, and the step of each output channel's."""
    if form == INT8:
        return quantize_weights(array)
    most = np.abs(array).reshape(len(array), -1).max(axis=1)
    steps = np.where(most > 0, most / LARGEST[FP8], 1).astype(np.float32)
    return (array / steps.reshape(-1, *[1] * (array.ndim - 1))).astype(ml_dtypes.float8_e4m3fn), steps


def _know_float8(model: ir.Model) -> None:
    """Raise the operator set to 19, which knows float8 and changes nothing else of 18.

    Raises
    ------
    UsageError : the network's is older still.
    """
    if opset_of(model) < 18:
        raise UsageError(f"fp8 needs a network of operator set 18 or newer; this one's is {opset_of(model)}")
    if opset_of(model) == 18:
        model.opset_imports[""] = 19


def run(model: ir.Model, scales: Mapping[str, float], form: str = INT8) -> ir.Model:
    """Quantise the candidates whose source has a scale.

    Parameters
    ----------
    scales : value name -> the step of its codes, if these are int8.
    form : ``int8`` or ``fp8``.

    Raises
    ------
    UsageError : fp8, and the network's operator set is older than 18.
    """
    kind, named = _KINDS[form]
    if form == FP8:
        _know_float8(model)
    graph, taken = model.graph, names_of(model.graph)
    for node in candidates(model):
        source, weight = node.inputs[:2]
        assert source is not None
        assert weight is not None
        if str(source.name) not in scales:
            continue
        array = constant_of(weight)
        assert array is not None
        codes, steps = _weights(array, form)

        def constant(values: NDArray[Any], what: str, stem: str = str(node.name)) -> ir.Value:
            return add_initializer(graph, free_name(taken, f"{stem}_{what}"), tensor_of(values))

        step = constant(np.array(scales[str(source.name)] * LARGEST[INT8] / LARGEST[form], np.float32), "source_scale")
        zero = constant(np.zeros((), kind), "zero")
        stored, spread = constant(codes, "codes"), constant(steps, "scales")

        def spelled(
            op_type: str, inputs: list[ir.Value], like: ir.Value, axis: int = 1, stem: str = str(node.name)
        ) -> ir.Node:
            name = free_name(taken, f"{stem}_{op_type}")
            dtype = named if op_type == "QuantizeLinear" else ir.DataType.FLOAT
            out = ir.Value(name=free_name(taken, f"{name}_value"), shape=like.shape, type=ir.TensorType(dtype))
            return ir.Node("", op_type, inputs, [ir.AttrInt64("axis", axis)], outputs=[out], name=name)

        rounded = spelled("QuantizeLinear", [source, step, zero], source)
        back = spelled("DequantizeLinear", [rounded.outputs[0], step, zero], source)
        wide = spelled("DequantizeLinear", [stored, spread], weight, axis=0)
        graph.insert_before(node, [rounded, back, wide])
        node.replace_input_with(0, back.outputs[0])
        node.replace_input_with(1, wide.outputs[0])
    return model
