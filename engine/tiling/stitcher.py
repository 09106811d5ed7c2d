"""Windows' logits into planes: weighted sums over a rolling slab, one plane deeper than a window.

Windows come in the order of their first plane, so a plane is done as soon as a window begins behind it. It is then
handed on and its memory used again: the logits of a whole volume never exist.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from voxelrt.kernels import stitch

Floats = NDArray[np.float32]
Plane = tuple[Floats, Floats]  # sums (C, Y, X) and counts (Y, X); their quotient is the mean


class Stitcher:
    """A rolling slab of sums.

    Parameters
    ----------
    channels : of the logits.
    size_zyx : of the volume.
    weights : (Z, Y, X) float32 of a window: how much each voxel counts.
    """

    def __init__(self, channels: int, size_zyx: tuple[int, int, int], weights: Floats) -> None:
        # The plane more lets a reader hold the last one while the next is being finished.
        self._planes = min(weights.shape[0] + 1, size_zyx[0])
        self._size, self._weights, self._done = size_zyx, weights, 0
        self._sums = np.zeros((self._planes, channels, *size_zyx[1:]), np.float32)
        self._counts = np.zeros((self._planes, *size_zyx[1:]), np.float32)

    @staticmethod
    def bytes_for(channels: int, size_zyx: tuple[int, int, int], depth: int) -> int:
        """The memory of the slab for windows of so many planes."""
        return 4 * (channels + 1) * min(depth + 1, size_zyx[0]) * size_zyx[1] * size_zyx[2]

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
            sums, weights = self._sums[slots, :, rows, columns], self._weights[planes]
            stitch(sums, logits[:, planes], weights, share=share, out=sums)
            self._counts[slots, rows, columns] += weights * np.float32(share)
            first += count

    def before(self, z: int) -> Iterator[Plane]:
        """The planes before z that are not out yet, in order; each, and the one before it, hold until the next."""
        while self._done < min(z, self._size[0]):
            slot = self._done % self._planes
            yield self._sums[slot], self._counts[slot]
            if self._done > 0:
                old = (self._done - 1) % self._planes
                self._sums[old] = 0
                self._counts[old] = 0
            self._done += 1

    def rest(self) -> Iterator[Plane]:
        """The planes that are left once every window is in."""
        yield from self.before(self._size[0])
