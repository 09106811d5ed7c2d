"""warp3d as a CUDA program: trilinear for floats, the nearest voxel for all that has up to 32 bits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from voxelrt.kernels.common.gpu.program import TYPE_NAMES, Program
from voxelrt.kernels.common.kernel import Array
from voxelrt.kernels.warp3d.codes import PADDINGS
from voxelrt.kernels.warp3d.cpu import full_matrix
from voxelrt.kernels.warp3d.device_arguments import FLOATS, check, full_affine, nan_bits, spatial, two_floats

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
    axes = volume.ndim - 2
    given = tuple(displacement.shape[2:]) if displacement is not None else tuple(shape or volume.shape[2:])
    batch, channels = volume.shape[:2]
    made = Program(__file__)
    bits = np.dtype(f"u{volume.dtype.itemsize}")
    words = volume if mode == "linear" else volume.view(bits)
    answer = made.output((batch, channels, *given), words.dtype)
    made.finish(lambda found: found.view(volume.dtype))
    if answer.size == 0:
        return made
    source, rows = made.input(words), made.input(full_affine(affine, axes))
    scale = made.input(two_floats(full_matrix(matrix, axes)))
    field = source if displacement is None else made.input(displacement)
    depth, lines, columns = spatial(given, 1)
    numbers = [channels, depth, lines, columns, *spatial(source.shape[2:], 1)]
    numbers += [*source.strides[:2], *spatial(source.strides[2:], 0)]
    numbers += [field.strides[0] if field.shape[0] > 1 else 0, field.strides[1], *spatial(field.strides[2:], 0)]
    numbers += [rows.strides[0] if rows.shape[0] > 1 else 0]
    kind = 0 if displacement is None else FLOATS.index(displacement.dtype)
    flags = [displacement is not None, kind, 3 - axes, matrix is not None, PADDINGS.index(padding)]
    blocks = -(-columns // 32) * -(-(depth * lines) // _ROWS)
    name = f"linear_{_SUFFIXES[TYPE_NAMES[volume.dtype]]}" if mode == "linear" else f"nearest_b{8 * bits.itemsize}"
    last = () if mode == "linear" else (bits.type(nan_bits(volume.dtype)),)
    arguments = (answer, source, field, rows, scale, *numbers, *map(np.int32, flags), *last)
    made.launch(f"voxelrt_warp3d_{name}", (blocks, batch), *arguments, block=(32, _ROWS))
    return made
