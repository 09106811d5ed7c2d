"""Warping images in space: a moving image onto a reference's grid, by a displacement field, an affine, or both."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from voxelrt.errors import GeometryError, UsageError
from voxelrt.io.fields import Field
from voxelrt.kernels import warp3d
from voxelrt.volume import Volume

Matrix = NDArray[np.float64]
LARGEST_MATRIX = 1e5  # voxels per mm, beyond which a grid is no image's


def warp_volume(
    moving: Volume,
    reference: Volume,
    *,
    field: Field | None = None,
    affine: Matrix | None = None,
    order: int = 1,
    labels: bool = False,
    padding: str = "zeros_edges",
) -> Volume:
    """The moving image on the reference's grid: at p it shows what lies at affine(p + u(p)).

    Parameters
    ----------
    moving : of any voxel type that ``kernels.warp3d`` takes; float64 is computed in float32.
    reference : gives the grid; its values are not looked at.
    field : u, in mm. On another grid than the reference's it is read trilinearly, and is 0 beyond its own
        grid's faces.
    affine : (4, 4), LPS mm, applied behind the field.
    order, labels, padding : see ``kernels.warp3d``. By default a voxel reaches to its faces, as in ITK.

    Returns
    -------
    A volume on the reference's grid, of the moving image's voxel type, with its label names.

    Raises
    ------
    UsageError : a voxel type that cannot be warped this way.
    GeometryError : the affine is not finite, or singular.
    """
    world = np.eye(4) if affine is None else np.asarray(affine, np.float64)
    if world.shape != (4, 4) or not np.isfinite(world).all() or abs(np.linalg.det(world[:3, :3])) < 1e-12:
        raise GeometryError("the affine is not a finite, regular 4×4 matrix")
    to_moving = np.linalg.inv(moving.affine) @ world
    rows = to_moving @ reference.affine
    if np.abs(to_moving[:3, :3]).max() > LARGEST_MATRIX:
        raise GeometryError("the affine shrinks the moving image's voxels to nothing")
    array = np.asarray(moving.array)
    source = _warpable(array, labels, order)
    moved = None if field is None else _on_grid(field, reference)
    answer = warp3d(
        source[None],
        moved,
        affine=_backwards(rows[:3]),
        matrix=None if moved is None else to_moving[2::-1, :3],
        shape=reference.shape_zyx,
        order=order,
        labels=labels,
        padding=padding,
    )[0]
    result = Volume(answer.astype(array.dtype, copy=False), reference.affine, dict(moving.labels), moving.modality)
    return result


def _backwards(rows: Matrix) -> Matrix:
    """[A | t] of (x, y, z) as one of (z, y, x)."""
    return np.ascontiguousarray(np.concatenate([rows[::-1, 2::-1], rows[::-1, 3:]], axis=1))


def _on_grid(field: Field, reference: Volume) -> NDArray[np.float32]:
    """The field's vectors at the reference's voxels, (1, 3, Z, Y, X), components as they are."""
    vectors = np.asarray(field.vectors_mm)[None]
    rows = np.linalg.inv(field.affine) @ reference.affine
    if vectors.shape[2:] == reference.shape_zyx and np.abs(rows - np.eye(4)).max() < 1e-4:
        return vectors
    found: NDArray[np.float32] = warp3d(
        vectors, affine=_backwards(rows[:3]), shape=reference.shape_zyx, padding="zeros_edges"
    )
    return found


def _warpable(array: NDArray[np.generic], labels: bool, order: int) -> NDArray[np.generic]:
    """The array in a type that the kernel takes; no label changes."""
    if array.dtype == np.float64 and not labels:
        return array.astype(np.float32)
    if array.dtype.kind in "iu" and array.dtype.itemsize > (4 if labels else 2) and (labels or order):
        if not labels:
            return array.astype(np.float32)
        low, high = (int(array.min()), int(array.max())) if array.size else (0, 0)
        if low < -(2**31) or high >= 2**31:
            raise UsageError(f"labels from {low} to {high}: those of up to 32 bits can be warped")
        return array.astype(np.int32)
    if array.dtype == np.bool_:
        return array.astype(np.uint8)
    if labels and array.dtype.kind == "f":
        whole = np.rint(array.astype(np.float64))
        if not np.array_equal(whole, array) or np.abs(whole).max(initial=0) >= 2**31:
            raise UsageError("labels=True takes whole numbers; this image holds others: leave it out")
        return whole.astype(np.int32)
    return array
