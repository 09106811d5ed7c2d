"""pool3d on the native library."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from voxelrt.errors import UsageError
from voxelrt.kernels.common import native
from voxelrt.kernels.common.kernel import Array

MODES = ("max", "average", "lp")


def output_size(size: int, kernel: int, stride: int, dilation: int, pads: tuple[int, int], ceil_mode: bool) -> int:
    """The outputs along one axis, as ONNX counts them.

    With ``ceil_mode`` a window that would start in the padding behind the axis is left out.
    """
    room = size + sum(pads) - dilation * (kernel - 1) - 1
    count = (-(-room // stride) if ceil_mode else room // stride) + 1
    if ceil_mode and (count - 1) * stride >= size + pads[0]:
        count -= 1
    return max(count, 0)


def _three(values: Sequence[int] | None, rank: int, fill: int) -> list[int]:
    given = [fill] * rank if values is None else list(values)
    if len(given) != rank:
        raise UsageError(f"a pool over {rank} axes was given {len(given)} numbers: {given}")
    return [fill] * (3 - rank) + given


def _operand(array: Array, layout: str, pending: tuple[Array, Array, float] | None = None) -> native.Operand:
    if layout == "blocked":
        return native.Operand(native.to_blocked(array), native.BLOCKED16, array.shape[1], pending)
    return native.Operand(array, pending=pending)


def _empty(shape: Sequence[int], dtype: np.dtype[np.generic], layout: str) -> native.Operand:
    if layout != "blocked":
        return native.Operand(native.aligned_empty(shape, dtype))
    n, c, *space = shape
    return native.Operand(native.aligned_empty((n, -(-c // 16), *space, 16), np.float32), native.BLOCKED16, channels=c)


def _array(operand: native.Operand) -> Array:
    if operand.layout == native.LINEAR:
        return operand.array
    return native.from_blocked(operand.array, operand.channels)


def run(
    x: Array,
    *,
    mode: str = "max",
    kernel: Sequence[int] | None = None,
    stride: Sequence[int] | None = None,
    dilation: Sequence[int] | None = None,
    pad_begin: Sequence[int] | None = None,
    pad_end: Sequence[int] | None = None,
    ceil_mode: bool = False,
    count_include_pad: bool = False,
    p: int = 2,
    indices: bool = False,
    column_major: bool = False,
    pending: tuple[Array, Array, float] | None = None,
    layout: str = "linear",
) -> Array | tuple[Array, Array]:
    if mode not in MODES or not 3 <= x.ndim <= 5:
        raise UsageError(f"pool3d takes (N, C, and one to three axes) and the modes {', '.join(MODES)}, not {mode!r}")
    if layout not in ("linear", "blocked") or (indices and mode != "max"):
        raise UsageError(f"no layout {layout!r}, or indices of another mode than max")
    rank = x.ndim - 2
    volume = x[:, :, *[None] * (3 - rank)]
    if kernel is None:
        out = _empty((*x.shape[:2], 1, 1, 1), x.dtype, layout)
        native.run_kernel("pool3d.global", [_operand(volume, layout, pending)], [out], mode=MODES.index(mode), p=p)
        return _array(out).reshape(*x.shape[:2], *[1] * rank)
    window: dict[str, Any] = {
        "kernel": _three(kernel, rank, 1),
        "stride": _three(stride, rank, 1),
        "dilation": _three(dilation, rank, 1),
        "pad_begin": _three(pad_begin, rank, 0),
        "pad_end": _three(pad_end, rank, 0),
    }
    space = [
        output_size(size, k, s, d, (begin, end), ceil_mode)
        for size, k, s, d, begin, end in zip(volume.shape[2:], *window.values(), strict=True)
    ]
    out = _empty((*x.shape[:2], *space), x.dtype, layout)
    outs: list[Array | native.Operand] = [out]
    if indices:
        outs.append(native.aligned_empty((*x.shape[:2], *space), np.int64))
    option = {
        "max": ("column_major", column_major),
        "average": ("count_include_pad", count_include_pad),
        "lp": ("p", p),
    }
    name, value = option[mode]
    window[name] = value
    native.run_kernel(f"pool3d.{mode}", [_operand(volume, layout, pending)], outs, **window)
    shape = (*x.shape[:2], *space[3 - rank :])
    result = _array(out).reshape(shape)
    if indices:
        place = outs[1]
        assert isinstance(place, np.ndarray)
        return result, place.reshape(shape)
    return result
