"""resample3d in float64: for every axis a matrix of weights."""

from __future__ import annotations

import numpy as np

from voxelrt.kernels.common.kernel import Array


def positions(n: int, m: int, grid: str) -> Array:
    """Where m voxels look on an axis of n, (m,)."""
    j = np.arange(m)
    if grid == "edges":
        return (j + 0.5) * n / m - 0.5
    return j * (n / m) if grid == "first_centre" else j * ((n - 1) / max(m - 1, 1))


def resample3d(
    volume: Array, size: tuple[int, ...], *, order: int = 1, grid: str = "edges", argmax: bool = False
) -> Array:
    result = volume.astype(np.float64)
    for axis, m in zip((-3, -2, -1), size, strict=True):
        n = volume.shape[axis]
        at = np.clip(positions(n, m, grid), 0, n - 1)
        result = np.moveaxis(np.tensordot(_weights(at, n, order, later=argmax), result, (1, axis)), 0, axis)
    if argmax:
        return np.asarray(np.argmax(result, axis=-4))
    if volume.dtype.kind in "iu":
        info = np.iinfo(volume.dtype)
        result = np.clip(np.rint(result), info.min, info.max)
    return np.asarray(result)


def _weights(at: Array, n: int, order: int, *, later: bool) -> Array:
    """(m, n): how much each voxel counts at each position."""
    voxels = np.arange(n)
    if order == 0:
        nearest = np.floor(at + 0.5) if later else np.rint(at)
        return np.asarray(nearest[:, None] == voxels, np.float64)
    if order == 1:
        return np.asarray(np.maximum(0.0, 1 - np.abs(at[:, None] - voxels)))
    return np.asarray(_bspline(at, n) @ np.linalg.inv(_bspline(voxels.astype(np.float64), n)))


def _bspline(at: Array, n: int) -> Array:
    """The cubic B-splines' values, (m, n); those beyond an end are mirror images about the outer voxels' centres."""
    period = max(2 * n - 2, 1)
    made = np.zeros((len(at), n))
    for knot in range(-3, n + 3):
        x = np.abs(at - knot)
        value = np.where(x < 1, 2 / 3 - x**2 + x**3 / 2, np.where(x < 2, (2 - x) ** 3 / 6, 0.0))
        inside = knot % period
        made[:, min(inside, period - inside) if n > 1 else 0] += value
    return made
