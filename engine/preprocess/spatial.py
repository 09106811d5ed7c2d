"""Stretch an array to a fixed grid and back: linear, with an optional low-pass before shrinking.

Every step (low-pass, then linear interpolation) is linear and works along one axis at a time, so each axis is one
small matrix, (target, source), and a resize is three matrix products: exact and quick.

The grid convention is always named, because the wrong one moves everything by up to half a voxel:

=================  =================================================  ====================================
``edges``          the outer *edges* of the voxels coincide           nnU-Net, scikit-image, PyTorch default
``first_centre``   the *centres of the first* voxels coincide         ITK, with spacing × source / target
``align_corners``  the centres of the first and the last coincide     PyTorch ``align_corners=True``
=================  =================================================  ====================================

What deepbrain 0.1 does, read in its ``extractor.py``: it takes nibabel's array as it is, so its axes are the *file's*
x, y, z, in this order (depth, height, width of the network = x, y, z: our (Z, Y, X) transposed; it was trained under
rotations, so the orientation matters little); ``skimage.transform.resize(image, (128, 128, 128), mode="constant",
anti_aliasing=True)``, which is order 1, the ``edges`` grid, zeros outside, and before it a Gaussian of
sigma = (source / target - 1) / 2 voxels along each axis that shrinks, cut at 4 sigma, zeros outside; a division by
the maximum of the *resized* array; shape (1, 128, 128, 128, 1). The probability goes back by the same function with
the same arguments (so an axis that was stretched is low-passed on the way back) and is cut at > 0.5. In our words:
``resize(x, (128,) * 3, grid="edges", boundary="constant", anti_aliasing=True)`` both ways.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from voxelrt.errors import UsageError

Grid = Literal["edges", "first_centre", "align_corners"]
Boundary = Literal["constant", "edge", "reflect", "symmetric"]

GRIDS: tuple[Grid, ...] = ("edges", "first_centre", "align_corners")
BOUNDARIES: tuple[Boundary, ...] = ("constant", "edge", "reflect", "symmetric")

# scipy.ndimage.gaussian_filter's default, which scikit-image's resize uses.
GAUSSIAN_TRUNCATE = 4.0


def sample_positions(source: int, target: int, grid: Grid) -> NDArray[np.float64]:
    """Where the centres of `target` voxels lie, in source voxels (0 = the centre of the first). Shape (target,).

    Raises
    ------
    UsageError : an unknown grid or a size below 1.
    """
    if source < 1 or target < 1:
        raise UsageError(f"a grid has at least one voxel along each axis; asked for {source} to {target}")
    index = np.arange(target, dtype=np.float64)
    if grid == "edges":
        return (index + 0.5) * (source / target) - 0.5
    if grid == "first_centre":
        return index * (source / target)
    if grid == "align_corners":
        return index * ((source - 1) / (target - 1)) if target > 1 else index
    raise UsageError(f"unknown grid {grid!r}; choose {', '.join(GRIDS)}")


def axis_matrix(
    source: int, target: int, *, grid: Grid = "edges", boundary: Boundary = "edge", anti_aliasing: bool = False
) -> NDArray[np.float64]:
    """The matrix of one axis: ``out = matrix @ values``.

    Parameters
    ----------
    source, target
        Sizes in voxels.
    grid
        See the module.
    boundary
        What lies outside, in numpy.pad's words: ``constant`` zeros, ``edge`` the last voxel again, ``reflect``
        mirrored at the centre of the last voxel, ``symmetric`` mirrored at its edge.
    anti_aliasing
        Low-pass first, if the axis shrinks, by a Gaussian of sigma = (source / target - 1) / 2 voxels.

    Returns
    -------
    matrix : (target, source) float64.
    """
    if boundary not in BOUNDARIES:
        raise UsageError(f"unknown boundary {boundary!r}; choose {', '.join(BOUNDARIES)}")
    positions = sample_positions(source, target, grid)
    below = np.floor(positions).astype(np.int64)
    fraction = positions - below
    matrix = np.zeros((target, source))
    rows = np.arange(target)
    for tap, weight in ((below, 1 - fraction), (below + 1, fraction)):
        _add_taps(matrix, rows, tap, weight, boundary)
    sigma = (source / target - 1) / 2
    if anti_aliasing and sigma > 0:
        matrix = matrix @ _gaussian_matrix(source, sigma, boundary)
    return matrix


def resize(
    array: NDArray[Any],
    shape_zyx: Sequence[int],
    *,
    grid: Grid = "edges",
    boundary: Boundary = "edge",
    anti_aliasing: bool = False,
) -> NDArray[Any]:
    """Stretch (..., Z, Y, X) to `shape_zyx`, linearly.

    Parameters
    ----------
    array
        (..., Z, Y, X), any real dtype; float64 is computed in float64, all else in float32.
    shape_zyx
        The wanted size of the last three axes.
    grid, boundary, anti_aliasing
        See :func:`axis_matrix`.

    Returns
    -------
    stretched : (..., *shape_zyx), float64 or float32, its own memory.

    Raises
    ------
    UsageError : fewer than three axes, an unknown word, a size below 1.
    """
    if array.ndim < 3 or len(shape_zyx) != 3:
        raise UsageError(f"resize takes (..., Z, Y, X) to three sizes; got {array.shape} to {tuple(shape_zyx)}")
    dtype = np.float64 if array.dtype == np.float64 else np.float32
    matrices = [
        axis_matrix(size, int(wanted), grid=grid, boundary=boundary, anti_aliasing=anti_aliasing).astype(dtype)
        for size, wanted in zip(array.shape[-3:], shape_zyx, strict=True)
    ]
    result = array.astype(dtype)
    # The axis that shrinks most goes first, so that the others have less to do.
    for axis in sorted(range(3), key=lambda a: matrices[a].shape[0] / matrices[a].shape[1]):
        result = _apply(matrices[axis], result, axis - 3)
    return np.ascontiguousarray(result)


def resize_mask(
    probability: NDArray[Any],
    shape_zyx: Sequence[int],
    *,
    threshold: float = 0.5,
    grid: Grid = "edges",
    boundary: Boundary = "edge",
    anti_aliasing: bool = False,
) -> NDArray[np.uint8]:
    """Bring a probability (Z, Y, X) back to the source's grid and cut it: 1 where it exceeds `threshold`, else 0.

    Interpolating the probability and cutting afterwards gives a smooth surface; interpolating the cut mask would give
    the steps of the coarse grid. The full-size probability never exists: planes are made and cut one slab at a time.

    Returns
    -------
    mask : `shape_zyx` uint8.
    """
    if probability.ndim != 3:
        raise UsageError(f"resize_mask takes one probability (Z, Y, X); got {probability.shape}")
    depth, height, width = (int(size) for size in shape_zyx)
    planes = resize(
        probability, (probability.shape[0], height, width), grid=grid, boundary=boundary, anti_aliasing=anti_aliasing
    )
    along_z = axis_matrix(planes.shape[0], depth, grid=grid, boundary=boundary, anti_aliasing=anti_aliasing)
    along_z = along_z.astype(planes.dtype)
    mask = np.empty((depth, height, width), dtype=np.uint8)
    slab = max(1, 2**22 // max(1, height * width))
    for first in range(0, depth, slab):
        mask[first : first + slab] = _apply(along_z[first : first + slab], planes, 0) > threshold
    return mask


def resized_affine(
    affine: NDArray[np.float64], source_zyx: Sequence[int], target_zyx: Sequence[int], *, grid: Grid = "edges"
) -> NDArray[np.float64]:
    """The affine of the stretched grid: voxel (x, y, z) of the target -> the same world as `affine`, (4, 4)."""
    to_source = np.eye(4)
    for axis, (source, target) in enumerate(zip(reversed(source_zyx), reversed(target_zyx), strict=True)):
        # The positions are a straight line; two imaginary points beyond a single voxel give its slope too.
        if grid == "align_corners":
            step = (source - 1) / (target - 1) if target > 1 and source > 1 else 1.0
        else:
            step = source / target
        to_source[axis, axis] = step
        to_source[axis, 3] = sample_positions(source, target, grid)[0]
    return np.asarray(affine @ to_source, dtype=np.float64)


def _apply(matrix: NDArray[Any], array: NDArray[Any], axis: int) -> NDArray[Any]:
    """Multiply one axis of `array` by (target, source)."""
    moved = np.moveaxis(array, axis, -1)
    return np.moveaxis(moved @ matrix.T, -1, axis)


def _gaussian_matrix(size: int, sigma: float, boundary: Boundary) -> NDArray[np.float64]:
    """Convolution with a sampled Gaussian, normalised before the boundary acts, (size, size)."""
    radius = int(GAUSSIAN_TRUNCATE * sigma + 0.5)
    offsets = np.arange(-radius, radius + 1)
    weights = np.exp(-0.5 * (offsets / sigma) ** 2)
    weights /= weights.sum()
    matrix = np.zeros((size, size))
    rows = np.arange(size)
    for offset, weight in zip(offsets, weights, strict=True):
        _add_taps(matrix, rows, rows + offset, np.full(size, weight), boundary)
    return matrix


def _add_taps(
    matrix: NDArray[np.float64],
    rows: NDArray[np.int64],
    taps: NDArray[np.int64],
    weights: NDArray[np.float64],
    boundary: Boundary,
) -> None:
    """Add `weights` at (rows, taps); taps outside the axis are folded back by the boundary's rule or dropped."""
    size = matrix.shape[1]
    if boundary == "constant":
        inside = (taps >= 0) & (taps < size)
        rows, taps, weights = rows[inside], taps[inside], weights[inside]
    elif boundary == "edge":
        taps = np.clip(taps, 0, size - 1)
    elif boundary == "reflect":
        period = max(2 * size - 2, 1)
        taps = np.mod(taps, period)
        taps = np.where(taps >= size, period - taps, taps)
    else:
        taps = np.mod(taps, 2 * size)
        taps = np.where(taps >= size, 2 * size - 1 - taps, taps)
    np.add.at(matrix, (rows, taps), weights)
