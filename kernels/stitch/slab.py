"""Windows added to a slab of sums and counts on the device, where they lie: what the scheduler launches on GPUs."""

from __future__ import annotations

from voxelrt.kernels.common.gpu.program import Program, Tensor

ENTRIES = ("voxelrt_slab_add_f32",)
_BLOCK = 256


def launch(made: Program, sums: Tensor, counts: Tensor, logits: Tensor, weights: Tensor, share: float) -> None:
    """Add a launch: sums (Z, C, Y, X) += share · weights · logits and counts (Z, Y, X) += share · weights.

    Rows of sums, counts and weights have no gaps; logits (C, Z, Y, X) have any strides, mirrored ones too.
    """
    depth, _, rows, columns = sums.shape
    blocks = min(-(-(depth * rows * columns) // _BLOCK), 1 << 16)
    strides = (*sums.strides[:3], *counts.strides[:2], *logits.strides, *weights.strides[:2])
    pointers = (sums, counts, logits, weights)
    made.launch(ENTRIES[0], blocks, *pointers, *sums.shape, *strides, float(share), block=_BLOCK)
