"""A volume of a tilted gantry on an upright grid: each plane moved within itself, so that planes lie in a row."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxelrt.errors import InputError
from voxelrt.io.dicom.geometry import Placement
from voxelrt.io.image import MAX_VOLUME_BYTES

Array = NDArray[Any]
# Planes that move by less (pixels) stay as they are.
STILL = 1e-3


def straighten(values: Array, placement: Placement) -> tuple[Array, Placement]:
    """Move the planes of a sheared stack so that they are stacked along their normal, by linear interpolation.

    Parameters
    ----------
    values
        (C, Z, Y, X).
    placement
        Theirs.

    Returns
    -------
    values : on a grid with as many rows and columns more as the planes drift; what no plane covers has the lowest
        value. The same array where nothing is tilted.
    placement : with the upright affine; all its planes count as interpolated, because none is a slice of the series.

    Raises
    ------
    InputError : the upright grid is more than is read.
    """
    affine = placement.affine
    columns, rows, step = affine[:3, 0], affine[:3, 1], affine[:3, 2]
    normal = np.cross(columns, rows)
    normal /= np.linalg.norm(normal)
    upright = normal * (step @ normal)
    # By how many columns and rows each plane lies beside the one before.
    drift = np.array([(step - upright) @ axis / (axis @ axis) for axis in (columns, rows)])
    count = values.shape[1]
    moves = np.arange(count)[:, None] * drift
    if np.abs(moves).max(initial=0) < STILL:
        return values, placement
    low = np.floor(np.minimum(moves.min(axis=0), 0)).astype(int)
    more = np.ceil(np.maximum(moves.max(axis=0), 0)).astype(int) - low
    size = (values.shape[2] + int(more[1]), values.shape[3] + int(more[0]))
    if len(values) * count * size[0] * size[1] * 4 > MAX_VOLUME_BYTES:
        raise InputError("the upright grid of the tilted series is more than is read into memory")
    made = np.full((*values.shape[:2], *size), values.min(), values.dtype)
    for plane, (x, y) in enumerate(moves - low):
        _place(made[:, plane], values[:, plane], float(y), float(x))
    straight = affine.copy()
    straight[:3, 2] = upright
    straight[:3, 3] += columns * low[0] + rows * low[1]
    report = placement.report
    done = (
        f"the tilt was straightened: planes were moved within themselves by up to {np.abs(moves).max():.1f} pixels, "
        f"linearly, onto {size[0]} × {size[1]} pixels; voxels that no plane covers have the lowest value",
    )
    report = replace(
        report,
        spacing_mm_zyx=(float(np.linalg.norm(upright)), *report.spacing_mm_zyx[1:]),
        tilt_degrees=0.0,
        done=tuple(line for line in report.done if "the tilt was kept" not in line) + done,
    )
    every = {plane: (int(placement.order[plane]),) * 2 + (0.0,) for plane in range(count)}
    return made, replace(placement, affine=straight, report=report, between=every)


def _place(out: Array, plane: Array, y: float, x: float) -> None:
    """Put a plane (C, rows, columns) into a larger one with its first pixel at (y, x), both at least 0."""
    for axis, at in ((1, y), (2, x)):
        whole = int(np.floor(at))
        part = at - whole
        if part > STILL:
            size = plane.shape[axis]
            wide = np.concatenate([plane, plane.take([size - 1], axis)], axis).astype(np.float64)
            before = np.concatenate([plane.take([0], axis), plane], axis)
            plane = (1 - part) * wide + part * before
    if out.dtype.kind in "iu":
        plane = np.rint(plane)
    top, left = int(np.floor(y)), int(np.floor(x))
    height, width = min(plane.shape[1], out.shape[1] - top), min(plane.shape[2], out.shape[2] - left)
    out[:, top : top + height, left : left + width] = plane[:, :height, :width]
