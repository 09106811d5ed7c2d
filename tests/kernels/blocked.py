"""Blocked operands for tests: BLOCKED16 arrays in and out, and that channels past the last hold zeros."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxelrt.kernels.common import native
from voxelrt.kernels.common.native import BLOCKED16, Operand

Floats = NDArray[np.float32]


def blocked(array: Floats, pending: tuple[Floats, Floats, float] | None = None) -> Operand:
    """(N, C, Z, Y, X) as a blocked operand."""
    return Operand(native.to_blocked(array), BLOCKED16, array.shape[1], pending)


def output(shape: tuple[int, ...]) -> Operand:
    """An uninitialised blocked operand for (N, C, Z, Y, X)."""
    n, c, *space = shape
    return Operand(native.aligned_empty((n, -(-c // 16), *space, 16), np.float32), BLOCKED16, c)


def answer(out: Operand) -> NDArray[Any]:
    """A blocked output as (N, C, Z, Y, X), after a look at its spare channels."""
    spare = out.array.shape[1] * 16 - out.channels
    assert not spare or not out.array[:, -1, ..., 16 - spare :].any(), "channels past the last hold zeros"
    return native.from_blocked(out.array, out.channels)
