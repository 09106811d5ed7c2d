"""resample3d on the native library: an affine warp; labels by ``resample_argmax``, plane by plane."""

from __future__ import annotations

import numpy as np

from voxelrt.kernels.common.kernel import Array
from voxelrt.kernels.resample3d.oracle import positions
from voxelrt.kernels.resample_argmax import resample_argmax, taps
from voxelrt.kernels.warp3d import warp3d


def run(volume: Array, size: tuple[int, ...], *, order: int = 1, grid: str = "edges", argmax: bool = False) -> Array:
    batch = volume if volume.ndim == 5 else volume[None]
    found = (
        np.stack([_labels(one, size, order, grid) for one in batch])
        if argmax
        else warp3d(batch, affine=_affine(batch.shape[2:], size, grid), shape=size, order=order, padding="border")
    )
    return found if volume.ndim == 5 else found[0]


def _affine(source: tuple[int, ...], size: tuple[int, ...], grid: str) -> Array:
    """Voxels of the answer to voxels of the source, (3, 4)."""
    rows = np.zeros((3, 4))
    for axis, (n, m) in enumerate(zip(source, size, strict=True)):
        first, *rest = positions(n, m, grid)[:2]
        rows[axis, axis] = rest[0] - first if rest else 0.0
        rows[axis, 3] = first
    return rows


def _labels(logits: Array, size: tuple[int, ...], order: int, grid: str) -> Array:
    classes, *source = logits.shape
    ways = [taps(positions(n, m, grid), n, linear=order == 1) for n, m in zip(source, size, strict=True)]
    labels = np.empty(size, np.uint8 if classes <= 256 else np.uint16)
    counts, values = np.ones(source[1:], np.float32), np.arange(classes)
    for z, plane in enumerate(labels):
        lower, upper = ((np.ascontiguousarray(logits[:, at]), counts) for at in ways[0].at[:, z])
        weight = float(ways[0].weights[z])
        resample_argmax(lower, upper, weight, ways[1], ways[2], values, dtype=labels.dtype.type, out=plane)
    return labels
