"""stitch as a CUDA program."""

from __future__ import annotations

from voxelrt.kernels.common.gpu.program import Program
from voxelrt.kernels.common.kernel import Array

ENTRIES = ("voxelrt_stitch_f32",)
_BLOCK = 256


def program(sums: Array, logits: Array, weights: Array, *, share: float = 1.0, half: bool = False) -> Program:
    made = Program(__file__)
    z, c, y, x = sums.shape
    old, new, share_of = made.input(sums), made.input(logits), made.input(weights)
    out = made.output(sums.shape)
    blocks = min(-(-out.size // _BLOCK), 1 << 16)
    made.launch(
        "voxelrt_stitch_f32",
        blocks,
        *(out, old, new, share_of),
        *(z, c, y, x),
        *old.strides,
        *new.strides,
        *share_of.strides,
        float(share),
        half,
        block=_BLOCK,
    )
    return made
