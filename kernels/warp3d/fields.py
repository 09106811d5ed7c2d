"""Arithmetic of displacement fields: composition, inverse, other grids, points. All in voxels, components (z, y, x).

A field u (N, 3, Z, Y, X) or (N, 2, Y, X) stands for the map φ(x) = x + u(x) from the voxels of its own grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from voxelrt.errors import ShapeError, UsageError
from voxelrt.kernels.common.kernel import Array
from voxelrt.kernels.warp3d import warp3d

GRIDS = ("edges", "first_centre", "align_corners")


def compose(outer: Array, inner: Array, *, padding: str = "border", backend: str = "auto") -> Array:
    """The field of x → φ_outer(φ_inner(x)): u_inner(x) + u_outer(x + u_inner(x)).

    Parameters
    ----------
    outer, inner : fields of one grid; a batch of one goes with any other.
    padding : what `outer` is beyond its grid, see ``warp3d``.

    Raises
    ------
    ShapeError : they are no fields of one grid.
    """
    _check(outer)
    _check(inner)
    if outer.shape[2:] != inner.shape[2:]:
        raise ShapeError(f"fields of one grid are composed; these have {outer.shape[2:]} and {inner.shape[2:]} voxels")
    batch = max(outer.shape[0], inner.shape[0])
    wide = np.broadcast_to(outer, (batch, *outer.shape[1:]))
    found: Array = warp3d(wide, inner, padding=padding, backend=backend)
    found += inner
    return found


@dataclass(frozen=True)
class Inverse:
    """An inverse field and how good it is.

    Parameters
    ----------
    field : v with v(x) + u(x + v(x)) ≈ 0.
    residual : the largest |v(x) + u(x + v(x))| of any component, in voxels; near the border it also counts what the
        field does beyond its grid.
    iterations : how many it took.
    """

    field: Array
    residual: float
    iterations: int


def invert(
    displacement: Array,
    *,
    iterations: int = 50,
    tolerance: float = 1e-3,
    padding: str = "border",
    backend: str = "auto",
) -> Inverse:
    """The inverse of a field by fixed point: v ← −u(x + v(x)) (Chen et al., Medical Physics 35, 2008).

    It converges where u is a contraction (no component grows by a voxel from one voxel to the next). Elsewhere the
    residual says so; no error is raised, because a field that folds in one place is still invertible in others.

    Parameters
    ----------
    iterations : at most so many.
    tolerance : voxels; it ends when no component's residual is larger.
    padding : what the field is beyond its grid, see ``warp3d``.

    Raises
    ------
    ShapeError : it is not a field.
    UsageError : no iterations.
    """
    _check(displacement)
    if iterations < 1:
        raise UsageError(f"iterations is {iterations}; at least one is needed")
    inverse = -displacement
    residual = np.inf
    for count in range(1, iterations + 1):
        found = warp3d(displacement, inverse, padding=padding, backend=backend)
        residual = float(np.abs(found + inverse).max(initial=0.0))
        if residual <= tolerance:
            return Inverse(inverse, residual, count)
        inverse = -found
    found = warp3d(displacement, inverse, padding=padding, backend=backend)
    return Inverse(inverse, float(np.abs(found + inverse).max(initial=0.0)), iterations)


def resample_field(displacement: Array, shape: Sequence[int], *, grid: str = "edges", backend: str = "auto") -> Array:
    """A field on a grid of another size, its vectors rescaled to that grid's voxels; trilinear, the border goes on.

    Parameters
    ----------
    shape : (Z', Y', X') of the new grid.
    grid : what of both grids coincides: ``"edges"`` (the voxels' faces at both ends), ``"first_centre"`` (the first
        voxel's centre, voxels larger by the ratio of sizes) or ``"align_corners"`` (the outer voxels' centres).

    Raises
    ------
    ShapeError : it is not a field, or the shape has another number of axes.
    UsageError : an unknown grid, or an empty one.
    """
    _check(displacement)
    axes = displacement.ndim - 2
    if len(shape) != axes or min(shape) < 1 or min(displacement.shape[2:]) < 1:
        raise ShapeError(f"a field of {displacement.shape[2:]} voxels cannot be brought to {tuple(shape)}")
    affine, factors = np.zeros((axes, axes + 1)), np.ones(axes)
    for k, (old, new) in enumerate(zip(displacement.shape[2:], shape, strict=True)):
        affine[k, k], affine[k, axes] = _along(old, new, grid)
        factors[k] = 1 / affine[k, k] if affine[k, k] else 1.0
    found: Array = warp3d(displacement, affine=affine, shape=shape, padding="border", backend=backend)
    found *= factors.reshape(1, axes, *(1,) * axes).astype(found.dtype)
    return found


def _along(old: int, new: int, grid: str) -> tuple[float, float]:
    """An axis' scale and shift, from voxels of the new grid to those of the old."""
    if grid == "edges":
        return old / new, 0.5 * old / new - 0.5
    if grid == "first_centre":
        return old / new, 0.0
    if grid == "align_corners":
        return ((old - 1) / (new - 1) if new > 1 else 0.0), 0.0
    raise UsageError(f"grid is {grid!r}; it is one of {', '.join(GRIDS)}")


def warp_points(points: Array, displacement: Array | None = None, *, affine: Array | None = None) -> Array:
    """Where points of the output's grid lie in the volume: A·x + t + u(x), the field read trilinearly.

    A warped image shows the volume's point φ(x) at x: landmarks of the fixed image go to the moving one this way.

    Parameters
    ----------
    points : (count, 3) or (count, 2), voxels (z, y, x) of the field's grid; between voxels too.
    displacement : (1, 3, Z, Y, X) or (1, 2, Y, X); beyond its grid the border goes on.
    affine : (3, 4) or (2, 3), [A | t].

    Returns
    -------
    (count, axes) float64.

    Raises
    ------
    ShapeError : shapes that do not fit each other.
    """
    places = np.asarray(points, np.float64)
    if places.ndim != 2 or places.shape[1] not in (2, 3):
        raise ShapeError(f"points are (count, 3) or (count, 2), not {places.shape}")
    axes = places.shape[1]
    rows = np.eye(axes, axes + 1) if affine is None else np.asarray(affine, np.float64)
    if rows.shape != (axes, axes + 1):
        raise ShapeError(f"an affine of {axes} axes is ({axes}, {axes + 1}), not {rows.shape}")
    moved = places @ rows[:, :axes].T + rows[:, axes]
    if displacement is None:
        return np.asarray(moved)
    _check(displacement)
    if displacement.shape[:2] != (1, axes):
        raise ShapeError(f"the field is of the shape {displacement.shape}; (1, {axes}, …) fits these points")
    # The points as the displacement of a row of voxels that all start at the origin.
    row = places.T.astype(np.float32).reshape(1, axes, *(1,) * (axes - 1), -1)
    found = warp3d(displacement, row, affine=np.zeros((axes, axes + 1)), padding="border")
    return np.asarray(moved + found.reshape(axes, -1).T)


def _check(field: Array) -> None:
    if field.ndim not in (4, 5) or field.shape[1] != field.ndim - 2:
        raise ShapeError(f"a field is (N, 3, Z, Y, X) or (N, 2, Y, X); this one has the shape {field.shape}")
