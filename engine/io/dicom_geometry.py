"""From the positions of DICOM slices to one affine, or a refusal with the reason.

Everything comes from ImagePositionPatient and ImageOrientationPatient (PS3.3 C.7.6.2.1.1). SliceThickness and
SpacingBetweenSlices are never used to place slices: they are often wrong (a real MR series in our tests lies 6.99 mm
apart and says 5 and 2).
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from voxelrt.errors import GeometryError

# Slices nearer than this are at the same place (mm); the finest real series are ten times as far apart.
REPEATED_MM = 0.01

# A neighbour this many times farther than the median means that slices are missing.
GAP_RATIO = 1.5

# A slice may lie off the even grid by this part of the spacing: positions are often rounded to 0.1 mm or worse.
UNEVEN_REFUSED = 0.05
UNEVEN_WARNED = 0.01

# Below this the drift is rounding, and the affine follows it exactly; above it the gantry was tilted.
TILT_DEGREES = 0.5

# Direction cosines are unit vectors at right angles up to this (they are often rounded to 3 or 4 digits).
COSINES = 2e-3

LISTED = 4


def place_slices(
    positions: NDArray[np.float64],
    orientation: NDArray[np.float64],
    pixel_spacing: tuple[float, float],
    thickness_mm: float | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float64], list[str]]:
    """Sort slices along their normal and find the affine of the stack.

    Parameters
    ----------
    positions
        (n, 3) ImagePositionPatient of each slice, mm, LPS.
    orientation
        (6,) ImageOrientationPatient: the direction of a row (columns growing), then that of a column.
    pixel_spacing
        PixelSpacing: the distance of rows, then of columns, in mm.
    thickness_mm
        SliceThickness, used only as the depth of a series of one slice, which has no spacing.

    Returns
    -------
    order : (n,) the slices sorted along the normal.
    affine : (4, 4) voxel (column, row, slice) -> LPS mm.
    warnings : what was odd and was accepted.

    Raises
    ------
    GeometryError : cosines that are none, repeated positions, gaps, uneven spacing, a tilted gantry.
    """
    row, column = orientation[:3], orientation[3:]
    lengths = float(np.linalg.norm(row)), float(np.linalg.norm(column))
    worst = max(abs(lengths[0] - 1), abs(lengths[1] - 1), abs(float(row @ column)))
    if not worst <= COSINES:
        raise GeometryError("ImageOrientationPatient is not two unit vectors at right angles; the series is damaged")
    if not np.isfinite(positions).all():
        raise GeometryError("ImagePositionPatient is not finite; the series is damaged")
    if not (np.isfinite(pixel_spacing).all() and min(pixel_spacing) > 0):
        raise GeometryError(f"PixelSpacing is {pixel_spacing}; both must be positive")
    row, column = row / lengths[0], column / lengths[1]
    normal = np.cross(row, column)
    normal /= np.linalg.norm(normal)

    along = positions @ normal
    order = np.argsort(along, kind="stable")
    sorted_positions = positions[order]
    warnings: list[str] = []
    if len(positions) == 1:
        step = normal * _depth_of_one_slice(thickness_mm, warnings)
    else:
        _refuse_repeats_and_gaps(sorted_positions, along[order])
        step = (sorted_positions[-1] - sorted_positions[0]) / (len(positions) - 1)
        _refuse_tilt(step, normal)
        _refuse_uneven(sorted_positions, step, warnings)

    affine = np.eye(4)
    affine[:3, 0] = row * pixel_spacing[1]
    affine[:3, 1] = column * pixel_spacing[0]
    affine[:3, 2] = step
    affine[:3, 3] = sorted_positions[0]
    return order, affine, warnings


def _depth_of_one_slice(thickness_mm: float | None, warnings: list[str]) -> float:
    usable = thickness_mm is not None and np.isfinite(thickness_mm) and thickness_mm > 0
    depth = float(thickness_mm) if usable and thickness_mm is not None else 1.0
    stated = "SliceThickness" if usable else "nothing in the file: it is assumed"
    warnings.append(f"the series has one slice, so its depth of {depth:g} mm is taken from {stated}")
    return depth


def _refuse_repeats_and_gaps(positions: NDArray[np.float64], along: NDArray[np.float64]) -> None:
    steps = np.diff(along)
    repeated = np.flatnonzero(steps < REPEATED_MM)
    if len(repeated):
        raise GeometryError(
            f"{len(repeated)} slices lie at the place of another ({_places(positions[i] for i in repeated)}); a series "
            "of several echoes, phases, times or reconstructions must be split first"
        )
    median = float(np.median(steps))
    gaps = np.flatnonzero(steps > GAP_RATIO * median)
    if len(gaps):
        i = int(gaps[0])
        raise GeometryError(
            f"slices are missing: {steps[i]:.3f} mm between {_places(positions[i : i + 2])} where the median is "
            f"{median:.3f} mm ({len(gaps)} such {'gap' if len(gaps) == 1 else 'gaps'})"
        )


def _refuse_tilt(step: NDArray[np.float64], normal: NDArray[np.float64]) -> None:
    angle = float(np.degrees(np.arccos(np.clip(step @ normal / np.linalg.norm(step), -1, 1))))
    if angle > TILT_DEGREES:
        raise GeometryError(
            f"the slices are stacked {angle:.2f} degrees off their normal, step ({_numbers(step)}) mm: the gantry was "
            f"tilted; resample the series to a straight one first (up to {TILT_DEGREES} degrees are taken as they are)"
        )


def _refuse_uneven(positions: NDArray[np.float64], step: NDArray[np.float64], warnings: list[str]) -> None:
    spacing = float(np.linalg.norm(step))
    even = positions[0] + np.arange(len(positions))[:, None] * step
    off = np.linalg.norm(positions - even, axis=1)
    worst = int(off.argmax())
    if off[worst] > UNEVEN_REFUSED * spacing:
        raise GeometryError(
            f"slices are unevenly spaced: the one at {_places([positions[worst]])} lies {off[worst]:.3f} mm off an "
            f"even grid of {spacing:.3f} mm; {UNEVEN_REFUSED:.0%} of the spacing is accepted"
        )
    if off[worst] > UNEVEN_WARNED * spacing:
        warnings.append(f"slices lie up to {off[worst]:.3f} mm off the even grid of {spacing:.3f} mm that is used")


def _numbers(vector: NDArray[np.float64]) -> str:
    return ", ".join(f"{value:.2f}" for value in vector)


def _places(positions: Iterable[NDArray[np.float64]]) -> str:
    """Positions for a message: (x, y, z) in mm, the first few."""
    listed = [f"({_numbers(position)})" for position in positions]
    more = f" and {len(listed) - LISTED} more" if len(listed) > LISTED else ""
    return ", ".join(listed[:LISTED]) + more + " mm"
