"""Remove nodes that hand their input on: Identity, Dropout in inference, and others at their neutral settings."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from voxelrt.graph.edit import become_constant, constant_of, replace_value, static_shape, tensor_of


def run(model: ir.Model) -> ir.Model:
    """A node between an input and an output of the model becomes an Identity, since both names are known outside."""
    graph = model.graph
    for node in list(graph):
        test = TESTS.get(node.op_type)
        if node.domain != "" or test is None or not node.inputs or node.inputs[0] is None:
            continue
        if not test(node) or not _fill_mask(graph, node):
            continue
        if replace_value(graph, node.outputs[0], node.inputs[0]):
            graph.remove(node, safe=True)
        else:
            node.op_type = "Identity"
            node.attributes.clear()
            node.resize_inputs(1)
            node.resize_outputs(1)
    return model


def _fill_mask(graph: ir.Graph, node: ir.Node) -> bool:
    """Replace a Dropout's mask, where it is wanted, by the constant that it is. False where other outputs are used."""
    others = [value for value in node.outputs[1:] if value.uses() or value.is_graph_output()]
    if not others:
        return True
    dims = static_shape(node.inputs[0])
    if node.op_type != "Dropout" or dims is None:
        return False
    become_constant(graph, others[0], tensor_of(np.ones(dims, np.bool_)))
    return True


def _same_shape(node: ir.Node) -> bool:
    source, result = static_shape(node.inputs[0]), static_shape(node.outputs[0])
    return source is not None and source == result


def _same_dtype(node: ir.Node) -> bool:
    source, result = node.inputs[0], node.outputs[0]
    return source is not None and source.dtype is not None and source.dtype == result.dtype


def _always(node: ir.Node) -> bool:
    del node
    return True


def _single(node: ir.Node) -> bool:
    return len(node.inputs) == 1 and len(node.outputs) == 1


def _dropout(node: ir.Node) -> bool:
    if len(node.inputs) < 3 or node.inputs[2] is None:
        return True
    training = constant_of(node.inputs[2])
    return training is not None and not training.any()


def _transpose(node: ir.Node) -> bool:
    if "perm" not in node.attributes:
        source = node.inputs[0]
        return source is not None and source.shape is not None and len(source.shape) < 2
    perm = node.attributes["perm"].as_ints()
    return list(perm) == list(range(len(perm)))


def _pad(node: ir.Node) -> bool:
    """No element is added; a negative pad that another makes up for would still shift."""
    pads = constant_of(node.inputs[1]) if len(node.inputs) > 1 else None
    return pads is not None and not pads.any()


def _slice(node: ir.Node) -> bool:
    """The whole of every axis, forwards: equal shapes say so unless a step is negative."""
    if not _same_shape(node):
        return False
    if len(node.inputs) < 5 or node.inputs[4] is None:
        return True
    steps = constant_of(node.inputs[4])
    return steps is not None and bool((steps > 0).all())


TESTS: dict[str, Callable[[ir.Node], bool]] = {
    "Identity": _always,
    "Dropout": _dropout,
    "Cast": _same_dtype,
    "CastLike": _same_dtype,
    "Transpose": _transpose,
    "Reshape": _same_shape,
    "Flatten": _same_shape,
    "Squeeze": _same_shape,
    "Unsqueeze": _same_shape,
    "Expand": _same_shape,
    "Tile": _same_shape,
    "Slice": _slice,
    "Pad": _pad,
    "Concat": _single,
    "Split": _single,
    "Sum": _single,
    "Mean": _single,
    "Max": _single,
    "Min": _single,
}
