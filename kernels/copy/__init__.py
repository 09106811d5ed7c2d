"""copy: a tensor into another stride order. In plans also between layouts, and where a pending norm materialises."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from voxelrt.kernels.common.kernel import Array, Case, Kernel
from voxelrt.kernels.copy.oracle import copy as oracle


def _case(shape: tuple[int, ...], order: tuple[int, ...], dtype: str) -> Case:
    def make(rng: np.random.Generator) -> tuple[Sequence[Any], Mapping[str, Any]]:
        return (rng.integers(0, 100, shape).astype(dtype),), {"order": order}

    moved = 2.0 * float(np.prod(shape)) * np.dtype(dtype).itemsize
    return Case(f"{'x'.join(map(str, shape))}-{dtype}", make, 0.0, 0.0, moved, bench=moved > 1e6)


KERNEL = Kernel(
    name="copy",
    oracle=oracle,
    cases=(
        _case((1,), (0,), "float32"),
        _case((3, 5, 7), (2, 0, 1), "int8"),
        _case((2, 1, 17, 33), (3, 1, 0, 2), "float64"),
        _case((1, 32, 24, 40, 40), (0, 2, 3, 4, 1), "float32"),
        _case((5, 0, 3), (1, 2, 0), "uint16"),
        _case((2, 3, 7, 9), (0, 3, 1, 2), "uint16"),
    ),
    backends=("cpu", "cuda"),
)


def copy(array: Array, *, order: Sequence[int], backend: str = "auto") -> Array:
    """Transpose an array into new memory.

    Parameters
    ----------
    array : any shape of up to 8 axes and any dtype of the library; may have gaps.
    order : the input axis of each output axis, as in ``numpy.transpose``.
    """
    result: Array = KERNEL(array, order=order, backend=backend)
    return result
