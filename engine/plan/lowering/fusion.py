"""What a step may take over from the node behind it: its activation."""

from __future__ import annotations

import onnx_ir as ir

from voxelrt.kernels.common.activation import KINDS
from voxelrt.plan.lowering.attributes import integer, real, text
from voxelrt.plan.lowering.builder import Activation, Builder

_SIMPLE = {"Relu": "relu", "Sigmoid": "sigmoid", "Tanh": "tanh"}


def activation_of(b: Builder, node: ir.Node) -> Activation | None:
    """The node as an epilogue, or None where it is not one."""
    del b
    if node.op_type in _SIMPLE:
        return Activation(KINDS[_SIMPLE[node.op_type]])
    if node.op_type == "LeakyRelu":
        return Activation(KINDS["leaky_relu"], real(node, "alpha", 0.01))
    if node.op_type == "Elu":
        return Activation(KINDS["elu"], real(node, "alpha", 1.0))
    return None


def fused_activation(b: Builder, value: ir.Value) -> tuple[Activation, ir.Value]:
    """The activation behind a value, absorbed, and the value it makes; the value itself where there is none."""
    node = b.next_node(value, *_SIMPLE, "LeakyRelu", "Elu")
    activation = activation_of(b, node) if node is not None else None
    if node is None or activation is None:
        return Activation(), value
    b.absorb(node)
    return activation, node.outputs[0]


def concat_is_deferrable(b: Builder, node: ir.Node) -> bool:
    """Whether a Concat is two volumes along the channels whose one consumer is a Conv that can read both."""
    if len(node.inputs) != 2 or integer(node, "axis", 0) != 1:
        return False
    consumer = b.next_node(node.outputs[0], "Conv")
    return (
        consumer is not None
        and consumer.inputs[0] is node.outputs[0]
        and integer(consumer, "group", 1) == 1
        and text(consumer, "auto_pad", "NOTSET") in ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER")
    )
