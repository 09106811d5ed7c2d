"""Interpolation of one axis as a matrix: nearest, linear, and cubic B-spline. ``values_out = matrix @ values_in``.

Positions are in source voxels, 0 being the centre of the first. What lies outside the axis is decided by a boundary:
``constant`` counts as zeros, ``edge`` repeats the last voxel.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Interpolation = Literal["nearest", "linear", "cubic"]
Matrix = NDArray[np.float64]

INTERPOLATIONS: tuple[Interpolation, ...] = ("nearest", "linear", "cubic")

# The B-spline's influence falls by 0.27 a voxel: 12 repeated voxels leave less than float32 can see.
SPLINE_MARGIN = 12
NEGLIGIBLE = 1e-8


def interpolation_matrix(
    positions: NDArray[np.float64], source: int, interpolation: Interpolation, *, zeros_outside: bool
) -> Matrix:
    """The matrix that reads ``source`` values at ``positions``.

    Parameters
    ----------
    positions
        (target,), in source voxels; may lie outside.
    source
        How many values there are.
    interpolation
        ``nearest`` (a position half-way between two voxels takes the later), ``linear``, or ``cubic``: the cubic
        B-spline that passes through the values, as order 3 of scipy and scikit-image.
    zeros_outside
        Values outside are zero; otherwise the first and last value go on for ever.

    Returns
    -------
    matrix : (target, source) float64.
    """
    if interpolation == "nearest":
        return _spread(np.floor(positions + 0.5).astype(np.int64)[:, None], np.ones((1, 1)), source, zeros_outside)
    below = np.floor(positions).astype(np.int64)
    fraction = (positions - below)[:, None]
    if interpolation == "linear":
        taps, weights = below[:, None] + np.arange(2), np.concatenate([1 - fraction, fraction], axis=1)
        return _spread(taps, weights, source, zeros_outside)
    return spline_matrix(positions, source, 3, zeros_outside=zeros_outside)


def spline_matrix(positions: NDArray[np.float64], source: int, order: int, *, zeros_outside: bool = False) -> Matrix:
    """The matrix that reads ``source`` values at ``positions`` by the B-spline that passes through them.

    Parameters
    ----------
    positions, source, zeros_outside : as for ``interpolation_matrix``.
    order : of the spline, 2 to 5.

    Returns
    -------
    matrix : (target, source) float64.
    """
    size = source + 2 * SPLINE_MARGIN
    extended = _spread(np.arange(size)[:, None] - SPLINE_MARGIN, np.ones((1, 1)), source, zeros_outside)
    coefficients = np.linalg.solve(_spline_values(size, order), extended)
    inside = np.clip(positions, -SPLINE_MARGIN + 3, source + SPLINE_MARGIN - 4) + SPLINE_MARGIN
    # The order + 1 voxels whose splines reach the position.
    first = np.floor(inside + (0.5 if order % 2 == 0 else 0)).astype(np.int64) - order // 2
    taps = first[:, None] + np.arange(order + 1)
    matrix = _spread(taps, _spline(inside[:, None] - taps, order), size, False) @ coefficients
    matrix[np.abs(matrix) < NEGLIGIBLE] = 0
    return np.asarray(matrix, dtype=np.float64)


def _spread(taps: NDArray[np.int64], weights: NDArray[np.float64], size: int, zeros_outside: bool) -> Matrix:
    """Weights at their taps, (rows, size); taps outside are dropped or folded onto the ends."""
    weights = np.broadcast_to(weights, taps.shape)
    if zeros_outside:
        weights = np.where((taps >= 0) & (taps < size), weights, 0.0)
    matrix = np.zeros((taps.shape[0], size))
    rows = np.broadcast_to(np.arange(taps.shape[0])[:, None], taps.shape)
    np.add.at(matrix, (rows, np.clip(taps, 0, size - 1)), weights)
    return matrix


def _spline(x: NDArray[np.float64], order: int) -> NDArray[np.float64]:
    """The B-spline of an order at x, its centre at 0 (Unser 1999, equation 2)."""
    terms = [
        (-1) ** k * math.comb(order + 1, k) * np.maximum(x + (order + 1) / 2 - k, 0) ** order for k in range(order + 2)
    ]
    total: NDArray[np.float64] = np.sum(terms, axis=0) / math.factorial(order)
    return total


def _spline_values(size: int, order: int) -> Matrix:
    """The spline's values at the voxels as a function of its coefficients, mirrored at both ends."""
    matrix = np.zeros((size, size))
    rows = np.arange(size)
    for k in range(-(order // 2), order // 2 + 1):
        mirrored = np.abs(rows + k)
        mirrored = np.where(mirrored >= size, 2 * (size - 1) - mirrored, mirrored)
        np.add.at(matrix, (rows, mirrored), _spline(np.array(float(k)), order))
    return matrix
