"""ceiling on the native library."""

from __future__ import annotations

from voxelrt.kernels.common import native
from voxelrt.kernels.common.kernel import Array


def run(x: Array, *, rounds: int = 0, factor: float = 1.0, addend: float = 0.0, streaming: bool = False) -> Array:
    out = native.aligned_empty(x.shape, x.dtype)
    if rounds:
        native.run_kernel("ceiling.fma", [x], [out], rounds=rounds, factor=factor, addend=addend)
    else:
        native.run_kernel("ceiling.copy", [x], [out], streaming=int(streaming))
    return out
