"""elementwise on the native library."""

from __future__ import annotations

from typing import Any

import numpy as np

from voxelrt.errors import UsageError
from voxelrt.kernels.common import native
from voxelrt.kernels.common.kernel import Array
from voxelrt.kernels.elementwise.codes import ASKING, BINARY, UNARY


def run(
    op: str,
    *arrays: Array,
    alpha: float = 0.0,
    beta: float = 0.0,
    post: str = "Identity",
    to: Any = None,
) -> Array:
    shape = np.broadcast_shapes(*(a.shape for a in arrays))
    dtype = np.dtype(to) if op == "Cast" else np.dtype(bool) if op in ASKING else arrays[op == "Where"].dtype
    out = native.aligned_empty(shape, dtype)
    if op == "Cast":
        native.run_kernel("elementwise.cast", arrays, [out], reserved=0)
    elif op == "Where":
        native.run_kernel("elementwise.where", arrays, [out], reserved=0)
    elif op in UNARY:
        native.run_kernel("elementwise.unary", arrays, [out], op=UNARY.index(op), alpha=alpha, beta=beta)
    elif op in BINARY:
        code = BINARY.index(op)
        native.run_kernel("elementwise.binary", arrays, [out], op=code, post=UNARY.index(post), alpha=alpha, beta=beta)
    else:
        raise UsageError(f"elementwise has no function {op!r}; it has {', '.join(('Cast', 'Where', *UNARY, *BINARY))}")
    return out
