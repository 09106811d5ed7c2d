"""jacobian in float64: differences by NumPy, determinants as Leibniz' sum over permutations."""

from __future__ import annotations

import itertools

import numpy as np

from voxelrt.kernels.common.kernel import Array


def jacobian(displacement: Array) -> tuple[Array, Array]:
    """See ``voxelrt.kernels.jacobian``."""
    batch, axes, *size = displacement.shape
    determinant = np.empty((batch, 1, *size), np.float32)
    for n in range(batch):
        matrix = np.zeros((*size, axes, axes))
        for i in range(axes):
            for j in range(axes):
                u = displacement[n, i].astype(np.float64)
                slope = np.gradient(u, axis=j) if size[j] > 1 else np.zeros_like(u)
                matrix[..., i, j] = slope + (i == j)
        total = np.zeros(size)
        for order in itertools.permutations(range(axes)):
            sign = np.linalg.det(np.eye(axes)[list(order)])
            total += round(sign) * np.prod([matrix[..., i, j] for i, j in enumerate(order)], axis=0)
        determinant[n, 0] = total
    folded = (determinant <= 0).reshape(batch, -1).sum(axis=1)
    return determinant, folded.astype(np.int64)
