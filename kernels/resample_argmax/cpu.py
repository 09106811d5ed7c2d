"""resample_argmax on the native library."""

from __future__ import annotations

import numpy as np

from voxelrt.kernels.common import native
from voxelrt.kernels.common.kernel import Array
from voxelrt.kernels.resample_argmax.taps import Taps


def run(
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
    out: Array | None = None,
) -> Array:
    made = native.aligned_empty((rows.at.shape[1], columns.at.shape[1]), dtype) if out is None else out
    native.run_kernel(
        "resample_argmax",
        [
            lower[0],
            upper[0],
            lower[1],
            upper[1],
            rows.at,
            rows.weights,
            columns.at,
            columns.weights,
            np.asarray(values, np.int32),
            head,
        ],
        [made],
        weight=weight,
        regions=regions,
        half=half,
    )
    return made
