"""Labels on another grid: each label's mask is interpolated and the largest value wins.

Source: ``resize_segmentation`` of batchgenerators 0.25, which nnU-Net 2.8 uses; a tie goes to the label of the nearest
voxel if that is one of those that tie, else to the lowest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxelrt.errors import UnsupportedError
from voxelrt.models.nnunet_settings import Resampling

Labels = NDArray[np.integer[Any]]
Doubles = NDArray[np.float64]


def resample_labels(labels: Labels, shape: tuple[int, ...], how: Resampling, apart: int | None) -> Labels:
    """Bring labels (Z, Y, X) to ``shape``; voxel edges of both grids coincide.

    Parameters
    ----------
    labels : (Z, Y, X), whole numbers.
    shape : of the new grid.
    how : the order of interpolation, 0 or 1.
    apart : the axis that is taken apart, None where there is none. Along it slices are resampled each on its own, and
        the nearest is chosen.

    Returns
    -------
    labels : of `shape` and the same dtype.

    Raises
    ------
    UnsupportedError : another order, or slices that are not chosen by the nearest.
    """
    if how.order > 1 or (apart is not None and how.order_z > 0):
        raise UnsupportedError(f"resampling labels by splines of order {how.order} (z {how.order_z}) is not run")
    if labels.shape == shape:
        return labels
    axis = 0 if apart is None else apart
    front = np.moveaxis(labels, axis, 0)
    wanted = (shape[axis], *(size for index, size in enumerate(shape) if index != axis))
    along, rows, columns = (_taps(old, new) for old, new in zip(front.shape, wanted, strict=True))
    if how.order == 0:
        made = front[np.ix_(along.nearest, rows.nearest, columns.nearest)]
    elif apart is None:
        made = _linear(front, along, rows, columns)
    else:
        one = _taps(1, 1)
        made = np.concatenate([_linear(plane[None], one, rows, columns) for plane in front])[along.nearest]
    return np.ascontiguousarray(np.moveaxis(made, 0, axis))


@dataclass(frozen=True, eq=False)
class _Taps:
    """Along one axis the voxel below each position, the one above, and the second one's weight; in float64."""

    low: NDArray[np.int64]
    high: NDArray[np.int64]
    upper: Doubles
    nearest: NDArray[np.int64]


def _taps(old: int, new: int) -> _Taps:
    at = (np.arange(new, dtype=np.float64) + 0.5) * (old / new) - 0.5
    inside = np.clip(at, 0, old - 1)
    low = np.floor(inside).astype(np.int64)
    nearest = np.clip(np.floor(at + 0.5), 0, old - 1).astype(np.int64)
    return _Taps(low, np.minimum(low + 1, old - 1), inside - low, nearest)


def _linear(labels: Labels, along: _Taps, rows: _Taps, columns: _Taps) -> Labels:
    """Plane by plane, so that no mask exists whole; in float64, as ties decide."""
    made = np.empty((len(along.low), len(rows.low), len(columns.low)), labels.dtype)
    present = [set(np.unique(plane).tolist()) for plane in labels]
    held: dict[tuple[int, int], Doubles] = {}
    for z in range(len(made)):
        low, high, upper = int(along.low[z]), int(along.high[z]), float(along.upper[z])
        held = {key: plane for key, plane in held.items() if key[0] >= low}
        nearest = labels[int(along.nearest[z])][np.ix_(rows.nearest, columns.nearest)]
        best, first = np.zeros(made.shape[1:]), True
        agrees = np.zeros(made.shape[1:], bool)  # the nearest voxel's label is one of the best so far
        for value in sorted(present[low] | present[high]):
            score = np.zeros(made.shape[1:])
            for plane, share in ((low, 1 - upper), (high, upper)):
                if share == 0 or value not in present[plane]:
                    continue
                if (plane, value) not in held:
                    held[plane, value] = _flat(labels[plane] == value, rows, columns)
                score += share * held[plane, value]
            better, level = (score > best) | first, score == best
            agrees = np.where(better, nearest == value, agrees | (level & (nearest == value)))
            made[z][better] = value
            best, first = np.maximum(best, score), False
        made[z][agrees] = nearest[agrees]
    return made


def _flat(mask: NDArray[np.bool_], rows: _Taps, columns: _Taps) -> Doubles:
    values, down = mask.astype(np.float64), rows.upper[:, None]
    values = (1 - down) * values[rows.low] + down * values[rows.high]
    made: Doubles = (1 - columns.upper) * values[:, columns.low] + columns.upper * values[:, columns.high]
    return made
