"""jacobian: how much a displacement field grows or folds space, voxel by voxel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from voxelrt.kernels.common.kernel import Array, Case, Kernel
from voxelrt.kernels.jacobian.oracle import jacobian as oracle


def _case(batch: int, size: tuple[int, ...], bench: bool = False) -> Case:
    axes, count = len(size), float(batch * np.prod(size))

    def make(rng: np.random.Generator) -> tuple[Sequence[Any], Mapping[str, Any]]:
        # Eighths: some determinants are exactly 0, and float32 counts them as float64 does.
        field = np.round(rng.normal(0, 0.6, (batch, axes, *size)) * 8) / 8
        return (field.astype(np.float32),), {}

    return Case(f"{batch}x{'x'.join(map(str, size))}", make, 1e-6, count * 35, count * 4 * (axes + 1), bench)


KERNEL = Kernel(
    name="jacobian",
    oracle=oracle,
    cases=(
        _case(1, (1, 1, 1)),
        _case(2, (5, 7, 11)),
        _case(1, (1, 9, 2)),
        _case(1, (3, 1, 40)),
        _case(3, (13, 37)),
        _case(1, (0, 4, 4)),
        _case(1, (64, 64, 64), bench=True),
    ),
    backends=("cpu", "triton"),
)


def jacobian(displacement_voxels: Array, *, backend: str = "auto") -> tuple[Array, Array]:
    """det(1 + ∂u/∂x) of a displacement field, by central differences, and how many voxels it folds.

    Parameters
    ----------
    displacement_voxels : (N, 3, Z, Y, X) or (N, 2, Y, X) float32, components (z, y, x).
    backend : see ``Kernel``.

    Returns
    -------
    determinant : (N, 1, Z, Y, X) float32; one-sided differences at the ends of an axis. 1 leaves a voxel's volume as it
        is, 0 and less folds space.
    folded : (N,) int64, the voxels whose determinant is 0 or less.

    Raises
    ------
    ShapeError : it is not a field, or not float32.
    """
    result: tuple[Array, Array] = KERNEL(displacement_voxels, backend=backend)
    return result
