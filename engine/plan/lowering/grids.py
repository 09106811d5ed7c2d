"""MDLSTM of our own domain: a product for the input's part of all gates of all cells, then the recurrent part."""

from __future__ import annotations

import math

import onnx_ir as ir

from voxelrt.errors import ShapeError
from voxelrt.kernels.common import capi
from voxelrt.kernels.mdlstm.layer import GridLayer
from voxelrt.plan.lowering.arrangement import broadcast, transposed
from voxelrt.plan.lowering.builder import Builder, Unsupported, dims_of, dtype_of, lowers
from voxelrt.plan.lowering.products import product_params

FLOAT32 = capi.DTYPES["float32"]


@lowers("MDLSTM")
def mdlstm(b: Builder, node: ir.Node) -> None:
    """Inputs: x (grid, N, inputs) and W, R, B (may be left out), which are known at compile time."""
    x, w, r, bias = (node.inputs[i] if i < len(node.inputs) else None for i in range(4))
    if x is None or dtype_of(x) != FLOAT32:
        raise Unsupported("recurrent layers are float32")
    weight, states = b.need_constant(w, "the weight W"), b.need_constant(r, "the weight R")
    added = None if bias is None else b.need_constant(bias, "the bias")
    dims = dims_of(x)
    try:
        layer = GridLayer.of(dims, weight.shape, states.shape, None if added is None else added.shape)
    except ShapeError as error:
        raise Unsupported(str(error)) from error
    if not dims[-1]:
        raise Unsupported("no features")
    gates = b.temporary((*dims[:-1], layer.columns), FLOAT32)
    vector = layer.input_bias(added)
    packed = b.weight(layer.input_weight(weight), "matmul", **product_params(True))
    b.step(
        "matmul",
        [b.linear(x), packed, None if vector is None else broadcast(b.weight(vector), gates.dims)],
        [gates],
        flops=2 * gates.count * dims[-1],
        note="the input's part of the gates",
        **product_params(True),
    )
    out = node.outputs[0]
    if b.is_output(out):
        target = b.result(out)
    else:  # the directions of a cell side by side, which is what comes behind a layer
        grid = range(layer.axes)
        memory = b.temporary((*dims[:-1], layer.directions, layer.hidden), FLOAT32)
        target = transposed(memory, (*grid, layer.axes + 1, layer.axes, layer.axes + 2))
        b.alias(out, target)
    flops = 2 * math.prod(dims[:-1]) * layer.columns * layer.axes * layer.hidden
    b.step("mdlstm", [gates, b.weight(states, "mdlstm", **layer.params())], [target], flops=flops, **layer.params())
