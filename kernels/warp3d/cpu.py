"""warp3d on the native library."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from voxelrt.errors import ShapeError, UsageError
from voxelrt.kernels.common import native
from voxelrt.kernels.common.kernel import Array
from voxelrt.kernels.warp3d.codes import MODES, PADDINGS

_FIELDS = ("float32", "float16", "bfloat16")


def run(
    volume: Array,
    displacement: Array | None = None,
    *,
    affine: Array | None = None,
    matrix: Array | None = None,
    shape: Sequence[int] | None = None,
    mode: str = "linear",
    padding: str = "zeros",
    out: Array | None = None,
) -> Array:
    for word, words, what in ((mode, MODES, "mode"), (padding, PADDINGS, "padding")):
        if word not in words:
            raise UsageError(f"{what} is {word!r}; it is one of {', '.join(words)}")
    axes = volume.ndim - 2
    if axes not in (2, 3):
        raise ShapeError(f"a volume is (N, C, Z, Y, X) or (N, C, Y, X); this one has the shape {volume.shape}")
    if displacement is not None and displacement.dtype.name not in _FIELDS:
        displacement = displacement.astype(np.float32)
    size = displacement.shape[2:] if displacement is not None else tuple(shape or volume.shape[2:])
    made = native.aligned_empty((*volume.shape[:2], *size), volume.dtype) if out is None else out
    rows = None if affine is None else np.ascontiguousarray(affine, np.float64)
    native.run_kernel(
        "warp3d",
        [_rows(volume), displacement, rows[None] if rows is not None and rows.ndim == 2 else rows],
        [made],
        mode=MODES.index(mode),
        padding=PADDINGS.index(padding),
        matrix=full_matrix(matrix, axes).ravel(),
    )
    return made


def full_matrix(matrix: Array | None, axes: int) -> Array:
    """A matrix of the spatial axes as a 3×3 one."""
    full = np.eye(3)
    if matrix is not None:
        full[3 - axes :, 3 - axes :] = matrix
    return full


def _rows(volume: Array) -> Array:
    """The volume, copied where its rows have gaps or it is walked backwards."""
    backwards = any(s < 0 for s in volume.strides)
    gaps = volume.shape[-1] > 1 and volume.strides[-1] != volume.itemsize
    return np.ascontiguousarray(volume) if backwards or gaps else volume
