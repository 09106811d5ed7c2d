"""Connected components of a mask, by runs: a run is a stretch of voxels along x, and runs that touch are joined."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


def largest_component(mask: NDArray[Any]) -> NDArray[np.bool_]:
    """The largest connected component of a mask; of equally large ones the first in array order.

    Parameters
    ----------
    mask
        (Z, Y, X); what is not 0 belongs to it. Voxels are neighbours where they share a face.

    Returns
    -------
    component : (Z, Y, X) bool; empty if the mask is.
    """
    return _largest(mask, corners=False, ties=False)


def largest_touching(mask: NDArray[Any]) -> NDArray[np.bool_]:
    """The largest component where voxels that share a corner are neighbours; of equally large ones all (nnU-Net)."""
    return _largest(mask, corners=True, ties=True)


def fill_holes(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """A mask (Z, Y, X) with all that cannot be reached from outside through faces."""
    around = np.pad(~mask, 1, constant_values=True)
    depth, height, width = around.shape
    row, start, end = _runs(around)
    root = _roots(row, start, end, height, width, corners=False)
    outside = np.zeros((depth * height, width + 1), np.int8)
    reached = root == root[0]  # the first run is a corner of the padding
    np.add.at(outside, (row[reached], start[reached]), 1)
    np.add.at(outside, (row[reached], end[reached]), -1)
    free = np.cumsum(outside[:, :-1], axis=1, dtype=np.int8).astype(bool).reshape(around.shape)
    filled: NDArray[np.bool_] = ~free[1:-1, 1:-1, 1:-1]
    return filled


def _runs(mask: NDArray[Any]) -> tuple[Ints, Ints, Ints]:
    """Row, begin and end of every run, in array order."""
    depth, height, width = mask.shape
    rows = np.zeros((depth * height, width + 2), np.int8)
    rows[:, 1:-1] = (mask != 0).reshape(-1, width)
    edges = np.diff(rows, axis=1)
    # Both in row order, so that the n-th beginning belongs to the n-th end.
    row, start = np.nonzero(edges == 1)
    _, end = np.nonzero(edges == -1)
    return row, start, end


def _largest(mask: NDArray[Any], *, corners: bool, ties: bool) -> NDArray[np.bool_]:
    depth, height, width = mask.shape
    row, start, end = _runs(mask)
    result = np.zeros((depth * height, width + 1), np.int8)
    if row.size:
        root = _roots(row, start, end, height, width, corners)
        sizes = np.bincount(root, weights=end - start, minlength=row.size)
        kept = sizes[root] == sizes.max() if ties else root == int(np.argmax(sizes))
        result[row[kept], start[kept]] += 1
        result[row[kept], end[kept]] -= 1
    filled: NDArray[np.bool_] = np.cumsum(result[:, :-1], axis=1, dtype=np.int8).astype(bool).reshape(mask.shape)
    return filled


def _roots(row: Ints, start: Ints, end: Ints, height: int, width: int, corners: bool) -> Ints:
    """For every run the first run of its component."""
    first, last, always = row % height == 0, row % height == height - 1, np.ones(row.size, bool)
    steps = [(1, ~last), (height, always)]
    if corners:
        steps += [(height - 1, ~first), (height + 1, ~last)]
    pairs = [_touching(row, start, end, step, width, has_next, corners) for step, has_next in steps]
    a, b = (np.concatenate([pair[side] for pair in pairs]) for side in (0, 1))
    parent = np.arange(row.size)
    while True:
        first, second = parent[a], parent[b]
        differ = first != second
        if not differ.any():
            return parent
        low, high = np.minimum(first, second)[differ], np.maximum(first, second)[differ]
        np.minimum.at(parent, high, low)
        while True:
            jumped = parent[parent]
            if np.array_equal(jumped, parent):
                break
            parent = jumped


def _touching(
    row: Ints, start: Ints, end: Ints, step: int, width: int, has_next: NDArray[np.bool_], corners: bool
) -> tuple[Ints, Ints]:
    """All pairs (run, run in the row ``step`` further) that share a face, or a corner. A run is [start, end)."""
    stride = width + 2
    begins, ends = row * stride + start, row * stride + end
    lowest = np.searchsorted(ends, begins + step * stride, side="left" if corners else "right")
    highest = np.searchsorted(begins, ends + step * stride, side="right" if corners else "left")
    count = np.where(has_next, np.maximum(highest - lowest, 0), 0)
    first = np.repeat(np.arange(row.size), count)
    within = np.arange(int(count.sum())) - np.repeat(np.cumsum(count) - count, count)
    return first, np.repeat(lowest, count) + within
