"""What the GPU backends of warp3d do alike: which calls they take, and a 2-D or 3-D call as a 3-D one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import ml_dtypes
import numpy as np

from voxelrt.errors import ShapeError, UnsupportedError, UsageError
from voxelrt.kernels.common.gpu.program import Program, Tensor
from voxelrt.kernels.common.kernel import Array
from voxelrt.kernels.warp3d.codes import PADDINGS
from voxelrt.kernels.warp3d.cpu import full_matrix

FLOATS = (np.dtype(np.float32), np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16))
# An axis of the volume; a float32 then still counts its voxels where a displacement leads far outside.
LONGEST = 1 << 22


def check(volume: Array, displacement: Array | None, mode: str, padding: str, out: Array | None, backend: str) -> None:
    """Refuse by name what the GPU backends do not do.

    Raises
    ------
    UnsupportedError : a mode, dtype or size that they do not have, or a buffer for the answer.
    UsageError : an unknown padding.
    ShapeError : the volume has other axes.
    """
    if padding not in PADDINGS:
        raise UsageError(f"padding is {padding!r}; it is one of {', '.join(PADDINGS)}")
    if volume.ndim not in (4, 5):
        raise ShapeError(f"a volume is (N, C, Z, Y, X) or (N, C, Y, X); this one has the shape {volume.shape}")
    advice = "use backend='cpu'"
    if out is not None:
        raise UnsupportedError(f"warp3d on {backend} does not write to a given array: leave out away or {advice}")
    if mode not in ("linear", "nearest"):
        raise UnsupportedError(f"warp3d on {backend} has no mode {mode!r}, only linear and nearest: {advice}")
    if mode == "linear" and volume.dtype not in FLOATS:
        raise UnsupportedError(f"warp3d on {backend} interpolates no {volume.dtype}, only floats to 32 bits: {advice}")
    if volume.dtype.itemsize > 4 or volume.dtype.kind == "c":
        raise UnsupportedError(f"warp3d on {backend} takes no {volume.dtype}, only up to 32 bits: {advice}")
    if displacement is not None and displacement.dtype not in FLOATS:
        raise UnsupportedError(f"warp3d on {backend} takes no displacement of {displacement.dtype}: {advice}")
    if max(volume.shape[2:]) > LONGEST:
        raise UnsupportedError(f"warp3d on {backend} takes axes of up to {LONGEST} voxels, not {volume.shape}")


@dataclass
class Operands:
    """A call's operands on the device.

    Parameters
    ----------
    answer, batch, size : of the answer: its memory, its items, and z, y, x.
    tensors, numbers : what both kernels take first, in the order of their signatures.
    """

    answer: Tensor
    batch: int
    size: tuple[int, int, int]
    tensors: tuple[Tensor, ...] = ()
    numbers: tuple[int, ...] = ()


def operands(
    made: Program,
    volume: Array,
    displacement: Array | None,
    affine: Array | None,
    matrix: Array | None,
    shape: Sequence[int] | None,
    mode: str,
) -> Operands:
    """Put a call's operands on the device; other words than floats where nothing is interpolated."""
    axes = volume.ndim - 2
    given = tuple(displacement.shape[2:]) if displacement is not None else tuple(shape or volume.shape[2:])
    batch, channels = volume.shape[:2]
    words = volume if mode == "linear" else volume.view(np.dtype(f"u{volume.dtype.itemsize}"))
    answer = made.output((batch, channels, *given), words.dtype)
    made.finish(lambda found: found.view(volume.dtype))
    on = Operands(answer, batch, spatial(given, 1))
    if answer.size == 0:
        return on
    source, rows = made.input(words), made.input(full_affine(affine, axes))
    scale = made.input(two_floats(full_matrix(matrix, axes)))
    field = source if displacement is None else made.input(displacement)
    numbers = [channels, *on.size, *spatial(source.shape[2:], 1)]
    numbers += [*source.strides[:2], *spatial(source.strides[2:], 0)]
    numbers += [field.strides[0] if field.shape[0] > 1 else 0, field.strides[1], *spatial(field.strides[2:], 0)]
    numbers += [rows.strides[0] if rows.shape[0] > 1 else 0]
    on.tensors, on.numbers = (answer, source, field, rows, scale), tuple(numbers)
    return on


def spatial(values: Sequence[int], flat: int) -> tuple[int, int, int]:
    """(y, x) or (z, y, x) as three, with `flat` in the place of a z that is not there."""
    z, y, x = (flat, *values)[-3:]
    return z, y, x


def full_affine(affine: Array | None, axes: int) -> Array:
    """[A | t] of every batch element, or of one for all, as (N, 3, 4) float64."""
    given = np.eye(axes, axes + 1) if affine is None else np.asarray(affine, np.float64)
    given = given.reshape(-1, axes, axes + 1)
    full = np.zeros((len(given), 3, 4))
    full[:, :] = np.eye(3, 4)
    full[:, 3 - axes :, 3 - axes :] = given
    return full


def two_floats(matrix: Array) -> Array:
    """(3, 3) float64 as (2, 3, 3) float32 whose sum it is to 48 bits: devices have few units for float64."""
    high = matrix.astype(np.float32)
    return np.stack([high, (matrix - high).astype(np.float32)])


def nan_bits(dtype: np.dtype[np.generic]) -> int:
    """The bits of what a voxel without a position holds: NaN, or 0 for whole numbers."""
    word = np.dtype(f"u{dtype.itemsize}")
    return int(np.array([np.nan], dtype).view(word)[0]) if dtype in FLOATS else 0
