"""Importer of TensorFlow's StridedSlice, on constants (the usual arithmetic on shapes) and on values."""

from __future__ import annotations

import numpy as np

from voxelrt.errors import ModelError
from voxelrt.models.formats.tensorflow_node import Node, importer
from voxelrt.models.formats.tensorflow_shapes import relabelled
from voxelrt.models.formats.tensorflow_values import Builder, Cannot, Dim, Symbol, Value, constant

_FAR = (1 << 31) - 1


def _bit(node: Node, key: str, index: int) -> bool:
    return bool(node.integer(key, 0) >> index & 1)


def _specification(node: Node) -> list[slice | int | None]:
    """What stands between the brackets in Python, one entry for each of the masks' bits; an ellipsis is refused."""
    begin, end, step = (node.integers(i) for i in (1, 2, 3))
    if not len(begin) == len(end) == len(step) or 0 in step:
        raise ModelError(f"node {node.name} (StridedSlice): begin {begin}, end {end}, strides {step}")
    spec: list[slice | int | None] = []
    for i, first in enumerate(begin):
        if _bit(node, "ellipsis_mask", i):
            raise Cannot("an ellipsis in a slice")
        if _bit(node, "new_axis_mask", i):
            spec.append(None)
        elif _bit(node, "shrink_axis_mask", i):
            spec.append(first)
        else:
            start = None if _bit(node, "begin_mask", i) else first
            stop = None if _bit(node, "end_mask", i) else end[i]
            spec.append(slice(start, stop, step[i]))
    return spec


def _extent(dim: Dim, part: slice) -> Dim:
    if not isinstance(dim, Symbol):
        return len(range(*part.indices(dim)))
    return dim if part.start in (None, 0) and part.stop is None and part.step == 1 else Symbol()


@importer("StridedSlice")
def _strided_slice(builder: Builder, node: Node) -> Value:
    data, spec = node.input(0), _specification(node)
    if data.array is not None:
        return constant(node.name, np.asarray(data.array[tuple(spec)], data.array.dtype))
    if None in spec:
        raise Cannot("a new axis in a slice of a value that is known only at run time")
    if len(spec) > data.rank:
        raise ModelError(f"node {node.name} (StridedSlice): {len(spec)} slices of {data.shape}")
    parts = [p if isinstance(p, slice) else slice(p, p + 1 or None, 1) for p in spec if p is not None]
    shape = [_extent(d, p) for d, p in zip(data.shape, parts, strict=False)] + list(data.shape[len(parts) :])
    backward = [p.step < 0 for p in parts]
    starts = [(_FAR if b else 0) if p.start is None else p.start for p, b in zip(parts, backward, strict=True)]
    stops = [(-_FAR if b else _FAR) if p.stop is None else p.stop for p, b in zip(parts, backward, strict=True)]
    at = [data.order.index(a) for a in range(len(parts))]
    arguments = [
        builder.initializer(f"{node.name}/{key}", np.array(values, np.int64))
        for key, values in (("starts", starts), ("ends", stops), ("axes", at), ("steps", [p.step for p in parts]))
    ]
    like = (data.dtype, tuple(shape), data.order)
    cut = builder.result("Slice", [builder.stored(data, data.order), *arguments], node.name, like)
    gone = {i for i, p in enumerate(spec) if isinstance(p, int)}
    if not gone:
        return cut
    kept = [a for a in data.order if a not in gone]
    left = tuple(d for a, d in enumerate(shape) if a not in gone)
    where = builder.initializer(f"{node.name}/squeezed", np.array(sorted(data.order.index(a) for a in gone), np.int64))
    squeezed = builder.emit(
        "Squeeze", [builder.stored(cut, cut.order), where], node.name, data.dtype, tuple(shape[a] for a in kept)
    )
    return relabelled(data, node.name, squeezed, left, kept)
