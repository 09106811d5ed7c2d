"""pool3d, obviously: window by window, in float64."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from voxelrt.kernels.common.kernel import Array


def _outputs(size: int, k: int, s: int, d: int, begin: int, end: int, ceil_mode: bool) -> int:
    room = size + begin + end - d * (k - 1) - 1
    count = (-(-room // s) if ceil_mode else room // s) + 1
    if ceil_mode and (count - 1) * s >= size + begin:  # a window that would start in the padding behind is left out
        count -= 1
    return max(count, 0)


def _value(mode: str, values: Array, divisor: int, p: int) -> Any:
    if mode == "max":
        return values.max(axis=-1)
    if mode == "average":
        return values.sum(axis=-1) / divisor
    return (np.abs(values) ** p).sum(axis=-1) ** (1 / p)


def pool3d(
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
    del layout
    rank = x.ndim - 2
    space = x.shape[2:]
    v = x.astype(np.float64)
    if pending is not None:
        scale, shift, slope = pending
        v = v * scale[..., *[None] * rank] + shift[..., *[None] * rank]
        v = np.where(v >= 0, v, v * slope)
    kernel = kernel if kernel is not None else space
    stride, dilation = stride or [1] * rank, dilation or [1] * rank
    begin, end = pad_begin or [0] * rank, pad_end or [0] * rank
    rows = zip(space, kernel, stride, dilation, begin, end, strict=True)
    sizes = [_outputs(n, k, s, d, low, high, ceil_mode) for n, k, s, d, low, high in rows]
    out = np.empty((*x.shape[:2], *sizes))
    place = np.empty(out.shape, np.int64)
    order = "F" if column_major else "C"
    offsets = np.arange(x.shape[0] * x.shape[1]).reshape(x.shape[:2]) * int(np.prod(space))
    numbers = np.arange(int(np.prod(space))).reshape(space, order=order)  # type: ignore[call-overload]
    for o in np.ndindex(*out.shape[2:]):
        taps = [[o[a] * stride[a] - begin[a] + k * dilation[a] for k in range(kernel[a])] for a in range(rank)]
        padded = [[t for t in taps[a] if t < space[a] + end[a]] for a in range(rank)]
        inside = [[t for t in taps[a] if 0 <= t < space[a]] for a in range(rank)]
        window = np.ix_(*inside)
        values = v[:, :, *window].reshape(*x.shape[:2], int(np.prod([len(t) for t in inside])))
        chosen = padded if count_include_pad else inside
        out[:, :, *o] = _value(mode, values, int(np.prod([len(t) for t in chosen])), p)
        if indices:
            place[:, :, *o] = offsets + numbers[window].ravel()[values.argmax(axis=-1)]
    return (out, place) if indices else out
