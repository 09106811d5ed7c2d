"""What both GPU backends of resample_argmax do alike: planes, taps and labels on the device."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from voxelrt.errors import UnsupportedError
from voxelrt.kernels.common.gpu.program import Program, Tensor
from voxelrt.kernels.common.kernel import Array
from voxelrt.kernels.resample_argmax.taps import Taps


@dataclass(frozen=True)
class Tables:
    """Where rows and columns are read, and the classes' labels, on the device."""

    rows_at: Tensor
    row_weights: Tensor
    columns_at: Tensor
    column_weights: Tensor
    values: Tensor


@dataclass(frozen=True)
class Problem:
    """A call with its operands on the device; a plane is sums (C, Y, X) and counts (Y, X), rows without gaps."""

    program: Program
    out: Tensor
    lower: tuple[Tensor, Tensor]
    upper: tuple[Tensor, Tensor]
    tables: Tables


def problem(
    source: str,
    backend: str,
    planes: tuple[tuple[Array, Array], tuple[Array, Array]],
    rows: Taps,
    columns: Taps,
    values: Array,
    dtype: type,
    head: Array | None,
    out: Array | None,
) -> Problem:
    """Put a call's operands on the device.

    Raises
    ------
    UnsupportedError : a head, or an array to write to, which the GPU backends do not take.
    """
    if head is not None:
        raise UnsupportedError(f"resample_argmax on {backend} takes logits: leave head away")
    if out is not None:
        raise UnsupportedError(f"resample_argmax on {backend} does not write to a given array: leave out away")
    made = Program(source)
    tables = Tables(
        made.input(rows.at, np.int32),
        made.input(rows.weights),
        made.input(columns.at, np.int32),
        made.input(columns.weights),
        made.input(values, np.int32),
    )
    lower, upper = ((made.input(np.ascontiguousarray(s)), made.input(np.ascontiguousarray(c))) for s, c in planes)
    answer = made.output((len(rows.weights), len(columns.weights)), dtype)
    return Problem(made, answer, lower, upper, tables)
