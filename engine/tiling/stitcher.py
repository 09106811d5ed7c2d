"""Windows' logits into planes: weighted sums over a rolling slab, one plane deeper than a window.

Windows come in the order of their first plane, so a plane is done as soon as a window begins behind it. The scheduler
then has it decided and its memory used again: the logits of a whole volume never exist.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from voxelrt.tiling.slab import Slab

Floats = NDArray[np.float32]
Plane = tuple[Floats, Floats]  # sums (C, Y, X) and counts (Y, X); their quotient is the mean


def planes_of(depth: int, size_z: int) -> int:
    """The planes of a slab for windows of so many: one more lets a reader hold the last while the next is finished."""
    return min(depth + 1, size_z)


class Stitcher:
    """A rolling slab of sums.

    Parameters
    ----------
    slab : holds the sums; ``planes_of(depth, Z)`` planes.
    size_zyx : of the volume.
    weights : (Z, Y, X) float32 of a window: how much each voxel counts.
    half : round the counts to half precision; the slab does it with the sums.
    """

    def __init__(self, slab: Slab, size_zyx: tuple[int, int, int], weights: Floats, *, half: bool = False) -> None:
        self._slab, self._weights, self._half = slab, weights, half
        self._planes = planes_of(weights.shape[0], size_zyx[0])
        self._counts = np.zeros((self._planes, *size_zyx[1:]), np.float32)

    def add(self, logits: Floats, start_zyx: tuple[int, int, int], share: float = 1.0) -> None:
        """Add a window's logits (C, Z, Y, X) at its place; the shares of a place's mirrored forms make up 1."""
        z, y, x = start_zyx
        depth = logits.shape[1]
        rows, columns = slice(y, y + logits.shape[2]), slice(x, x + logits.shape[3])
        first = 0
        while first < depth:  # once, or twice where the slab's end lies in the window
            slot = (z + first) % self._planes
            count = min(depth - first, self._planes - slot)
            slots, planes = slice(slot, slot + count), slice(first, first + count)
            weights = self._weights[planes]
            self._slab.add(slots, rows, columns, logits[:, planes], weights, share)
            counts = self._counts[slots, rows, columns]
            counts += weights * np.float32(share)
            if self._half:
                counts[...] = counts.astype(np.float16)
            first += count

    def plane(self, z: int) -> Plane:
        """A plane's sums and counts; it and the one before it hold until ``clear``."""
        slot = z % self._planes
        return self._slab.plane(slot), self._counts[slot]

    def clear(self, z: int) -> None:
        """Set a plane to zero, for plane z + planes to take its place."""
        slot = z % self._planes
        self._slab.clear(slot)
        self._counts[slot] = 0
