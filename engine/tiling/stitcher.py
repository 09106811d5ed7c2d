"""Windows' logits into planes: a weighted mean over a rolling slab, no deeper than a window.

Windows come in the order of their first plane, so a plane is done as soon as a window begins behind it. It is then
handed on and its memory used again: the logits of a whole volume never exist.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


class Stitcher:
    """A rolling slab of sums.

    Parameters
    ----------
    channels : of the logits.
    size_zyx : of the volume.
    weights : (Z, Y, X) float32 of a window: how much each voxel counts.
    """

    def __init__(self, channels: int, size_zyx: tuple[int, int, int], weights: Floats) -> None:
        self._depth = weights.shape[0]
        self._size, self._weights, self._done = size_zyx, weights, 0
        self._sums = np.zeros((self._depth, channels, *size_zyx[1:]), np.float32)
        self._norms = np.zeros((self._depth, *size_zyx[1:]), np.float32)

    @property
    def bytes(self) -> int:
        """The memory of the slab."""
        return self._sums.nbytes + self._norms.nbytes

    def add(self, logits: Floats, start_zyx: tuple[int, int, int]) -> None:
        """Add a window's logits (C, Z, Y, X) at its place."""
        z, y, x = start_zyx
        rows, columns = slice(y, y + logits.shape[2]), slice(x, x + logits.shape[3])
        for plane in range(self._depth):
            slot, weights = (z + plane) % self._depth, self._weights[plane]
            self._sums[slot, :, rows, columns] += logits[:, plane] * weights
            self._norms[slot, rows, columns] += weights

    def before(self, z: int) -> Iterator[Floats]:
        """The planes before z that are not out yet, in order, each (C, Y, X); a plane holds until the next is asked."""
        while self._done < min(z, self._size[0]):
            slot = self._done % self._depth
            self._sums[slot] /= self._norms[slot]
            yield self._sums[slot]
            self._sums[slot] = 0
            self._norms[slot] = 0
            self._done += 1

    def rest(self) -> Iterator[Floats]:
        """The planes that are left once every window is in."""
        yield from self.before(self._size[0])
