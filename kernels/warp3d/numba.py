"""warp3d in numba: a voxel's position in float64 once, then all channels by its taps."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numba
import numpy as np

from voxelrt.errors import ShapeError, UsageError
from voxelrt.kernels.common.kernel import Array
from voxelrt.kernels.common.numba_parts import in_parts
from voxelrt.kernels.warp3d.codes import MODES, PADDINGS

_NEAREST, _LINEAR, _BSPLINE, _KEYS, _VOTE = range(5)
_ZEROS, _BORDER, _REFLECT, _REFLECT_EDGES, _BORDER_EDGES, _ZEROS_EDGES = range(6)
_TAPS = np.array([1, 2, 4, 4, 2])


@numba.njit(nogil=True, cache=True)
def _mirrored(at, low, high):
    if high == low:
        return low
    along = (at - low) % (2.0 * (high - low))
    return low + min(along, 2.0 * (high - low) - along)


@numba.njit(nogil=True, cache=True)
def _taps(at, size, mode, padding, index, weight):
    """Of one axis the voxels that count, -1 where there is none, and how much. False: nothing is there at all."""
    last = size - 1.0
    ends = padding == _ZEROS_EDGES or (mode == _BSPLINE and padding == _ZEROS)
    if ends and (at < -0.5 or at >= last + 0.5):
        return False
    beyond = at < -0.5 or at > last + 0.5
    if padding == _BORDER or (ends and mode != _BSPLINE) or (padding == _BORDER_EDGES and beyond):
        at = min(max(at, 0.0), last)
    elif padding == _REFLECT:
        at = _mirrored(at, 0.0, last)
    elif padding == _REFLECT_EDGES:
        at = _mirrored(at, -0.5, last + 0.5)
    else:
        at = min(max(at, -8.0), size + 8.0)
    first = math.floor(at)
    rest = at - first
    count = _TAPS[mode]
    if mode == _NEAREST:
        weight[0] = 1.0
    elif count == 2:
        weight[0], weight[1] = 1.0 - rest, rest
    else:
        first -= 1
        for k in range(4):
            x = abs(rest - (k - 1))
            if mode == _BSPLINE:
                weight[k] = 2.0 / 3.0 - x * x + x * x * x / 2.0 if x < 1.0 else max(2.0 - x, 0.0) ** 3 / 6.0
            elif x <= 1.0:
                weight[k] = (1.25 * x - 2.25) * x * x + 1.0
            else:
                weight[k] = ((-0.75 * x + 3.75) * x - 6.0) * x + 3.0 if x < 2.0 else 0.0
    for k in range(count):
        place = first + k
        if place < 0 or place > last:
            if mode == _BSPLINE or padding == _REFLECT:
                place = _mirrored(place, 0.0, last)
            elif padding == _REFLECT_EDGES:
                place = min(max(_mirrored(place, -0.5, last + 0.5), 0.0), last)
            elif padding == _ZEROS:
                place = -1.0
            else:
                place = min(max(place, 0.0), last)
        index[k] = int(place)
    return True


@numba.njit(nogil=True, cache=True)
def _elected(volume, n, c, index, weight):
    """The label with the most weight; of equal ones the smallest."""
    best, chosen = -1.0, 0.0
    label, share = np.zeros(8), np.empty(8)
    for corner in range(8):
        z, y, x = corner >> 2, corner >> 1 & 1, corner & 1
        share[corner] = weight[0, z] * weight[1, y] * weight[2, x]
        if min(index[0, z], index[1, y], index[2, x]) >= 0:
            label[corner] = volume[n, c, index[0, z], index[1, y], index[2, x]]
    for a in range(8):
        total = 0.0
        for b in range(8):
            if label[b] == label[a]:
                total += share[b]
        if total > best or (total == best and label[a] < chosen):
            best, chosen = total, label[a]
    return chosen


@numba.njit(nogil=True, cache=True)
def _summed(volume, n, c, index, weight, count):
    total = 0.0
    for i in range(count):
        for j in range(count):
            for k in range(count):
                if index[0, i] >= 0 and index[1, j] >= 0 and index[2, k] >= 0:
                    share = weight[0, i] * weight[1, j] * weight[2, k]
                    value = volume[n, c, index[0, i], index[1, j], index[2, k]]
                    if value != 0:
                        total += share * value
    return total


@numba.njit(nogil=True, cache=True)
def _voxel(volume, n, at, mode, padding, out):
    """All channels at one position, wherever it lies; out is (C)."""
    index, weight = np.zeros((3, 4), np.int64), np.zeros((3, 4))
    lost, there = False, True
    for k in range(3):
        lost = lost or at[k] != at[k]
        if mode == _NEAREST and not lost:
            at[k] = math.floor(at[k] + 0.5) if padding == _ZEROS_EDGES else np.rint(at[k])
    if not lost:
        for k in range(3):
            near = min(max(at[k], -1e15), 1e15)
            there = _taps(near, volume.shape[2 + k], mode, padding, index[k], weight[k]) and there
    for c in range(volume.shape[1]):
        if lost:
            out[c] = np.nan
        elif not there:
            out[c] = 0
        elif mode == _VOTE:
            out[c] = _elected(volume, n, c, index, weight)
        else:
            out[c] = _summed(volume, n, c, index, weight, _TAPS[mode])


@numba.njit(nogil=True, cache=True, inline="always")
def _between(flat, at, rest):
    return flat[at] + rest * (flat[at + np.uintp(1)] - flat[at])


@numba.njit(nogil=True, cache=True)
def _product(matrix, k, a, b, c):
    """A row of the matrix times a displacement; where the matrix is 0 nothing counts, an infinity included."""
    total = 0.0
    if matrix[k, 0] != 0.0:
        total += matrix[k, 0] * a
    if matrix[k, 1] != 0.0:
        total += matrix[k, 1] * b
    if matrix[k, 2] != 0.0:
        total += matrix[k, 2] * c
    return total


@numba.njit(nogil=True, cache=True)
def _rows(begin, end, volume, moved, moves, plain, affine, matrix, mode, padding, out):
    channels, depth, rows, columns = out.shape[1:]
    high_z, high_y, high_x = volume.shape[2] - 1, volume.shape[3] - 1, volume.shape[4] - 1
    flat, row = volume.reshape(-1), np.uintp(volume.shape[4])
    plane = row * np.uintp(volume.shape[3])
    span = plane * np.uintp(volume.shape[2])
    at, start = np.empty(3), np.empty(3)
    for line in range(begin, end):
        n, z, y = line // (depth * rows), line // rows % depth, line % rows
        m = min(n, moved.shape[0] - 1)
        for k in range(3):
            start[k] = affine[n, k, 0] * z + affine[n, k, 1] * y + affine[n, k, 3]
        for x in range(columns):
            uz = uy = ux = 0.0
            if moves:
                a, b, c = np.float64(moved[m, 0, z, y, x]), moved[m, 1, z, y, x], moved[m, 2, z, y, x]
                uz, uy, ux = a, np.float64(b), np.float64(c)
                if not plain:
                    uz, uy, ux = (
                        _product(matrix, 0, a, b, c),
                        _product(matrix, 1, a, b, c),
                        _product(matrix, 2, a, b, c),
                    )
            pz, py, px = (
                start[0] + affine[n, 0, 2] * x + uz,
                start[1] + affine[n, 1, 2] * x + uy,
                start[2] + affine[n, 2, 2] * x + ux,
            )
            inside = pz >= 0 and py >= 0 and px >= 0 and pz < high_z and py < high_y and px < high_x
            if mode != _LINEAR or not inside:
                at[0], at[1], at[2] = pz, py, px
                _voxel(volume, n, at, mode, padding, out[n, :, z, y, x])
                continue
            # Unsigned, so that numba does not ask of each load whether its index counts from the end.
            i, j, k = np.uintp(pz), np.uintp(py), np.uintp(px)
            rz, ry, rx = np.float32(pz - i), np.float32(py - j), np.float32(px - k)
            first = np.uintp(n) * np.uintp(channels) * span + i * plane + j * row + k
            for c in range(channels):
                v00 = _between(flat, first, rx)
                v01 = _between(flat, first + row, rx)
                v10 = _between(flat, first + plane, rx)
                v11 = _between(flat, first + plane + row, rx)
                v0, v1 = v00 + ry * (v01 - v00), v10 + ry * (v11 - v10)
                out[n, c, z, y, x] = v0 + rz * (v1 - v0)
                first += span


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
    size = tuple(displacement.shape[2:]) if displacement is not None else tuple(shape or volume.shape[2:])
    # Whole numbers of up to 32 bits are exact in float64, the others' values in float32: one type is compiled for each.
    kind = np.float64 if volume.dtype.itemsize >= 4 and volume.dtype != np.float32 else np.float32
    source = np.ascontiguousarray(volume, kind).reshape(*volume.shape[:2], *(1,) * (3 - axes), *volume.shape[2:])
    moved = np.zeros((1, 3, 1, 1, 1), np.float32)
    if displacement is not None and axes == 3:
        moved = np.asarray(displacement, np.float32)
    elif displacement is not None:
        moved = np.zeros((displacement.shape[0], 3, *(1,) * (3 - axes), *size), np.float32)
        moved[:, 3 - axes :] = displacement.reshape(displacement.shape[0], axes, *moved.shape[2:])
    rows, turn = np.broadcast_to(np.eye(3, 4), (volume.shape[0], 3, 4)).copy(), np.eye(3)
    if affine is not None:
        rows[:, 3 - axes :, 3 - axes :] = np.asarray(affine, np.float64)
    if matrix is not None:
        turn[3 - axes :, 3 - axes :] = matrix
    made = np.empty((*volume.shape[:2], *(1,) * (3 - axes), *size), kind)
    codes = (MODES.index(mode), PADDINGS.index(padding))
    lines = made.shape[0] * made.shape[2] * made.shape[3]
    plain = matrix is None
    in_parts(_rows, lines, source, moved, displacement is not None, plain, rows, turn, *codes, made)
    answer = made.reshape(*volume.shape[:2], *size)
    if volume.dtype.kind in "iu":
        info = np.iinfo(volume.dtype)
        answer = np.clip(np.rint(np.nan_to_num(answer)), info.min, info.max)
    if out is None:
        return answer.astype(volume.dtype, copy=False)
    out[...] = answer
    return out
