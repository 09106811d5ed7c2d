"""resample_argmax as a CUDA program."""

from __future__ import annotations

import numpy as np

from voxelrt.kernels.common.gpu.program import Program, Tensor
from voxelrt.kernels.common.kernel import Array
from voxelrt.kernels.resample_argmax.device_arguments import Tables, problem
from voxelrt.kernels.resample_argmax.taps import Taps

__all__ = ["ENTRIES", "Tables", "launch", "program"]

ENTRIES = ("voxelrt_resample_argmax_u8", "voxelrt_resample_argmax_u16")
_BLOCK = 256


def program(
    lower: tuple[Array, Array],
    upper: tuple[Array, Array],
    weight: float,
    rows: Taps,
    columns: Taps,
    values: Array,
    *,
    regions: bool = False,
    half: bool = False,
    dtype: type = np.uint8,
    head: Array | None = None,
    out: Array | None = None,
) -> Program:
    on = problem(__file__, "cuda", (lower, upper), rows, columns, values, dtype, head, out)
    launch(on.program, on.out, on.lower, on.upper, weight, on.tables, regions=regions, half=half)
    return on.program


def launch(
    made: Program,
    out: Tensor,
    lower: tuple[Tensor, Tensor],
    upper: tuple[Tensor, Tensor],
    weight: float,
    tables: Tables,
    *,
    regions: bool,
    half: bool = False,
) -> None:
    """Add a launch: labels out (Y, X) from two planes, each sums (C, Y, X) and counts (Y, X), rows without gaps."""
    blocks = min(-(-out.size // _BLOCK), 1 << 16)
    pointers = (out, lower[0], upper[0], lower[1], upper[1], tables.rows_at, tables.row_weights, tables.columns_at)
    strides = (*lower[0].strides[:2], *upper[0].strides[:2], lower[1].strides[0], upper[1].strides[0])
    made.launch(
        f"voxelrt_resample_argmax_u{8 * np.dtype(out.dtype).itemsize}",
        blocks,
        *(*pointers, tables.column_weights, tables.values),
        *(tables.values.size, *out.shape, *strides),
        *(float(weight), np.int32(regions), np.int32(half)),
        block=_BLOCK,
    )
