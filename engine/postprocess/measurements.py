"""What a report says of each label: its volume, the intensity under it, its largest diameter."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from voxelrt.errors import GeometryError
from voxelrt.postprocess.sizes import size_in_words
from voxelrt.volume import Volume

Points = NDArray[np.float64]

BLOCK = 256


@dataclass(frozen=True)
class Measured:
    """One label.

    Parameters
    ----------
    value, name
        Of the label; a value without a name is "label 7".
    voxels
        How many.
    volume_ml
        In mL; None of pictures, and of what tells no lengths.
    area_mm2
        In mm², of a single picture that tells the lengths of its plane; else None.
    mean, deviation
        Of the image under it, in the image's units (population deviation); None without an image or voxels.
    diameter_mm
        The largest distance of two points of its surface, in mm; None without voxels, and where lengths are not known.
        The surface is that of the marching-cubes mesh at one half: its points lie half a voxel outside of the outermost
        centres, along the axes (the "maximum 3D diameter" of the Image Biomarker Standardisation Initiative). Of a
        picture within its plane.
    slices
        The first slice on which it is, and the one behind the last, along the array's z; (0, 0) without voxels.
    """

    value: int
    name: str
    voxels: int
    volume_ml: float | None
    mean: float | None
    deviation: float | None
    diameter_mm: float | None
    slices: tuple[int, int] = (0, 0)
    area_mm2: float | None = None

    @property
    def words(self) -> str:
        """Its size as it is shown."""
        return size_in_words(self.voxels, self.volume_ml, self.area_mm2)


def measure(labels: Volume, image: Volume | None = None) -> list[Measured]:
    """One entry for each label but 0, by value; those that have a name and no voxel included.

    Parameters
    ----------
    labels
        (1, Z, Y, X) whole numbers from 0.
    image
        On the same grid; its first channel is measured.

    Raises
    ------
    GeometryError : the image is not on the grid of the labels.
    """
    array = labels.array[0]
    if image is not None and image.shape_zyx != labels.shape_zyx:
        raise GeometryError(f"an image of {image.shape_zyx} voxels is not on the grid of labels {labels.shape_zyx}")
    flat = array.reshape(-1)
    counts = np.bincount(flat)
    boxes = boxes_of(array)
    lengths = _lengths(labels)
    means, deviations = _intensities(array, counts, None if image is None else image.array[0])
    made = []
    for value in sorted((set(np.flatnonzero(counts).tolist()) | set(labels.labels)) - {0}):
        voxels = int(counts[value]) if value < counts.size else 0
        there = voxels > 0
        name = labels.labels.get(value, f"label {value}")
        diameter = largest_diameter(array[boxes[value]] == value, lengths) if there and lengths is not None else None
        known = there and means is not None and deviations is not None
        mean, deviation = (float(means[value]), float(deviations[value])) if known else (None, None)  # type: ignore[index]
        volume_ml, area_mm2 = (None if k is None else voxels * k for k in (labels.voxel_ml, labels.pixel_mm2))
        slices = (boxes[value][0].start, boxes[value][0].stop) if there else (0, 0)
        made.append(Measured(value, name, voxels, volume_ml, mean, deviation, diameter, slices, area_mm2))
    return made


def _lengths(labels: Volume) -> Points | None:
    """The affine by which diameters are measured: of a picture without its depth, which nothing tells."""
    if labels.voxel_ml is not None:
        return labels.affine
    return None if labels.pixel_mm2 is None else labels.affine * np.array([1.0, 1.0, 0.0, 1.0])


def boxes_of(array: NDArray[np.generic]) -> dict[int, tuple[slice, slice, slice]]:
    """Of each value but 0 of (Z, Y, X) the smallest box that holds it."""
    lowest: dict[int, list[int]] = {}
    highest: dict[int, list[int]] = {}
    for z, plane in enumerate(array):
        if not plane.any():
            continue
        for value in np.unique(plane):
            if value == 0:
                continue
            mask = plane == value
            rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
            low, high = [z, int(rows[0]), int(columns[0])], [z, int(rows[-1]), int(columns[-1])]
            key = int(value)
            lowest[key] = [min(a, b) for a, b in zip(lowest.get(key, low), low, strict=True)]
            highest[key] = [max(a, b) for a, b in zip(highest.get(key, high), high, strict=True)]
    return {
        key: tuple(slice(a, b + 1) for a, b in zip(lowest[key], highest[key], strict=True))  # type: ignore[misc]
        for key in lowest
    }


def largest_diameter(mask: NDArray[np.bool_], affine: NDArray[np.float64]) -> float:
    """See :class:`Measured`; the mask (Z, Y, X) holds at least one voxel, only the affine's linear part counts."""
    voxels = _pruned(_row_ends(mask))
    # In half voxels. The hull of a sum is the sum of the hulls: what surrounds the corners of the hull is enough.
    halves = np.concatenate([np.eye(3, dtype=np.int64), -np.eye(3, dtype=np.int64)])
    corners = _pruned(np.unique((2 * voxels[:, None] + halves).reshape(-1, 3), axis=0))
    return _farthest(corners[:, ::-1] / 2 @ affine[:3, :3].T)


def _intensities(
    array: NDArray[np.generic], counts: NDArray[np.int64], image: NDArray[np.generic] | None
) -> tuple[Points, Points] | tuple[None, None]:
    """Mean and deviation by value; plane by plane, so that no copy of the image in float64 is held."""
    if image is None:
        return None, None
    sums, squares = np.zeros(counts.size), np.zeros(counts.size)
    with np.errstate(invalid="ignore", divide="ignore"):
        for plane, values in zip(array, image, strict=True):
            if plane.any():
                sums += np.bincount(plane.reshape(-1), values.reshape(-1).astype(np.float64), counts.size)
        means: Points = sums / counts
        for plane, values in zip(array, image, strict=True):
            if plane.any():
                apart = values.astype(np.float64) - means[plane]
                squares += np.bincount(plane.reshape(-1), (apart**2).reshape(-1), counts.size)
        return means, np.sqrt(squares / counts)


def _row_ends(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The first and the last voxel (z, y, x) of each row that has any."""
    z, y = np.nonzero(mask.any(axis=2))
    rows = mask[z, y]
    first, last = rows.argmax(axis=1), mask.shape[2] - 1 - rows[:, ::-1].argmax(axis=1)
    return np.concatenate([np.stack([z, y, x], axis=1) for x in (first, last)])


def _pruned(points: NDArray[np.int64]) -> NDArray[np.int64]:
    """All corners of the convex hull, and few others."""
    for axis in range(3):
        points = _hull_vertices(points, axis)
    return points


def _hull_vertices(voxels: NDArray[np.int64], axis: int) -> NDArray[np.int64]:
    """Those that are corners of the convex hull of their plane across `axis`: all corners of the whole hull are."""
    rest = [k for k in range(3) if k != axis]
    order = np.lexsort((voxels[:, rest[1]], voxels[:, rest[0]], voxels[:, axis]))
    sorted_ = voxels[order]
    # Of each line only the two ends can be corners.
    line = sorted_[:, [axis, rest[0]]]
    new = np.any(line[1:] != line[:-1], axis=1)
    ends = np.concatenate([[True], new]) | np.concatenate([new, [True]])
    kept = sorted_[ends]
    starts = np.flatnonzero(np.concatenate([[True], kept[1:, axis] != kept[:-1, axis]]))
    found = []
    for begin, end in zip(starts, [*starts[1:], len(kept)], strict=True):
        plane = kept[begin:end][:, rest].tolist()
        found += [begin + k for k in _monotone_chain(plane)]
    corners: NDArray[np.int64] = kept[np.unique(found)]
    return corners


def _monotone_chain(points: list[list[int]]) -> list[int]:
    """Indices of the corners of the convex hull of points sorted by (first, second), after Andrew (1979)."""
    made: list[int] = []
    for order in (range(len(points)), range(len(points) - 1, -1, -1)):
        chain: list[int] = []
        for k in order:
            x, y = points[k]
            while len(chain) > 1:
                (ax, ay), (bx, by) = points[chain[-2]], points[chain[-1]]
                if (bx - ax) * (y - ay) - (by - ay) * (x - ax) > 0:
                    break
                chain.pop()
            chain.append(k)
        made += chain
    return made


def _farthest(points: Points) -> float:
    """The largest distance of two points: the outer ones first, until no pair that is left can be farther."""
    centre = (points.min(axis=0) + points.max(axis=0)) / 2
    points = points - centre
    radii = np.linalg.norm(points, axis=1)
    order = np.argsort(-radii)
    points, radii = points[order], radii[order]
    best = 0.0
    for direction in product((-1, 0, 1), repeat=3):
        along = points @ np.array(direction, np.float64)
        best = max(best, float(np.linalg.norm(points[np.argmax(along)] - points[np.argmin(along)])))
    squares = (points * points).sum(axis=1)
    for begin in range(0, len(points), BLOCK):
        if radii[begin] * 2 <= best:
            break
        count = int(np.searchsorted(-radii, -(best - radii[begin]), side="right"))
        block = slice(begin, min(begin + BLOCK, count))
        apart = squares[block, None] + squares[None, begin:count] - 2 * (points[block] @ points[begin:count].T)
        best = max(best, float(np.sqrt(max(0.0, apart.max(initial=0)))))
    return best
