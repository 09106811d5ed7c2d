"""warp3d in float64: every voxel's position, then the sum over its taps."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from voxelrt.kernels.common.kernel import Array

Floats = NDArray[np.float64]
Whole = NDArray[np.int64]


def warp3d(
    volume: Array,
    displacement: Array | None = None,
    *,
    affine: Array | None = None,
    matrix: Array | None = None,
    shape: Sequence[int] | None = None,
    mode: str = "linear",
    padding: str = "zeros",
    out: Array | None = None,
) -> Array:
    """See ``voxelrt.kernels.warp3d``; `matrix` maps the displacement's components to voxels."""
    axes = volume.ndim - 2
    batch = volume.shape[0]
    size = tuple(displacement.shape[2:]) if displacement is not None else tuple(shape or volume.shape[2:])
    rows = np.eye(axes, axes + 1) if affine is None else np.asarray(affine, np.float64)
    rows = np.broadcast_to(rows, (batch, axes, axes + 1))
    grid = np.stack(np.meshgrid(*[np.arange(n, dtype=np.float64) for n in size], indexing="ij")).reshape(axes, -1)
    result = np.empty((*volume.shape[:2], *size), volume.dtype)
    for n in range(batch):
        position = rows[n, :, :axes] @ grid + rows[n, :, axes:]
        if displacement is not None:
            moved = np.asarray(displacement[n if displacement.shape[0] > 1 else 0], np.float64).reshape(axes, -1)
            position = position + (moved if matrix is None else np.asarray(matrix, np.float64) @ moved)
        for c in range(volume.shape[1]):
            sampled = _sample(volume[n, c], position, mode, padding)
            result[n, c] = sampled.reshape(size)
    if out is None:
        return result
    out[...] = result
    return out


def _sample(plane: Array, position: Floats, mode: str, padding: str) -> Array:
    lost = np.isnan(position).any(axis=0)
    position = np.clip(np.where(lost, 0.0, position), -1e15, 1e15)
    if mode == "nearest":
        # Halves go to the even voxel, or to the upper one as ITK has it.
        position = np.floor(position + 0.5) if padding == "zeros_edges" else np.rint(position)
    outside = np.zeros(position.shape[1], bool)
    taps = []
    for k, size in enumerate(plane.shape):
        if padding == "zeros_edges" or (mode == "bspline" and padding == "zeros"):
            # A spline goes on to the faces by itself; other modes repeat the outer voxels.
            outside |= (position[k] < -0.5) | (position[k] >= size - 0.5)
        where = _resolve(position[k], size, "zeros" if mode == "bspline" and padding == "zeros_edges" else padding)
        start = np.floor(where).astype(np.int64)
        taps.append(_taps(start, where - start, size, mode, padding))
    if mode == "vote":
        chosen = _vote(plane, taps)
        return np.where(lost | outside, 0, chosen).astype(plane.dtype)
    total = np.zeros(position.shape[1], np.float64)
    source = plane.astype(np.float64)
    for corner in itertools.product(*taps):
        weight, value = _tap(source, corner)
        total = total + np.where(value == 0, 0.0, weight * value)
    total[outside] = 0
    if plane.dtype.kind in "iu":
        info = np.iinfo(plane.dtype)
        return np.clip(np.rint(np.where(lost, 0, total)), info.min, info.max).astype(plane.dtype)
    return np.where(lost, np.nan, total).astype(plane.dtype)


Tap = tuple[Whole, Floats]  # an index, -1 where there is no voxel, and a weight


def _tap(plane: Array, corner: Sequence[Tap]) -> tuple[Floats, Array]:
    """The weight and value of one tap of every position; where there is no voxel the value is 0."""
    inside = np.all([at >= 0 for at, _ in corner], axis=0)
    weight = np.prod([w for _, w in corner], axis=0)
    value = np.where(inside, plane[tuple(np.maximum(at, 0) for at, _ in corner)], 0)
    return weight, value


def _vote(plane: Array, taps: Sequence[Sequence[Tap]]) -> Array:
    """The label with the most weight; of equal ones the smallest."""
    corners = [_tap(plane, corner) for corner in itertools.product(*taps)]
    best, chosen = np.full(len(corners[0][0]), -1.0), np.zeros(len(corners[0][0]), plane.dtype)
    for _, label in corners:
        weight = np.sum([np.where(value == label, w, 0.0) for w, value in corners], axis=0)
        wins = (weight > best) | ((weight == best) & (label < chosen))
        best, chosen = np.where(wins, weight, best), np.where(wins, label, chosen)
    return chosen


def _resolve(position: Floats, size: int, padding: str) -> Floats:
    """Where a position outside is looked up."""
    last = size - 1.0
    if padding in ("border", "zeros_edges"):
        return np.clip(position, 0.0, last)
    if padding == "border_edges":
        return np.where((position < -0.5) | (position > last + 0.5), np.clip(position, 0.0, last), position)
    if padding == "reflect":
        return _mirror(position, 0.0, last)
    if padding == "reflect_edges":
        return _mirror(position, -0.5, last + 0.5)
    return np.clip(position, -8.0, size + 8.0)


def _mirror(position: Floats, low: float, high: float) -> Floats:
    if high == low:
        return np.full_like(position, low)
    along = np.mod(position - low, 2 * (high - low))
    return np.asarray(low + np.minimum(along, 2 * (high - low) - along))


def _taps(start: Whole, rest: Floats, size: int, mode: str, padding: str) -> list[Tap]:
    if mode == "nearest":
        places, weights = [0], [np.ones_like(rest)]
    elif mode in ("linear", "vote"):
        places, weights = [0, 1], [1 - rest, rest]
    else:
        places = [-1, 0, 1, 2]
        weights = [(_bspline if mode == "bspline" else _keys)(rest - place) for place in places]
    return [(_index(start + p, size, mode, padding), w) for p, w in zip(places, weights, strict=True)]


def _index(at: Whole, size: int, mode: str, padding: str) -> Whole:
    """The voxel of a tap. Spline coefficients go on as a mirror image, whatever is outside."""
    if mode == "bspline" or padding == "reflect":
        return _mirror(at.astype(np.float64), 0.0, size - 1.0).astype(np.int64)
    if padding == "reflect_edges":
        return np.clip(_mirror(at.astype(np.float64), -0.5, size - 0.5), 0, size - 1).astype(np.int64)
    if padding in ("border", "border_edges", "zeros_edges"):
        return np.clip(at, 0, size - 1)
    return np.where((at >= 0) & (at < size), at, -1)


def _bspline(x: Floats) -> Floats:
    """The cubic B-spline."""
    x = np.abs(x)
    return np.where(x < 1, 2 / 3 - x**2 + x**3 / 2, np.where(x < 2, (2 - x) ** 3 / 6, 0.0))


def _keys(x: Floats, a: float = -0.75) -> Floats:
    """Keys, Cubic convolution interpolation, 1981, equation 4; a = -3/4 as ONNX GridSample has it."""
    x = np.abs(x)
    near, far = ((a + 2) * x - (a + 3)) * x * x + 1, ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))
