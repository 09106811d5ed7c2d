"""pad, obviously: every output element asks where it comes from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from voxelrt.kernels.common.kernel import Array


def _source(index: int, size: int, mode: str) -> int | None:
    if 0 <= index < size:
        return index
    if mode == "constant":
        return None
    if mode == "edge":
        return 0 if index < 0 else size - 1
    if mode == "wrap":
        return index % size
    while not 0 <= index < size:  # reflect at either end until it is inside
        index = 0 if size == 1 else -index if index < 0 else 2 * (size - 1) - index
    return index


def pad(x: Array, pads: Sequence[tuple[int, int]], *, mode: str = "constant", value: float = 0) -> Array:
    x = x[tuple(slice(max(0, -a), n - max(0, -b)) for n, (a, b) in zip(x.shape, pads, strict=True))]
    grown = [(max(0, a), max(0, b)) for a, b in pads]
    shape = [n + a + b for n, (a, b) in zip(x.shape, grown, strict=True)]
    out = np.full(shape, value, x.dtype)
    sources = [
        [_source(i - a, n, mode) for i in range(size)] for n, size, (a, _) in zip(x.shape, shape, grown, strict=True)
    ]
    inside = [[i for i, s in enumerate(row) if s is not None] for row in sources]
    taken = [[s for s in row if s is not None] for row in sources]
    if out.size:
        out[np.ix_(*inside)] = x[np.ix_(*taken)]
    return out
