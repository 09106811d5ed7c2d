"""Series and their volumes: what is in a study, before any pixel is read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxelrt.errors import GeometryError, InputError, UsageError
from voxelrt.io.dicom.frames import Frame, frames_of
from voxelrt.io.dicom.geometry import GeometryReport, Placement, place_slices
from voxelrt.io.dicom.header import Header
from voxelrt.io.dicom.planar import is_picture, name_pictures, place_picture
from voxelrt.io.dicom.slide import is_slide
from voxelrt.io.dicom.split import PLACE_MM, split_volumes

# Slices of one volume must agree in these; orientation and spacing up to rounding.
SAME_ORIENTATION = 1e-4
SAME_SPACING = 1e-4
LISTED, LISTED_FILES = 40, 6

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class SeriesVolume:
    """One volume of a series: its planes in the order of z, and the grid that they lie on.

    Parameters
    ----------
    name
        What tells it from the others of its series, such as "b-value 1000 s/mm2"; "" for the only one.
    frames
        One for each plane; of an interpolated plane the nearer slice.
    placement
        Affine, report, and the planes that are interpolated.
    """

    name: str
    frames: tuple[Frame, ...] = field(repr=False)
    sources: tuple[Frame, ...] = field(repr=False)
    placement: Placement

    @property
    def affine(self) -> Floats:
        """(4, 4) voxel (x, y, z) -> LPS mm."""
        return self.placement.affine

    @property
    def report(self) -> GeometryReport:
        """What was found of the geometry and done about it."""
        return self.placement.report

    @property
    def shape_zyx(self) -> tuple[int, int, int]:
        """Planes, rows, columns."""
        return (len(self.frames), *self.frames[0].size)


@dataclass(frozen=True, eq=False)
class Series:
    """The images of one SeriesInstanceUID.

    Parameters
    ----------
    index
        From 1: its place in the study's list.
    headers
        One for each file, in the order of the files' names.
    """

    index: int
    headers: tuple[Header, ...] = field(repr=False)

    @property
    def uid(self) -> str:
        """SeriesInstanceUID, "" where the files do not say."""
        return self.headers[0].text("SeriesInstanceUID")

    @property
    def number(self) -> int | None:
        """SeriesNumber."""
        text = self.headers[0].text("SeriesNumber")
        return int(text) if text.lstrip("+-").isdigit() and len(text) <= 12 else None

    @property
    def modality(self) -> str:
        """DICOM's word, "" where it is none."""
        return self.headers[0].code("Modality")

    @property
    def description(self) -> str:
        """SeriesDescription: free text that may name anybody; only for comparing with patterns."""
        return self.headers[0].text("SeriesDescription")

    @property
    def title(self) -> str:
        """What it is called in messages."""
        number = "without number" if self.number is None else str(self.number)
        count = len(self.headers)
        what = f"{count} {'image' if count == 1 else 'images'}"
        return f"{self.modality or 'unknown modality'} series {number} ({what})"

    @cached_property
    def pictures(self) -> bool:
        """Whether it holds images without a place in the patient: each file is then a volume of its own."""
        return all(is_picture(header) for header in self.headers)

    @cached_property
    def slide(self) -> bool:
        """Whether it is a whole slide, whose files are levels of tiles."""
        return all(is_slide(header) for header in self.headers)

    @cached_property
    def frames(self) -> tuple[Frame, ...]:
        """All planes, unsorted. Raises InputError if a file's are damaged."""
        return tuple(frame for header in self.headers for frame in frames_of(header))

    @cached_property
    def groups(self) -> tuple[tuple[str, tuple[Frame, ...]], ...]:
        """Its volumes by name, each with its frames, unsorted.

        Raises
        ------
        GeometryError : frames that are not placed, or differ in size, orientation, spacing or frame of reference.
        InputError : damaged files.
        """
        if self.slide:
            raise InputError("a whole slide has levels, not volumes: one is read by its number (--volume, volume=...)")
        if self.pictures:
            names = name_pictures(self.headers)
            return tuple((name, tuple(frames_of(header))) for name, header in zip(names, self.headers, strict=True))
        positions, orientation, _ = common_geometry(self.frames)
        normal = np.cross(orientation[:3], orientation[3:])
        along = np.sort(positions @ normal)
        # Places are numbered by the gaps between them, so that rounding cannot put one place into two.
        steps = np.concatenate([[0], np.cumsum(np.diff(along) > PLACE_MM)])
        places = steps[np.searchsorted(along, positions @ normal)]
        split = split_volumes(self.frames, [int(place) for place in places])
        return tuple((name, tuple(self.frames[index] for index in members)) for name, members in split)

    @property
    def volume_names(self) -> tuple[str, ...]:
        """The names of its volumes; ("",) for a series of one. Raises as `groups`."""
        return tuple(name for name, _ in self.groups)

    def volume(self, which: str | int | None = None, *, repair: bool = False) -> SeriesVolume:
        """One volume, placed.

        Parameters
        ----------
        which
            Its name, or its number from 1, where the series holds several.
        repair
            Leave out repeated slices and interpolate missing and uneven ones, instead of refusing them.

        Raises
        ------
        UsageError : no such volume.
        InputError : several volumes and no choice, damaged files.
        GeometryError : slices that make no even grid.
        """
        name, frames = self._chosen(which)
        if self.pictures:
            return SeriesVolume(name, frames, frames, place_picture(frames))
        positions, orientation, spacing = common_geometry(frames)
        thickness = frames[0].header.number_of("SliceThickness")
        placement = place_slices(positions, orientation, spacing, thickness, repair=repair)
        return SeriesVolume(name, tuple(frames[i] for i in placement.order), frames, placement)

    def _chosen(self, which: str | int | None) -> tuple[str, tuple[Frame, ...]]:
        names = self.volume_names
        listed = ", ".join(f"{number}: {name}" for number, name in enumerate(names[:LISTED], start=1))
        listed += f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
        if which is None or (len(names) == 1 and which in (1, "1", names[0])):
            if len(names) > 1:
                what = "pictures" if self.pictures else "volumes"
                raise InputError(
                    f"the series holds {len(names)} {what} ({listed}): choose one by its name or number (--volume, "
                    'volume=...), or "all" for a 4-D image'
                )
            return self.groups[0]
        number = int(which) if isinstance(which, int) or which.isdigit() else 0
        if which in names:
            return self.groups[names.index(str(which))]
        if 1 <= number <= len(names):
            return self.groups[number - 1]
        held = listed if len(names) > 1 else "one"
        raise UsageError(f"the series has no volume {str(which)[:40]!r}; it holds {held}")


def common_geometry(frames: Sequence[Frame]) -> tuple[Floats, Floats, tuple[float, float]]:
    """Positions (n, 3), the one orientation (6,) and PixelSpacing of frames that must agree in all but position.

    Raises
    ------
    GeometryError : frames that are not placed, or that differ in orientation, size, spacing or frame of reference.
    """
    positions = np.array([_placed(frame, frame.position, "ImagePositionPatient") for frame in frames])
    orientations = np.array([_placed(frame, frame.orientation, "ImageOrientationPatient") for frame in frames])
    spacings = np.array([_placed(frame, frame.spacing, "PixelSpacing") for frame in frames])
    sizes = np.array([frame.size for frame in frames])
    references = np.array([frame.header.text("FrameOfReferenceUID") for frame in frames])
    # The stray slices are to be named, not the rest that differ from a stray one that happened to come first.
    usual = _commonest(
        list(zip(map(tuple, orientations), map(tuple, sizes), map(tuple, spacings), references, strict=True))
    )
    checks = (
        ("orientation", np.abs(orientations - orientations[usual]).max(axis=1) > SAME_ORIENTATION),
        ("size in rows and columns", (sizes != sizes[usual]).any(axis=1)),
        ("pixel spacing", np.abs(spacings - spacings[usual]).max(axis=1) > SAME_SPACING),
        ("frame of reference", references != references[usual]),
    )
    for what, differs in checks:
        if differs.any():
            x, y, z = positions[int(np.flatnonzero(differs)[0])]
            kinds = _directions(orientations) if what == "orientation" else ""
            raise GeometryError(
                f"the series mixes slices of different {what}{kinds}: {int(differs.sum())} of {len(frames)} differ "
                f"from the others, one at ({x:.2f}, {y:.2f}, {z:.2f}) mm; "
                f"{_without([frames[int(k)] for k in np.flatnonzero(differs)])}"
            )
    return positions, orientations[usual], (float(spacings[usual][0]), float(spacings[usual][1]))


def _directions(orientations: Floats) -> str:
    """How many slices lie which way, such as " (3 sagittal, 1 axial)"; a localiser has some of each."""
    normals = np.abs(np.cross(orientations[:, :3], orientations[:, 3:]))
    counts = Counter(("sagittal", "coronal", "axial")[int(axis)] for axis in normals.argmax(axis=1))
    return f" ({', '.join(f'{count} {name}' for name, count in counts.most_common())})" if len(counts) > 1 else ""


def _without(frames: Sequence[Frame]) -> str:
    """What to do about stray frames. Their files are told by numbers because names may name a patient."""
    if sum({id(frame.header): frame.header.frames for frame in frames}.values()) > len(frames):
        return "they lie in one file with the others, which so is no volume"
    numbers = list(dict.fromkeys(frame.header.number for frame in frames))
    more = f" and {len(numbers) - LISTED_FILES} more" if len(numbers) > LISTED_FILES else ""
    return f"give a folder without {', '.join(numbers[:LISTED_FILES])}{more} (counted in the order of their names)"


def _placed(frame: Frame, values: tuple[float, ...] | None, name: str) -> tuple[float, ...]:
    if values is None:
        raise GeometryError(f"{frame.name} has no {name}, so its voxels cannot be placed in the patient")
    return values


def _commonest(keys: list[Any]) -> int:
    """The index of the first of the most frequent keys."""
    return keys.index(Counter(keys).most_common(1)[0][0])
