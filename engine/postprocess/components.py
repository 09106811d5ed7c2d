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
    depth, height, width = mask.shape
    rows = np.zeros((depth * height, width + 2), np.int8)
    rows[:, 1:-1] = (mask != 0).reshape(-1, width)
    edges = np.diff(rows, axis=1)
    # Both in row order, so that the n-th beginning belongs to the n-th end.
    row, start = np.nonzero(edges == 1)
    _, end = np.nonzero(edges == -1)
    result = np.zeros((depth * height, width + 1), np.int8)
    if row.size:
        root = _roots(row, start, end, height, width)
        sizes = np.bincount(root, weights=end - start, minlength=row.size)
        kept = root == int(np.argmax(sizes))
        result[row[kept], start[kept]] += 1
        result[row[kept], end[kept]] -= 1
    filled: NDArray[np.bool_] = np.cumsum(result[:, :-1], axis=1, dtype=np.int8).astype(bool).reshape(mask.shape)
    return filled


def _roots(row: Ints, start: Ints, end: Ints, height: int, width: int) -> Ints:
    """For every run the first run of its component."""
    pairs = [_touching(row, start, end, 1, width, (row % height) != height - 1)]
    pairs.append(_touching(row, start, end, height, width, np.ones(row.size, bool)))
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
    row: Ints, start: Ints, end: Ints, step: int, width: int, has_next: NDArray[np.bool_]
) -> tuple[Ints, Ints]:
    """All pairs (run, run in the row ``step`` further) that share a face. A run is [start, end)."""
    stride = width + 2
    begins, ends = row * stride + start, row * stride + end
    lowest = np.searchsorted(ends, begins + step * stride, side="right")
    highest = np.searchsorted(begins, ends + step * stride, side="left")
    count = np.where(has_next, np.maximum(highest - lowest, 0), 0)
    first = np.repeat(np.arange(row.size), count)
    within = np.arange(int(count.sum())) - np.repeat(np.cumsum(count) - count, count)
    return first, np.repeat(lowest, count) + within
