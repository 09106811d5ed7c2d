"""gather, obviously: an index at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from voxelrt.kernels.common.kernel import Array


def _combined(reduction: str, a: Any, b: Any) -> Any:
    if reduction == "add":
        return a + b
    if reduction == "mul":
        return a * b
    if reduction == "max":
        return np.maximum(a, b)
    if reduction == "min":
        return np.minimum(a, b)
    return b


def _elements(data: Array, indices: Array, axis: int) -> Array:
    out = np.empty(indices.shape, data.dtype)
    for place in np.ndindex(*indices.shape):
        source = list(place)
        source[axis] = indices[place]
        out[place] = data[tuple(source)]
    return out


def _nd(data: Array, indices: Array, batch_dims: int) -> Array:
    depth = indices.shape[-1]
    out = np.empty((*indices.shape[:-1], *data.shape[batch_dims + depth :]), data.dtype)
    for place in np.ndindex(*indices.shape[:-1]):
        out[place] = data[(*place[:batch_dims], *indices[place])]
    return out


def _scatter(op: str, data: Array, indices: Array, updates: Array, axis: int, reduction: str) -> Array:
    out = data.copy()
    places = indices.shape if op == "ScatterElements" else indices.shape[:-1]
    with np.errstate(over="ignore"):
        for place in np.ndindex(*places):
            if op == "ScatterElements":
                to: list[int] = list(place)
                to[axis] = int(indices[place])
            else:
                to = [int(i) for i in indices[place]]
            out[tuple(to)] = _combined(reduction, out[tuple(to)], updates[place])
    return out


def _onehot(indices: Array, values: Array, depth: int, axis: int) -> Array:
    codes = np.arange(depth)
    wanted = np.where(indices < 0, indices + depth, indices)
    hit = np.moveaxis(wanted[..., None] == codes, -1, axis)
    out: Array = np.where(hit, values[1], values[0])
    return out


def gather(
    op: str,
    *arrays: Array,
    axis: int = 0,
    batch_dims: int = 0,
    reduction: str = "none",
    depth: int = 0,
    slices: Sequence[slice] = (),
    upper: bool = True,
    k: int = 0,
) -> Array:
    if op == "Gather":
        taken: Array = np.take(arrays[0], arrays[1], axis=axis)
        return taken
    if op == "GatherElements":
        return _elements(arrays[0], arrays[1], axis)
    if op == "GatherND":
        return _nd(arrays[0], arrays[1], batch_dims)
    if op == "OneHot":
        return _onehot(arrays[0], arrays[1], depth, axis)
    if op == "Slice":
        return arrays[0][tuple(slices)]
    if op == "Trilu":
        return np.triu(arrays[0], k) if upper else np.tril(arrays[0], k)
    return _scatter(op, arrays[0], arrays[1], arrays[2], axis, reduction)
