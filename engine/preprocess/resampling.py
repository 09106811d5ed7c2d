"""A volume on another grid as nnU-Net v2 resamples it, plane by plane (its ``preprocessing/resampling``).

An axis is one matrix. Slices that are far apart are resampled each on its own and then along their axis.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from voxelrt.kernels import matmul
from voxelrt.models.nnunet_settings import Resampling
from voxelrt.preprocess.interpolation import Interpolation, interpolation_matrix, spline_matrix
from voxelrt.preprocess.scaling import Floats, Scaling
from voxelrt.runtime.scratch import Scratch


@dataclass(frozen=True, eq=False)
class Ways:
    """One matrix an axis, None where it stays as it is; and the axis taken apart, for bounds plane by plane."""

    matrices: tuple[Floats | None, Floats | None, Floats | None]
    apart: int | None
    clip: bool

    def in_plane(self, plane: Floats) -> Floats:
        """A plane (Y, X) with the rows and columns of the new grid."""
        _, rows, columns = self.matrices
        plane = plane if columns is None else matmul(plane, columns, transpose_b=True)
        return plane if rows is None else matmul(rows, plane)


def resampling_ways(
    how: Resampling, old: tuple[int, ...], new: tuple[int, ...], spacing: tuple[float, ...], target: tuple[float, ...]
) -> Ways:
    """How an image of a size and spacing is brought to another."""
    if old == new:
        return Ways((None, None, None), None, False)
    apart = coarse_axis(how, spacing, target)
    made: list[Floats | None] = []
    for axis, (n, m) in enumerate(zip(old, new, strict=True)):
        order = how.order_z if axis == apart else how.order
        positions = (np.arange(m, dtype=np.float64) + 0.5) * (n / m) - 0.5
        # Even where the size stays, what is evaluated at its own voxels stays: no matrix.
        made.append(None if n == m else _matrix(positions, n, order))
    return Ways((made[0], made[1], made[2]), apart, how.order > 1)


def _matrix(positions: NDArray[np.float64], size: int, order: int) -> Floats:
    if order > 1:
        return spline_matrix(positions, size, order).astype(np.float32)
    kind: Interpolation = "linear" if order else "nearest"
    return interpolation_matrix(positions, size, kind, zeros_outside=False).astype(np.float32)


def coarse_axis(how: Resampling, spacing: tuple[float, ...], target: tuple[float, ...]) -> int | None:
    """The axis along which slices are resampled apart from their planes, None where there is none."""
    chosen = None
    if how.separate_z is None:
        for one in (spacing, target):
            if max(one) / min(one) > how.anisotropy_threshold:
                chosen = one
                break
    elif how.separate_z:
        chosen = spacing
    if chosen is None:
        return None
    axes = [axis for axis, value in enumerate(chosen) if value == max(chosen)]
    return axes[0] if len(axes) == 1 else None


def resample(
    scaled: Scaling, old: tuple[int, ...], ways: Ways, out: Floats, scratch: Scratch | None, at_once: int
) -> None:
    """Planes of `old` on the new grid, into `out` (Z, Y, X), which lies in the scratch file if there is one.

    Along the first axis as many rows are mixed at once as `at_once` bytes hold, at least one. A spline never goes past
    the values of the image, or of its slice, that it is of.
    """
    along = ways.matrices[0]
    if ways.apart in (1, 2):  # slices lie across the planes: all of them at once
        image = np.stack([scaled(z) for z in range(old[0])])
        out[:] = _apart(image, ways, ways.apart)
        return
    middle, own = out, None
    if along is not None:
        between = (old[0], *out.shape[1:])
        own = None if scratch is None else Scratch()  # ends with this
        middle = np.empty(between, np.float32) if own is None else own.empty(between, np.float32)
    lowest, highest = np.inf, -np.inf
    for z in range(old[0]):
        plane = scaled(z)
        low, high = plane.min(), plane.max()
        lowest, highest = min(lowest, low), max(highest, high)
        middle[z] = ways.in_plane(plane)
        if ways.clip and ways.apart == 0:
            np.clip(middle[z], low, high, out=middle[z])
        _let_go(scratch, own)
    if along is not None:
        rows = max(1, at_once // (4 * old[0] * out.shape[2]))
        for first in range(0, out.shape[1], rows):  # some rows of all planes at a time
            _mix_rows(along, middle, out, slice(first, first + rows), own, scratch)
    if ways.clip and ways.apart is None:
        for plane in out:
            np.clip(plane, lowest, highest, out=plane)
            _let_go(scratch, own)


def _mix_rows(
    along: Floats, middle: Floats, out: Floats, part: slice, own: Scratch | None, scratch: Scratch | None
) -> None:
    """Some rows of all planes along the first axis; what it takes beside them goes when it is done."""
    read = np.empty((len(middle), *middle[0, part].shape), np.float32)
    for into, plane in zip(read, middle, strict=True):  # the system maps more than is looked at
        into[...] = plane[part]
        _let_go(own)
    mixed = matmul(along, read.reshape(len(middle), -1)).reshape(len(out), *read.shape[1:])
    for plane, made in zip(out, mixed, strict=True):
        plane[part] = made
        _let_go(scratch)


def _let_go(*scratches: Scratch | None) -> None:
    for one in scratches:
        if one is not None:
            one.let_go()


def _apart(image: Floats, ways: Ways, apart: int) -> Floats:
    """(Z, Y, X) on the new grid, slices along the axis `apart` each on their own."""
    inner = tuple(axis for axis in range(3) if axis != apart)
    lowest, highest = image.min(axis=inner, keepdims=True), image.max(axis=inner, keepdims=True)
    for axis in reversed(inner):
        image = _along(image, ways.matrices[axis], axis)
    if ways.clip:
        image = np.clip(image, lowest, highest)
    return _along(image, ways.matrices[apart], apart)


def _along(image: Floats, matrix: Floats | None, axis: int) -> Floats:
    if matrix is None:
        return image
    turned = np.moveaxis(np.tensordot(matrix, image, axes=(1, axis)), 0, axis)
    return np.ascontiguousarray(turned, np.float32)
