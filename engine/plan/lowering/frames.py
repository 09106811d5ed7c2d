"""Convolutions of one channel along one axis with a long window: the short-time Fourier transforms of audio networks.

Windows of a signal are rows of a matrix whose rows overlap in memory, so that the convolution is one product.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from voxelrt.kernels.common.kernel import Array
from voxelrt.plan.lowering.arrangement import broadcast, transposed
from voxelrt.plan.lowering.attributes import Window
from voxelrt.plan.lowering.builder import Builder, dims_of, dtype_of
from voxelrt.plan.lowering.products import PACKED, product_params
from voxelrt.plan.schedule import Operand

LONG = 64  # taps from which a product is better than a direct convolution


def is_product(dims: Sequence[int], weight: Sequence[int], groups: int, shape: Window) -> bool:
    """Whether a convolution of a value of these dims is one of signals with a long window, without padding."""
    signal = len(dims) == 3 and dims[1] == 1 and groups == 1
    return signal and weight[2] >= LONG and not any((*shape.pad_begin, *shape.pad_end))


def frames(b: Builder, node: ir.Node, weight: Array, bias: Array | None, shape: Window) -> None:
    """Lower such a convolution: (N, 1, L) by (channels, 1, K) to (N, channels, frames)."""
    x, out = node.inputs[0], node.outputs[0]
    assert x is not None
    signal, dims = b.linear(x), dims_of(out)
    count, channels = dims[2], dims[1]
    windows = signal.view((dims[0], count, weight.shape[2]), (signal.strides[0], shape.stride[2], shape.dilation[2]))
    right = np.ascontiguousarray(weight[:, 0])
    made = b.temporary((dims[0], count, channels), dtype_of(out))
    packed = dtype_of(out) in PACKED
    other = b.weight(right, "matmul", **product_params(True, True)) if packed else _spread(b, right, dims[0])
    b.step(
        "matmul",
        [windows, other, None if bias is None else broadcast(b.weight(bias), made.dims)],
        [made],
        flops=2 * made.count * weight.shape[2],
        note="windows of a signal",
        **product_params(packed, packed),
    )
    b.alias(out, transposed(made, (0, 2, 1)))


def _spread(b: Builder, right: Array, batch: int) -> Operand:
    return broadcast(transposed(b.weight(right), (1, 0)), (batch, right.shape[1], right.shape[0]))
