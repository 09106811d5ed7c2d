"""What a step may take over from the node behind it: its activation."""

from __future__ import annotations

import onnx_ir as ir

from voxelrt.kernels.common.activation import ACTIVATIONS
from voxelrt.plan.lowering.attributes import integer, real, text
from voxelrt.plan.lowering.builder import Activation, Builder

_SIMPLE = {
    "Relu": "relu",
    "Sigmoid": "sigmoid",
    "Tanh": "tanh",
    "HardSwish": "hard_swish",
    "Mish": "mish",
}
_WITH_ALPHA = {"LeakyRelu": ("leaky_relu", 0.01), "Elu": ("elu", 1.0)}
_FUSED = (*_SIMPLE, *_WITH_ALPHA, "HardSigmoid", "Gelu")


def activation_of(node: ir.Node) -> Activation | None:
    """The node as an epilogue, or None where it is not one."""
    if node.op_type in _SIMPLE:
        return Activation(ACTIVATIONS[_SIMPLE[node.op_type]])
    if node.op_type in _WITH_ALPHA:
        name, default = _WITH_ALPHA[node.op_type]
        return Activation(ACTIVATIONS[name], real(node, "alpha", default))
    if node.op_type == "HardSigmoid":
        return Activation(ACTIVATIONS["hard_sigmoid"], real(node, "alpha", 0.2), real(node, "beta", 0.5))
    if node.op_type == "Gelu":
        tanh = text(node, "approximate", "none") == "tanh"
        return Activation(ACTIVATIONS["gelu_tanh" if tanh else "gelu"])
    return None


def fused_activation(b: Builder, value: ir.Value) -> tuple[Activation, ir.Value]:
    """The activation behind a value, absorbed, and the value it makes; the value itself where there is none."""
    gated = _gated(b, value)
    if gated is not None:
        for part in gated:
            b.absorb(part)
        return Activation(ACTIVATIONS["silu"]), gated[1].outputs[0]
    node = b.next_node(value, *_FUSED)
    activation = activation_of(node) if node is not None else None
    if node is None or activation is None:
        return Activation(), value
    b.absorb(node)
    return activation, node.outputs[0]


def _gated(b: Builder, value: ir.Value) -> tuple[ir.Node, ir.Node] | None:
    """The Sigmoid and the Mul of ``value · sigmoid(value)``, SiLU as exporters spell it, if nothing else reads them."""
    uses = list(value.uses())
    if len(uses) != 2 or b.is_output(value):
        return None
    gates = [use.node for use in uses if use.node.op_type == "Sigmoid"]
    if len(gates) != 1 or not b.may_absorb(gates[0]):
        return None
    gate = gates[0].outputs[0]
    product = b.next_node(gate, "Mul")
    if product is None or not any(use.node is product for use in uses):
        return None
    return gates[0], product


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
