"""lstm on the native library: one product for the input's part of the gates, then the recurrent part."""

from __future__ import annotations

from typing import Any

import numpy as np

from voxelrt.errors import ShapeError
from voxelrt.kernels.common import native
from voxelrt.kernels.common.kernel import Array
from voxelrt.kernels.lstm.layer import RecurrentLayer
from voxelrt.kernels.matmul.cpu import run as matmul


def run(
    x: Array,
    w: Array,
    r: Array,
    b: Array | None = None,
    lengths: Array | None = None,
    h: Array | None = None,
    c: Array | None = None,
    p: Array | None = None,
    **options: Any,
) -> tuple[Array, ...]:
    for name, array in (("x", x), ("W", w), ("R", r), ("B", b), ("P", p), ("initial_h", h), ("initial_c", c)):
        if array is not None and array.dtype != np.float32:
            raise ShapeError(f"{name} is {array.dtype}; the cpu backend of lstm computes in float32")
    if x.ndim != 3 or r.ndim != 3:
        raise ShapeError(f"x has the shape {x.shape} and R {r.shape}; both have three axes")
    layer = RecurrentLayer(hidden=r.shape[2], **{"cell": "lstm"} | options)
    layer.check(w.shape, r.shape, None if b is None else b.shape, None if p is None else p.shape)
    if w.shape[2] != x.shape[2]:
        raise ShapeError(f"x has {x.shape[2]} features and W takes {w.shape[2]}")
    gates = matmul(x, layer.input_weight(w), layer.input_bias(b), packed=bool(x.shape[2]))
    weights = native.pack_weight("lstm", r, **layer.params())
    steps, batch, D = x.shape[0], x.shape[1], layer.directions
    y = native.aligned_empty((steps, D, batch, layer.hidden), np.float32)
    states = [
        native.aligned_empty((D, batch, layer.hidden), np.float32) for _ in range(2 if layer.cell == "lstm" else 1)
    ]
    lengths = None if lengths is None else np.ascontiguousarray(lengths, np.int32)
    given = [None if v is None else np.ascontiguousarray(v) for v in (h, c)]
    inputs = [gates, weights, layer.state_bias(b), layer.peepholes(p), lengths, *given]
    native.run_kernel("lstm", inputs, [y, *states], **layer.params())
    return (y, *states)
