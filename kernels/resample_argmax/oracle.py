"""resample_argmax in float64."""

from __future__ import annotations

import numpy as np

from voxelrt.kernels.common.kernel import Array
from voxelrt.kernels.resample_argmax.taps import Taps


def resample_argmax(
    lower: tuple[Array, Array],
    upper: tuple[Array, Array],
    weight: float,
    rows: Taps,
    columns: Taps,
    values: Array,
    *,
    regions: bool = False,
    half: bool = False,
    dtype: type = np.uint8,
    head: Array | None = None,
) -> Array:
    planes = [plane.astype(np.float64) / counts.astype(np.float64) for plane, counts in (lower, upper)]
    plane = (1 - weight) * planes[0] + weight * planes[1] if weight else planes[0]
    along_y, along_x = rows.weights.astype(np.float64)[:, None], columns.weights.astype(np.float64)
    plane = (1 - along_y) * plane[:, rows.at[0]] + along_y * plane[:, rows.at[1]]
    plane = (1 - along_x) * plane[:, :, columns.at[0]] + along_x * plane[:, :, columns.at[1]]
    if head is not None:
        plane = np.einsum("cf,fyx->cyx", head[:, :-1].astype(np.float64), plane) + head[:, -1, None, None]
    if half:
        plane = plane.astype(np.float16)
    if not regions:
        chosen: Array = np.asarray(values)[np.argmax(plane, axis=0)].astype(dtype)
        return chosen
    labels: Array = np.zeros(plane.shape[1:], dtype)
    for c, value in enumerate(values):
        labels[plane[c] > 0] = value
    return labels
