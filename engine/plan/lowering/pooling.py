"""Pools."""

from __future__ import annotations

import onnx_ir as ir

from voxelrt.plan.lowering.attributes import integers, window
from voxelrt.plan.lowering.builder import Builder, Unsupported, dims_of, lowers
from voxelrt.plan.schedule import BLOCKED16


@lowers("MaxPool")
def max_pool(b: Builder, node: ir.Node) -> None:
    """MaxPool on blocked volumes."""
    x = node.inputs[0]
    assert x is not None
    if len(node.outputs) > 1:
        raise Unsupported("indices are not made")
    w = window(node, dims_of(x)[2:], integers(node, "kernel_shape") or ())
    b.step(
        "pool3d.max",
        [b.blocked(x)],
        [b.result(node.outputs[0], BLOCKED16)],
        kernel=w.kernel,
        stride=w.stride,
        dilation=w.dilation,
        pad_begin=w.pad_begin,
        pad_end=w.pad_end,
        column_major=0,
    )
