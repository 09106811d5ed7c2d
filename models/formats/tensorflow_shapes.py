"""Importers of TensorFlow ops that move, cut and join values, or that ask for shapes; folded where all is known."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import onnx_ir as ir

from voxelrt.errors import ModelError
from voxelrt.models.formats.tensorflow_node import Node, importer
from voxelrt.models.formats.tensorflow_values import (
    FOLD_LIMIT,
    Array,
    Builder,
    Cannot,
    Dim,
    Order,
    Shape,
    Symbol,
    Value,
    axis_of,
    check_shape,
    constant,
)


def _limited(elements: int, itemsize: int, where: str) -> None:
    if elements * itemsize > FOLD_LIMIT:
        raise ModelError(f"node {where}: a constant of {elements} elements is more than a constant can be")


@importer("Identity", "StopGradient", "PreventGradient", "CheckNumerics", "Snapshot")
def _identity(builder: Builder, node: Node) -> Value:
    return node.input(0)


@importer("Const")
def _const(builder: Builder, node: Node) -> Value:
    raise ModelError(f"constant {node.name} has no value")


@importer("Shape")
def _shape(builder: Builder, node: Node) -> Value:
    return constant(node.name, np.array(node.input(0).shape, object if node.input(0).shape else np.int64))


@importer("Size")
def _size(builder: Builder, node: Node) -> Value:
    shape = node.input(0).shape
    if any(isinstance(d, Symbol) for d in shape):
        raise Cannot("the size is not fixed; give the shapes of the inputs")
    return constant(node.name, np.array(math.prod(d for d in shape if isinstance(d, int)), np.int64))


@importer("Rank")
def _rank(builder: Builder, node: Node) -> Value:
    return constant(node.name, np.array(node.input(0).rank, np.int32))


@importer("Fill")
def _fill(builder: Builder, node: Node) -> Value:
    dims = check_shape(node.integers(0), node.name)
    value = node.array(1)
    _limited(math.prod(d for d in dims if isinstance(d, int)), value.dtype.itemsize, node.name)
    return constant(node.name, np.full(tuple(node.integers(0)), value.reshape(()), value.dtype))


@importer("Range")
def _range(builder: Builder, node: Node) -> Value:
    dtype = node.array(0).dtype
    start, stop, step = (node.array(i).item() for i in range(3))
    if step == 0:
        raise ModelError(f"node {node.name} (Range): a step of 0")
    _limited(max(0, math.ceil((stop - start) / step)), dtype.itemsize, node.name)
    return constant(node.name, np.arange(start, stop, step).astype(dtype))


@importer("Pack")
def _pack(builder: Builder, node: Node) -> Value:
    parts = node.inputs
    shape = node.input(0).shape
    axis = axis_of(node.integer("axis", 0), len(shape) + 1)
    if any(p.shape != shape for p in parts):
        raise ModelError(f"node {node.name} (Pack): inputs of shapes {[p.shape for p in parts]}")
    arrays = [p.array for p in parts if p.array is not None]
    if len(arrays) == len(parts):
        _limited(sum(a.size for a in arrays), 8, node.name)
        return constant(node.name, np.stack(arrays, axis))
    whole = (*shape[:axis], len(parts), *shape[axis:])
    wide = (*shape[:axis], 1, *shape[axis:])
    at = builder.initializer(f"{node.name}/axes", np.array([axis], np.int64))
    dtype = node.input(0).dtype
    lifted = [
        builder.emit("Unsqueeze", [builder.stored(p), at], f"{node.name}/{i}", dtype, wide) for i, p in enumerate(parts)
    ]
    like = (dtype, whole, tuple(range(len(whole))))
    return builder.result("Concat", lifted, node.name, like, {"axis": axis})


@importer("ConcatV2", "Concat")
def _concat(builder: Builder, node: Node) -> Value:
    where = -1 if node.op == "ConcatV2" else 0
    parts = node.inputs[:-1] if where else node.inputs[1:]
    if not parts or len(node.integers(where)) != 1:
        raise ModelError(f"node {node.name} ({node.op}): it needs values and one axis")
    rank = parts[0].rank
    axis = axis_of(node.integers(where)[0], rank)
    rest = [p.shape[:axis] + p.shape[axis + 1 :] for p in parts if p.rank == rank]
    if len(rest) != len(parts) or any(
        isinstance(a, int) and isinstance(b, int) and a != b for r in rest for a, b in zip(r, rest[0], strict=True)
    ):
        raise ModelError(f"node {node.name} ({node.op}): inputs of shapes {[p.shape for p in parts]}")
    arrays = [p.array for p in parts if p.array is not None]
    if len(arrays) == len(parts):
        _limited(sum(a.size for a in arrays), 8, node.name)
        return constant(node.name, np.concatenate(arrays, axis))
    total: Any = 0
    for part in parts:
        total = total + part.shape[axis]
    shape = (*parts[0].shape[:axis], total, *parts[0].shape[axis + 1 :])
    order = Counter(p.order for p in parts if p.array is None).most_common(1)[0][0]
    like = (parts[0].dtype, shape, order)
    return builder.result(
        "Concat", [builder.stored(p, order) for p in parts], node.name, like, {"axis": order.index(axis)}
    )


@importer("Reshape")
def _reshape(builder: Builder, node: Node) -> Value:
    data = node.input(0)
    if data.array is not None and data.array.dtype != object:
        return constant(node.name, data.array.reshape(tuple(node.integers(1))))
    wanted: list[Dim] = node.partial(1).ravel().tolist()
    shape = _reshaped(node, data.shape, wanted)
    holes = sum(isinstance(d, Symbol) for d in shape)
    if holes > 1:
        raise Cannot("more than one dim of the new shape is not fixed; give the shapes of the inputs")
    dims = np.array([-1 if isinstance(d, Symbol) else d for d in shape], np.int64)
    like = (data.dtype, shape, tuple(range(len(shape))))
    target = builder.initializer(f"{node.name}/shape", dims)
    return builder.result("Reshape", [builder.stored(data), target], node.name, like)


def _reshaped(node: Node, old: Shape, wanted: list[Dim]) -> Shape:
    """The new shape with its -1 worked out: a number, the one open dim of the old shape, or a dim of its own."""
    open_old = [d for d in old if isinstance(d, Symbol)]
    open_new = [d for d in wanted if isinstance(d, Symbol)]
    holes = [i for i, d in enumerate(wanted) if not isinstance(d, Symbol) and d == -1]
    known_old = math.prod(d for d in old if isinstance(d, int))
    known_new = math.prod(d for d in wanted if not isinstance(d, Symbol) and d != -1)
    if len(holes) > 1:
        raise ModelError(f"node {node.name} (Reshape): more than one -1 in {wanted}")
    if holes:
        hole: Dim
        if sorted(map(repr, open_old)) == sorted(map(repr, open_new)) and known_new and known_old % known_new == 0:
            hole = known_old // known_new
        elif len(open_old) == 1 and not open_new and known_old == known_new:
            hole = open_old[0]
        elif not open_old and not open_new:
            raise ModelError(f"node {node.name} (Reshape): {old} does not become {wanted}")
        else:
            hole = Symbol()
        wanted = [*wanted[: holes[0]], hole, *wanted[holes[0] + 1 :]]
    elif not open_old and not open_new and known_old != known_new:
        raise ModelError(f"node {node.name} (Reshape): {old} does not become {wanted}")
    return check_shape(wanted, node.name)


def relabelled(value: Value, name: str, stored: ir.Value, shape: Shape, kept: list[int]) -> Value:
    """A value after axes were taken out: ``kept`` are the old TensorFlow axes that are left, in stored order."""
    rank = {axis: i for i, axis in enumerate(sorted(kept))}
    return Value(name, value.dtype, check_shape(shape, name), stored=stored, order=tuple(rank[a] for a in kept))


@importer("Squeeze")
def _squeeze(builder: Builder, node: Node) -> Value:
    data = node.input(0)
    given = node.ints("squeeze_dims", node.ints("axis", []))
    axes = {axis_of(a, data.rank) for a in given} or {a for a, d in enumerate(data.shape) if d == 1}
    if any(not isinstance(data.shape[a], Symbol) and data.shape[a] != 1 for a in axes):
        raise ModelError(f"node {node.name} (Squeeze): axes {sorted(axes)} of shape {data.shape}")
    if data.array is not None:
        return constant(node.name, data.array.squeeze(tuple(axes)))
    if not axes:
        return data
    kept = [a for a in data.order if a not in axes]
    shape = tuple(d for a, d in enumerate(data.shape) if a not in axes)
    at = builder.initializer(f"{node.name}/axes", np.array(sorted(data.order.index(a) for a in axes), np.int64))
    out = builder.emit(
        "Squeeze", [builder.stored(data, data.order), at], node.name, data.dtype, tuple(data.shape[a] for a in kept)
    )
    return relabelled(data, node.name, out, shape, kept)


@importer("ExpandDims")
def _expand(builder: Builder, node: Node) -> Value:
    data = node.input(0)
    axis = axis_of(node.integers(1)[0], data.rank + 1)
    if data.array is not None:
        return constant(node.name, np.expand_dims(data.array, axis))
    shape = (*data.shape[:axis], 1, *data.shape[axis:])
    at = builder.initializer(f"{node.name}/axes", np.array([axis], np.int64))
    return builder.result(
        "Unsqueeze", [builder.stored(data), at], node.name, (data.dtype, shape, tuple(range(len(shape))))
    )


@importer("Transpose")
def _transpose(builder: Builder, node: Node) -> Value:
    data, perm = node.input(0), node.integers(1)
    if sorted(perm) != list(range(data.rank)):
        raise ModelError(f"node {node.name} (Transpose): {perm} on {data.shape}")
    if data.array is not None:
        return constant(node.name, data.array.transpose(perm))
    # Nothing moves: axis perm[i] is only called i from here on.
    order: Order = tuple(perm.index(a) for a in data.order)
    return Value(node.name, data.dtype, tuple(data.shape[p] for p in perm), stored=data.stored, order=order)


@importer("Pad", "PadV2", "MirrorPad")
def _pad(builder: Builder, node: Node) -> Value:
    data, pads = node.input(0), node.array(1)
    mode = node.text("mode", "REFLECT") if node.op == "MirrorPad" else "constant"
    if mode not in ("constant", "REFLECT"):
        raise Cannot(f"mode {mode}")
    if pads.shape != (data.rank, 2) or (pads < 0).any():
        raise ModelError(f"node {node.name} ({node.op}): paddings {pads.tolist()} on {data.shape}")
    amounts: Array = pads.astype(np.int64)[list(data.order or range(data.rank))]
    totals: list[Any] = amounts.sum(axis=1).tolist()
    order = data.order or tuple(range(data.rank))
    shape = check_shape((d + totals[order.index(a)] for a, d in enumerate(data.shape)), node.name)
    inputs = [builder.stored(data, order), builder.initializer(f"{node.name}/pads", amounts.T.ravel())]
    if node.op == "PadV2":
        inputs.append(builder.initializer(f"{node.name}/value", node.array(2).reshape(())))
    return builder.result("Pad", inputs, node.name, (data.dtype, shape, order), {"mode": mode.lower()})
