"""Functions of every element."""

from __future__ import annotations

import onnx_ir as ir

from voxelrt.kernels.elementwise.codes import UNARY
from voxelrt.plan.lowering.builder import Builder, lowers


@lowers("Relu", "Sigmoid")
def unary(b: Builder, node: ir.Node) -> None:
    """A function of one value, in the layout the value has."""
    x = node.inputs[0]
    assert x is not None
    source = b.value(x) if b.is_blocked(x) else b.linear(x)
    target = b.result(node.outputs[0], source.layout)
    b.step("elementwise.unary", [source], [target], op=UNARY.index(node.op_type), alpha=0.0, beta=0.0)
