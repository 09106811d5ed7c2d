"""Fold a batch norm in inference into the Conv, ConvTranspose or Gemm before it.

With s = scale / sqrt(var + epsilon) per output channel: W' = W·s, b' = (b - mean)·s + bias; computed in float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from voxelrt.graph.edit import add_initializer, constant_of, free_name, names_of, replace_value, tensor_of

Array = NDArray[Any]
Float64 = NDArray[np.float64]
FOLDED_INTO = ("Conv", "ConvTranspose", "Gemm")


def run(model: ir.Model) -> ir.Model:
    """A layer whose plain result is needed elsewhere keeps its batch norm; so does one whose weights are not known."""
    graph = model.graph
    taken: set[str] | None = None
    for node in list(graph):
        layer = _layer_before(node)
        if layer is None:
            continue
        folded = _fold(node, layer)
        if folded is None:
            continue
        taken = names_of(graph) if taken is None else taken
        for index, (array, stem) in enumerate(zip(folded, ("weight", "bias"), strict=True), start=1):
            before = layer.inputs[index] if index < len(layer.inputs) else None
            name = free_name(
                taken, f"{before.name if before is not None else layer.name or layer.op_type + '_' + stem}_folded"
            )
            if index >= len(layer.inputs):
                layer.resize_inputs(index + 1)
            layer.replace_input_with(index, add_initializer(graph, name, tensor_of(array)))
        if layer.op_type == "Gemm" and "beta" in layer.attributes:
            layer.attributes["beta"] = ir.AttrFloat32("beta", 1.0)
        if replace_value(graph, node.outputs[0], layer.outputs[0]):
            graph.remove(node, safe=True)
    return model


def _layer_before(node: ir.Node) -> ir.Node | None:
    """The layer that only this batch norm reads."""
    if node.op_type != "BatchNormalization" or node.domain != "" or node.inputs[0] is None:
        return None
    if "training_mode" in node.attributes and node.attributes["training_mode"].as_int() != 0:
        return None
    if any(value.uses() or value.is_graph_output() for value in node.outputs[1:]):
        return None
    source = node.inputs[0]
    layer = source.producer()
    if layer is None or layer.op_type not in FOLDED_INTO or layer.domain != "":
        return None
    return None if source.is_graph_output() or len(source.uses()) != 1 else layer


def _fold(norm: ir.Node, layer: ir.Node) -> tuple[Array, Array] | None:
    weight = constant_of(layer.inputs[1])
    parts = [constant_of(value) for value in norm.inputs[1:5]]
    given = layer.inputs[2] if len(layer.inputs) > 2 else None
    bias = constant_of(given)
    if (
        weight is None
        or weight.dtype.kind != "f"
        or any(p is None for p in parts)
        or (given is not None and bias is None)
    ):
        return None
    scale, shift, mean, variance = (np.asarray(p, np.float64) for p in parts)
    epsilon = norm.attributes["epsilon"].as_float() if "epsilon" in norm.attributes else 1e-5
    with np.errstate(all="ignore"):
        factor = scale / np.sqrt(variance + epsilon)
    channels = factor.size
    scaled = _scale(layer, weight.astype(np.float64), factor)
    if scaled is None:
        return None
    old = np.zeros(channels) if bias is None else bias.astype(np.float64)
    if layer.op_type == "Gemm" and "beta" in layer.attributes:
        old = old * layer.attributes["beta"].as_float()
    if old.size not in (1, channels) or (old.ndim and old.shape[-1] != old.size):
        return None
    with np.errstate(all="ignore"):
        new_weight = scaled.astype(weight.dtype)
        new_bias = ((old.reshape(-1) - mean) * factor + shift).astype(weight.dtype)
    if not (np.isfinite(new_weight).all() and np.isfinite(new_bias).all()):
        return None  # an infinity that the network hides, or a range that the dtype does not have
    return new_weight, new_bias


def _scale(layer: ir.Node, weight: Float64, factor: Float64) -> Float64 | None:
    """The weight with its output channels multiplied by the factors."""
    if layer.op_type == "Conv":
        axis, groups = 0, 1
    elif layer.op_type == "ConvTranspose":
        axis, groups = 1, layer.attributes["group"].as_int() if "group" in layer.attributes else 1
    else:
        transposed = "transB" in layer.attributes and layer.attributes["transB"].as_int() != 0
        axis, groups = 0 if transposed else 1, 1
    if weight.ndim <= axis or weight.shape[axis] * groups != factor.size or weight.shape[0] % groups:
        return None
    if groups > 1:  # (C, M/groups, …): each group of input channels has its own output channels
        grouped = weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], *weight.shape[2:])
        by = factor.reshape(groups, 1, -1, *(1,) * (weight.ndim - 2))
        return np.asarray((grouped * by).reshape(weight.shape))
    return np.asarray(weight * factor.reshape([-1 if i == axis else 1 for i in range(weight.ndim)]))
