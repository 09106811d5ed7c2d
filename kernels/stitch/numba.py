"""stitch in numba: a row of a channel after the other."""

from __future__ import annotations

import numba
import numpy as np

from voxelrt.kernels.common.kernel import Array
from voxelrt.kernels.common.numba_parts import in_parts

# Arrays of any strides: slabs, mirrored views and whole arrays need no code of their own.
_4, _3 = "float32[:,:,:,:]", "float32[:,:,:]"


@numba.njit(f"void(int64, int64, {_4}, {_4}, {_3}, float32, {_4})", nogil=True, cache=True)
def _rows(begin, end, sums, logits, weights, share, out):
    channels, rows, columns = sums.shape[1:]
    for line in range(begin, end):
        y, c, z = line % rows, line // rows % channels, line // rows // channels
        for x in range(columns):
            out[z, c, y, x] = sums[z, c, y, x] + share * weights[z, y, x] * logits[c, z, y, x]


def run(
    sums: Array,
    logits: Array,
    weights: Array,
    *,
    share: float = 1.0,
    half: bool = False,
    out: Array | None = None,
) -> Array:
    made = np.empty(sums.shape, np.float32) if out is None else out
    z, c, y, _ = sums.shape
    given = [np.asarray(a, np.float32) for a in (sums, logits, weights)]
    in_parts(_rows, z * c * y, *given, np.float32(share), made)
    if half:
        made[...] = made.astype(np.float16)
    return made
