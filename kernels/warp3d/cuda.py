"""warp3d as a CUDA program: trilinear for floats, the nearest voxel for all that has up to 32 bits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from voxelrt.kernels.common.gpu.program import TYPE_NAMES, Program
from voxelrt.kernels.common.kernel import Array
from voxelrt.kernels.warp3d.codes import PADDINGS
from voxelrt.kernels.warp3d.device_arguments import FLOATS, check, nan_bits, operands

_SUFFIXES = {"fp32": "f32", "fp16": "f16", "bf16": "bf16"}
ENTRIES = (
    *(f"voxelrt_warp3d_linear_{suffix}" for suffix in _SUFFIXES.values()),
    *(f"voxelrt_warp3d_nearest_b{bits}" for bits in (8, 16, 32)),
)
_ROWS = 8


def program(
    volume: Array,
    displacement: Array | None = None,
    *,
    affine: Array | None = None,
    matrix: Array | None = None,
    shape: Sequence[int] | None = None,
    mode: str = "linear",
    padding: str = "zeros",
    out: Array | None = None,
) -> Program:
    check(volume, displacement, mode, padding, out, "cuda")
    made = Program(__file__)
    on = operands(made, volume, displacement, affine, matrix, shape, mode)
    if on.answer.size == 0:
        return made
    depth, lines, columns = on.size
    kind = 0 if displacement is None else FLOATS.index(displacement.dtype)
    flags = [displacement is not None, kind, 5 - volume.ndim, matrix is not None, PADDINGS.index(padding)]
    blocks = -(-columns // 32) * -(-(depth * lines) // _ROWS)
    bits = on.answer.dtype
    name = f"linear_{_SUFFIXES[TYPE_NAMES[volume.dtype]]}" if mode == "linear" else f"nearest_b{8 * bits.itemsize}"
    last = () if mode == "linear" else (bits.type(nan_bits(volume.dtype)),)
    arguments = (*on.tensors, *on.numbers, *map(np.int32, flags), *last)
    made.launch(f"voxelrt_warp3d_{name}", (blocks, on.batch), *arguments, block=(32, _ROWS))
    return made
