"""mdlstm on the native library: one product for the input's part of the gates, then the recurrent part by fronts."""

from __future__ import annotations

import numpy as np

from voxelrt.errors import ShapeError
from voxelrt.kernels.common import native
from voxelrt.kernels.common.kernel import Array
from voxelrt.kernels.matmul.cpu import run as matmul
from voxelrt.kernels.mdlstm.layer import GridLayer


def run(x: Array, w: Array, r: Array, b: Array | None = None) -> Array:
    layer = GridLayer.of(x.shape, w.shape, r.shape, None if b is None else b.shape)
    for name, array in (("x", x), ("W", w), ("R", r), ("B", b)):
        if array is not None and array.dtype != np.float32:
            raise ShapeError(f"{name} is {array.dtype}; the cpu backend of mdlstm computes in float32")
    weight, bias = layer.input_weight(w), layer.input_bias(b)
    sums = matmul(np.ascontiguousarray(x), weight, bias, packed=bool(x.shape[-1]))
    y = native.aligned_empty((*x.shape[:-2], layer.directions, x.shape[-2], layer.hidden), np.float32)
    packed = native.pack_weight("mdlstm", r, **layer.params())
    native.run_kernel("mdlstm", [sums, packed], [y], **layer.params())
    return y
