"""From the positions of DICOM slices to one affine and a report of what was found, or a refusal with the reason.

Everything comes from ImagePositionPatient and ImageOrientationPatient (PS3.3 C.7.6.2.1.1). SliceThickness and
SpacingBetweenSlices are never used to place slices: they are often wrong (a real MR series in our tests lies 6.99 mm
apart and says 5 and 2).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxelrt.errors import GeometryError
from voxelrt.io.orientation import axis_codes
from voxelrt.volume import Lengths

# Slices nearer than this are at the same place (mm); the finest real series are ten times as far apart.
REPEATED_MM = 0.01

# A neighbour this many times farther than the median means that slices are missing.
GAP_RATIO = 1.5

# Repair interpolates over gaps up to this many times the median: beyond it the slices would be made up.
REPAIRED_RATIO = 4.5

# A slice may lie off the even grid by this part of the spacing: positions are often rounded to 0.1 mm or worse.
UNEVEN_REFUSED = 0.05
UNEVEN_WARNED = 0.01

# Below this the drift is rounding; above it the gantry was tilted, which is said. The affine follows both exactly.
TILT_DEGREES = 0.5
TILT_REFUSED = 45.0

# Direction cosines are unit vectors at right angles up to this (they are often rounded to 3 or 4 digits).
COSINES = 2e-3

LISTED = 4

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class GeometryReport:
    """What was found of a volume's geometry, and what was done about it. Holds no identifiers.

    Parameters
    ----------
    slices
        Planes of the volume.
    spacing_mm_zyx
        Distance of voxel centres.
    orientation_xyz
        Where growing indices x, y, z point to, the nearest of L/R, P/A, S/I.
    tilt_degrees
        The angle of the stacking direction and the slices' normal.
    found, done
        Sentences.
    lengths
        Which of the distances were measured, as `Volume` has it.
    """

    slices: int
    spacing_mm_zyx: tuple[float, float, float]
    orientation_xyz: str
    tilt_degrees: float = 0.0
    found: tuple[str, ...] = ()
    done: tuple[str, ...] = ()
    lengths: Lengths = "volume"

    @property
    def known_spacing_mm_zyx(self) -> tuple[float | None, float | None, float | None]:
        """The distances with None for those that nothing tells."""
        z, y, x = self.spacing_mm_zyx
        plane = self.lengths != "none"
        return z if self.lengths == "volume" else None, y if plane else None, x if plane else None

    @property
    def sentences(self) -> tuple[str, ...]:
        """All there is to say."""
        return self.found + self.done

    def record(self) -> dict[str, Any]:
        """As JSON takes it."""
        return {**asdict(self), "spacing_mm_zyx": list(self.known_spacing_mm_zyx)}


@dataclass(frozen=True, eq=False)
class Placement:
    """Slices on one even grid.

    Parameters
    ----------
    order
        (n,) for each plane of the volume the slice that it is; where repair interpolates, the nearer one.
    affine
        (4, 4) voxel (column, row, plane) -> LPS mm.
    report
        What was found and done.
    between
        For each interpolated plane: (lower slice, upper slice, weight of the upper).
    """

    order: NDArray[np.int64]
    affine: Floats
    report: GeometryReport
    between: dict[int, tuple[int, int, float]] = field(default_factory=dict)


def place_slices(
    positions: Floats,
    orientation: Floats,
    pixel_spacing: tuple[float, float],
    thickness_mm: float | None = None,
    *,
    repair: bool = False,
) -> Placement:
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
    repair
        Leave out repeated slices and interpolate missing and uneven ones, instead of refusing them.

    Raises
    ------
    GeometryError : cosines that are none; without `repair` repeated positions, gaps, uneven spacing; with it gaps that
        are too wide, and slices beside the stack's line.
    """
    row, column = _directions(positions, orientation, pixel_spacing)
    normal = np.cross(row, column)
    normal /= np.linalg.norm(normal)
    along = positions @ normal
    order = np.argsort(along, kind="stable")
    found: list[str] = []
    done: list[str] = []
    between: dict[int, tuple[int, int, float]] = {}
    tilt = 0.0
    lengths: Lengths = "volume"
    if len(positions) == 1:
        step = normal * _depth_of_one_slice(thickness_mm, found)
        lengths = _lengths_of_one_slice(thickness_mm)
    else:
        order = _without_repeats(positions, along, order, repair, done)
        step = (positions[order[-1]] - positions[order[0]]) / max(1, len(order) - 1)
        if len(order) == 1:
            step = normal * _depth_of_one_slice(thickness_mm, found)
            lengths = _lengths_of_one_slice(thickness_mm)
        elif repair:
            order, step, between = _repaired(positions[order], along[order], order, done)
        else:
            _refuse_gaps(positions[order], along[order])
            _refuse_uneven(positions[order], step, found)
        tilt = _tilt(step, normal, found, done)

    affine = np.eye(4)
    affine[:3, 0] = row * pixel_spacing[1]
    affine[:3, 1] = column * pixel_spacing[0]
    affine[:3, 2] = step
    affine[:3, 3] = positions[order[0]]
    x, y, z = np.linalg.norm(affine[:3, :3], axis=0)
    report = GeometryReport(
        slices=len(order),
        spacing_mm_zyx=(float(z), float(y), float(x)),
        orientation_xyz=axis_codes(affine),
        tilt_degrees=tilt,
        found=tuple(found),
        done=tuple(done),
        lengths=lengths,
    )
    return Placement(order, affine, report, between)


def _directions(positions: Floats, orientation: Floats, pixel_spacing: tuple[float, float]) -> tuple[Floats, Floats]:
    """The unit vectors of rows and columns, after all has been checked that everything else rests on."""
    row, column = orientation[:3], orientation[3:]
    lengths = float(np.linalg.norm(row)), float(np.linalg.norm(column))
    worst = max(abs(lengths[0] - 1), abs(lengths[1] - 1), abs(float(row @ column)))
    if not worst <= COSINES:
        raise GeometryError("ImageOrientationPatient is not two unit vectors at right angles; the series is damaged")
    if not np.isfinite(positions).all() or np.abs(positions).max() > 1e7:
        raise GeometryError("ImagePositionPatient is not a place in millimetres; the series is damaged")
    if not (np.isfinite(pixel_spacing).all() and min(pixel_spacing) > 1e-6 and max(pixel_spacing) < 1e4):
        raise GeometryError(f"PixelSpacing is {pixel_spacing}; both must be positive")
    return row / lengths[0], column / lengths[1]


def _depth_of_one_slice(thickness_mm: float | None, found: list[str]) -> float:
    usable = _lengths_of_one_slice(thickness_mm) == "volume"
    depth = float(thickness_mm) if usable and thickness_mm is not None else 1.0
    stated = "taken from SliceThickness" if usable else "assumed: nothing in the file tells it"
    found.append(f"the series has one slice, so its depth of {depth:g} mm is {stated}")
    return depth


def _lengths_of_one_slice(thickness_mm: float | None) -> Lengths:
    return "volume" if thickness_mm is not None and 1e-6 < thickness_mm < 1e4 else "plane"


def _without_repeats(
    positions: Floats, along: Floats, order: NDArray[np.int64], repair: bool, done: list[str]
) -> NDArray[np.int64]:
    """The order without slices that lie at the place of the one before. Raises GeometryError without `repair`."""
    repeated = np.flatnonzero(np.diff(along[order]) < REPEATED_MM)
    if not len(repeated):
        return order
    places = _places(positions[order[i]] for i in repeated)
    if not repair:
        raise GeometryError(
            f"{_slices_lie(len(repeated))} at the place of another ({places}), and nothing in the files tells which of "
            "them belong together; to keep the first at each place ask for repair (--repair)"
        )
    done.append(f"repaired: {len(repeated)} slices at the place of another were left out ({places})")
    return np.delete(order, repeated + 1)


def _slices_lie(count: int) -> str:
    return "1 slice lies" if count == 1 else f"{count} slices lie"


def _refuse_gaps(positions: Floats, along: Floats) -> None:
    steps = np.diff(along)
    median = float(np.median(steps))
    gaps = np.flatnonzero(steps > GAP_RATIO * median)
    if len(gaps):
        i = int(gaps[0])
        raise GeometryError(
            f"slices are missing: {steps[i]:.3f} mm between {_places(positions[i : i + 2])} where the median is "
            f"{median:.3f} mm ({len(gaps)} such {'gap' if len(gaps) == 1 else 'gaps'}); to interpolate them ask for "
            "repair (--repair)"
        )


def _refuse_uneven(positions: Floats, step: Floats, found: list[str]) -> None:
    spacing = float(np.linalg.norm(step))
    off = _off_grid(positions, step)
    worst = int(off.argmax())
    if off[worst] > UNEVEN_REFUSED * spacing:
        raise GeometryError(
            f"slices are unevenly spaced: the one at {_places([positions[worst]])} lies {off[worst]:.3f} mm off an "
            f"even grid of {spacing:.3f} mm; {UNEVEN_REFUSED:.0%} of the spacing is accepted. To interpolate an even "
            "grid ask for repair (--repair)"
        )
    if off[worst] > UNEVEN_WARNED * spacing:
        found.append(f"slices lie up to {off[worst]:.3f} mm off the even grid of {spacing:.3f} mm that is used")


def _off_grid(positions: Floats, step: Floats) -> Floats:
    even = positions[0] + np.arange(len(positions))[:, None] * step
    return np.asarray(np.linalg.norm(positions - even, axis=1))


def _repaired(
    positions: Floats, along: Floats, order: NDArray[np.int64], done: list[str]
) -> tuple[NDArray[np.int64], Floats, dict[int, tuple[int, int, float]]]:
    """An even grid from the first slice to the last, with as many planes as the median distance asks for."""
    steps = np.diff(along)
    median = float(np.median(steps))
    widest = int(steps.argmax())
    if steps[widest] > REPAIRED_RATIO * median:
        raise GeometryError(
            f"{steps[widest]:.3f} mm between {_places(positions[widest : widest + 2])} is too wide a gap to "
            f"interpolate over: the median is {median:.3f} mm"
        )
    planes = round((along[-1] - along[0]) / median) + 1
    step = (positions[-1] - positions[0]) / (planes - 1)
    line = positions[0] + (along - along[0])[:, None] / (along[-1] - along[0]) * (positions[-1] - positions[0])
    beside = np.linalg.norm(positions - line, axis=1)
    if beside.max() > UNEVEN_REFUSED * median:
        worst = int(beside.argmax())
        raise GeometryError(
            f"the slice at {_places([positions[worst]])} lies {beside[worst]:.3f} mm beside the line of the others, "
            "which repair cannot mend"
        )
    wanted = along[0] + np.arange(planes) * (along[-1] - along[0]) / (planes - 1)
    upper = np.clip(np.searchsorted(along, wanted), 1, len(along) - 1)
    weight = np.clip((wanted - along[upper - 1]) / steps[upper - 1], 0, 1)
    nearest = np.where(weight < 0.5, upper - 1, upper)
    between = {
        k: (int(order[upper[k] - 1]), int(order[upper[k]]), float(weight[k]))
        for k in range(planes)
        if abs(wanted[k] - along[nearest[k]]) > UNEVEN_WARNED * median
    }
    if between:
        places = _places(positions[0] + k * step for k in between)
        done.append(f"repaired: {len(between)} of {planes} planes were interpolated from their neighbours ({places})")
    return order[nearest], step, between


def _tilt(step: Floats, normal: Floats, found: list[str], done: list[str]) -> float:
    angle = float(np.degrees(np.arccos(np.clip(step @ normal / np.linalg.norm(step), -1, 1))))
    if angle > TILT_REFUSED:
        raise GeometryError(
            f"the slices are stacked {angle:.1f} degrees off their normal, step ({_numbers(step)}) mm: no gantry tilts "
            "so far; the series is damaged"
        )
    if angle > TILT_DEGREES:
        found.append(f"the gantry was tilted: slices are stacked {angle:.2f} degrees off their normal")
        done.append("the tilt was kept: the affine is sheared, and every voxel is at its true place")
    return angle if angle > 1e-6 else 0.0


def _numbers(vector: Floats) -> str:
    return ", ".join(f"{value:.2f}" for value in vector)


def _places(positions: Iterable[Floats]) -> str:
    """Positions for a message: (x, y, z) in mm, the first few."""
    listed = [f"({_numbers(position)})" for position in positions]
    more = f" and {len(listed) - LISTED} more" if len(listed) > LISTED else ""
    return ", ".join(listed[:LISTED]) + more + " mm"
