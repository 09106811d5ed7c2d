"""Pools: in the layout the value has; a pending norm is applied on load."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from voxelrt.plan.lowering.attributes import integer, integers, window
from voxelrt.plan.lowering.builder import Builder, Unsupported, dims_of, lowers
from voxelrt.plan.schedule import BLOCKED16, LINEAR

GLOBAL_MODES = {"GlobalMaxPool": 0, "GlobalAveragePool": 1, "GlobalLpPool": 2}


def _window(node: ir.Node, x: ir.Value) -> dict[str, Any]:
    kernel = integers(node, "kernel_shape")
    if kernel is None or len(dims_of(x)) < 3:
        raise Unsupported("a pool needs a kernel_shape and a value with spatial axes")
    w = window(node, dims_of(x)[2:], kernel)
    return {
        "kernel": w.kernel,
        "stride": w.stride,
        "dilation": w.dilation,
        "pad_begin": w.pad_begin,
        "pad_end": w.pad_end,
    }


def _pool(b: Builder, node: ir.Node, kernel: str, *, linear: bool = False, **option: Any) -> None:
    x = node.inputs[0]
    assert x is not None
    blocked = b.is_blocked(x) and not linear
    source = b.value(x) if blocked else b.volume(b.linear(x))
    params = _window(node, x)
    indices = node.outputs[1] if len(node.outputs) > 1 and node.outputs[1].name else None
    targets = [b.volume(b.result(node.outputs[0], BLOCKED16 if blocked else LINEAR))]
    if indices is not None:
        targets.append(b.volume(b.result(indices)))
    taps = params["kernel"][0] * params["kernel"][1] * params["kernel"][2]
    b.step(kernel, [source], targets, flops=taps * targets[0].count, **params, **option)


@lowers("MaxPool")
def max_pool(b: Builder, node: ir.Node) -> None:
    """MaxPool; with indices on a linear value."""
    indices = len(node.outputs) > 1 and bool(node.outputs[1].name)
    _pool(b, node, "pool3d.max", linear=indices, column_major=integer(node, "storage_order", 0))


@lowers("AveragePool")
def average_pool(b: Builder, node: ir.Node) -> None:
    """AveragePool."""
    _pool(b, node, "pool3d.average", count_include_pad=integer(node, "count_include_pad", 0))


@lowers("LpPool")
def lp_pool(b: Builder, node: ir.Node) -> None:
    """LpPool on a linear value."""
    _pool(b, node, "pool3d.lp", linear=True, p=integer(node, "p", 2))


@lowers(*GLOBAL_MODES)
def global_pool(b: Builder, node: ir.Node) -> None:
    """One voxel a channel, in double on the way; the result is linear."""
    x = node.inputs[0]
    assert x is not None
    source = b.value(x) if b.is_blocked(x) else b.volume(b.linear(x))
    target = b.volume(b.result(node.outputs[0]))
    mode, p = GLOBAL_MODES[node.op_type], integer(node, "p", 2)
    b.step("pool3d.global", [source], [target], flops=source.count, mode=mode, p=p)
