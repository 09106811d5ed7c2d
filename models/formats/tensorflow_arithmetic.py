"""Importers of TensorFlow's arithmetic: element by element, reductions, matrix products, softmax, casts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir

from voxelrt.errors import ModelError
from voxelrt.models.formats.tensorflow_node import Node, importer
from voxelrt.models.formats.tensorflow_shapes import relabelled
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
    constant,
)

_BOOL = np.dtype(bool)

# TensorFlow op -> ONNX op, NumPy function to fold constants with.
_UNARY: dict[str, tuple[str, Callable[[Array], Array] | None]] = {
    "Relu": ("Relu", lambda x: np.maximum(x, np.zeros((), x.dtype))),
    "Elu": ("Elu", None),
    "Selu": ("Selu", None),
    "Sigmoid": ("Sigmoid", None),
    "Tanh": ("Tanh", np.tanh),
    "Softplus": ("Softplus", None),
    "Softsign": ("Softsign", None),
    "Erf": ("Erf", None),
    "Exp": ("Exp", np.exp),
    "Log": ("Log", np.log),
    "Sqrt": ("Sqrt", np.sqrt),
    "Neg": ("Neg", np.negative),
    "Abs": ("Abs", np.abs),
    "Floor": ("Floor", np.floor),
    "Ceil": ("Ceil", np.ceil),
    "Sign": ("Sign", np.sign),
    "LogicalNot": ("Not", np.logical_not),
    "Reciprocal": ("Reciprocal", lambda x: np.ones((), x.dtype) / x),
    "Inv": ("Reciprocal", lambda x: np.ones((), x.dtype) / x),
}
_BINARY: dict[str, tuple[str, Callable[[Any, Any], Any] | None]] = {
    "Add": ("Add", np.add),
    "AddV2": ("Add", np.add),
    "Sub": ("Sub", np.subtract),
    "Mul": ("Mul", np.multiply),
    "RealDiv": ("Div", np.true_divide),
    "Maximum": ("Max", np.maximum),
    "Minimum": ("Min", np.minimum),
    "Pow": ("Pow", np.power),
    "Greater": ("Greater", np.greater),
    "GreaterEqual": ("GreaterOrEqual", np.greater_equal),
    "Less": ("Less", np.less),
    "LessEqual": ("LessOrEqual", np.less_equal),
    "Equal": ("Equal", np.equal),
    "LogicalAnd": ("And", np.logical_and),
    "LogicalOr": ("Or", np.logical_or),
}
_TESTS = frozenset({"Greater", "GreaterEqual", "Less", "LessEqual", "Equal", "LogicalAnd", "LogicalOr"})
_ON_SHAPES = frozenset({"Add", "AddV2", "Sub", "Mul", "FloorDiv"})
_REDUCTIONS = {"Mean": "ReduceMean", "Sum": "ReduceSum", "Max": "ReduceMax", "Min": "ReduceMin", "Prod": "ReduceProd"}


@importer(*_UNARY)
def _unary(builder: Builder, node: Node) -> Value:
    op, fold = _UNARY[node.op]
    data = node.input(0)
    if fold is not None and data.array is not None and data.array.dtype != object:
        return constant(node.name, np.asarray(fold(data.array), data.dtype))
    order = data.order or tuple(range(data.rank))
    return builder.result(op, [builder.stored(data, order)], node.name, (data.dtype, data.shape, order))


@importer("Relu6", "LeakyRelu", "Softmax", "LogSoftmax", "Square", "Rsqrt")
def _activation(builder: Builder, node: Node) -> Value:
    data = node.input(0)
    order = data.order or tuple(range(data.rank))
    x = builder.stored(data, order)
    like = (data.dtype, data.shape, order)
    if node.op == "Square":
        return builder.result("Mul", [x, x], node.name, like)
    if node.op == "Rsqrt":
        root = builder.result("Sqrt", [x], f"{node.name}/sqrt", like)
        return builder.result("Reciprocal", [root.stored], node.name, like)
    if node.op == "LeakyRelu":
        return builder.result("LeakyRelu", [x], node.name, like, {"alpha": node.number("alpha", 0.2)})
    if node.op == "Relu6":
        limits = [builder.initializer(f"{node.name}/{n}", np.array(v, data.dtype)) for n, v in (("min", 0), ("max", 6))]
        return builder.result("Clip", [x, *limits], node.name, like)
    if data.rank == 0:
        raise ModelError(f"node {node.name} ({node.op}) on a scalar")
    return builder.result(node.op, [x], node.name, like, {"axis": order.index(data.rank - 1)})


def _broadcast(node: Node, a: Shape, b: Shape) -> Shape:
    rank = max(len(a), len(b))
    out: list[Dim] = []
    for x, y in zip((1,) * (rank - len(a)) + a, (1,) * (rank - len(b)) + b, strict=True):
        if x == y or y == 1:
            out.append(x)
        elif x == 1 or isinstance(x, Symbol):
            out.append(y)
        elif isinstance(y, Symbol):
            out.append(x)
        else:
            raise ModelError(f"node {node.name} ({node.op}): shapes {a} and {b} do not go together")
    return tuple(out)


def _aligned(builder: Builder, value: Value, order: Order) -> Value:
    """The value with axes of extent 1 put before it, so that it has as many as ``order``."""
    missing = len(order) - value.rank
    if missing == 0 or value.rank == 0 or order == tuple(range(len(order))):
        return value
    if value.array is not None:
        return constant(value.name, value.array.reshape((1,) * missing + value.array.shape))
    at = builder.initializer(f"{value.name}/axes", np.arange(missing, dtype=np.int64))
    like = (value.dtype, (1,) * missing + value.shape, tuple(range(len(order))))
    return builder.result("Unsqueeze", [builder.stored(value), at], f"{value.name}/aligned", like)


def _folded(node: Node, fold: Callable[[Any, Any], Any] | None, shape: Shape) -> Value | None:
    a, b = node.input(0), node.input(1)
    if fold is None or a.array is None or b.array is None:
        return None
    elements = int(np.prod([d for d in shape if isinstance(d, int)], dtype=object))
    if elements * 8 > FOLD_LIMIT and elements > max(a.array.size, b.array.size):
        raise ModelError(f"node {node.name} ({node.op}): a constant of {elements} elements is too large")
    if object in (a.array.dtype, b.array.dtype):
        if node.op not in _ON_SHAPES:
            raise Cannot("it computes with a dimension that is not fixed; give the shapes of the inputs")
        return constant(node.name, np.asarray(fold(a.array.astype(object), b.array.astype(object)), object))
    with np.errstate(all="ignore"):
        out = np.asarray(fold(a.array, b.array))
    return constant(node.name, out if node.op in _TESTS else out.astype(a.dtype))


@importer(*_BINARY)
def _binary(builder: Builder, node: Node) -> Value:
    op, fold = _BINARY[node.op]
    a, b = node.input(0), node.input(1)
    shape = _broadcast(node, a.shape, b.shape)
    folded = _folded(node, fold, shape)
    if folded is not None:
        return folded
    # The operand of full rank that is stored in another order than TensorFlow's decides; the other one follows it.
    orders = [v.order for v in (a, b) if v.array is None and v.rank == len(shape)]
    plain = tuple(range(len(shape)))
    order = next((o for o in orders if o != plain), plain)
    inputs = [_aligned(builder, v, order) for v in (a, b)]
    operands = [builder.stored(v, order if v.rank == len(order) else None) for v in inputs]
    dtype = _BOOL if node.op in _TESTS else a.dtype
    return builder.result(op, operands, node.name, (dtype, shape, order))


@importer("SquaredDifference")
def _squared_difference(builder: Builder, node: Node) -> Value:
    part = _binary(builder, Node(f"{node.name}/difference", "Sub", {}, node.inputs))
    return _activation(builder, Node(node.name, "Square", {}, [part]))


@importer("FloorDiv")
def _floor_division(builder: Builder, node: Node) -> Value:
    folded = _folded(node, np.floor_divide, _broadcast(node, node.input(0).shape, node.input(1).shape))
    if folded is None:
        raise Cannot("a floor division of values that are known only at run time")
    return folded


@importer("AddN")
def _add_n(builder: Builder, node: Node) -> Value:
    total = node.input(0)
    for i, part in enumerate(node.inputs[1:], 1):
        name = node.name if i == len(node.inputs) - 1 else f"{node.name}/{i}"
        total = _binary(builder, Node(name, "Add", {}, [total, part]))
    return total


@importer("Cast")
def _cast(builder: Builder, node: Node) -> Value:
    data, dtype = node.input(0), node.dtype("DstT")
    if data.array is not None:
        if data.array.dtype == object:
            if dtype.kind not in "iu":
                raise Cannot("it computes with a dimension that is not fixed; give the shapes of the inputs")
            return data
        with np.errstate(all="ignore"):
            return constant(node.name, data.array.astype(dtype))
    if dtype == data.dtype:
        return data
    like = (dtype, data.shape, data.order)
    to = int(ir.DataType.from_numpy(dtype))
    return builder.result("Cast", [builder.stored(data, data.order)], node.name, like, {"to": to})


@importer("MatMul", "BatchMatMul", "BatchMatMulV2")
def _matmul(builder: Builder, node: Node) -> Value:
    a, b = node.input(0), node.input(1)
    if a.rank < 2 or b.rank < 2:
        raise ModelError(f"node {node.name} ({node.op}): shapes {a.shape} and {b.shape}")
    swap_a, swap_b = (node.flag(f"transpose_{k}") or node.flag(f"adj_{v}") for k, v in (("a", "x"), ("b", "y")))
    operands, shapes = [], []
    for value, swap in ((a, swap_a), (b, swap_b)):
        axes = list(range(value.rank))
        if swap:
            axes[-2:] = axes[:-3:-1]
        operands.append(builder.stored(value, tuple(axes)))
        shapes.append(tuple(value.shape[i] for i in axes))
    inner = (shapes[0][-1], shapes[1][-2])
    if not any(isinstance(d, Symbol) for d in inner) and inner[0] != inner[1]:
        raise ModelError(f"node {node.name} ({node.op}): shapes {shapes[0]} and {shapes[1]}")
    shape = (*_broadcast(node, shapes[0][:-2], shapes[1][:-2]), shapes[0][-2], shapes[1][-1])
    return builder.result("MatMul", operands, node.name, (a.dtype, shape, tuple(range(len(shape)))))


@importer(*_REDUCTIONS)
def _reduce(builder: Builder, node: Node) -> Value:
    data = node.input(0)
    axes = sorted({axis_of(a, data.rank) for a in node.integers(1)})
    keep = node.flag("keep_dims")
    order = data.order or tuple(range(data.rank))
    if not axes:
        return data
    if data.array is not None and node.op == "Prod":
        return constant(node.name, np.asarray(np.prod(node.array(0), axis=tuple(axes), keepdims=keep), data.dtype))
    at = builder.initializer(f"{node.name}/axes", np.array(sorted(order.index(a) for a in axes), np.int64))
    inputs = [builder.stored(data, order), at]
    if keep:
        shape = tuple(1 if a in axes else d for a, d in enumerate(data.shape))
        return builder.result(_REDUCTIONS[node.op], inputs, node.name, (data.dtype, shape, order), {"keepdims": 1})
    kept = [a for a in order if a not in axes]
    out = builder.emit(
        _REDUCTIONS[node.op], inputs, node.name, data.dtype, tuple(data.shape[a] for a in kept), {"keepdims": 0}
    )
    return relabelled(data, node.name, out, tuple(d for a, d in enumerate(data.shape) if a not in axes), kept)


@importer("ArgMax")
def _argmax(builder: Builder, node: Node) -> Value:
    data = node.input(0)
    axis = axis_of(node.integers(1)[0], data.rank)
    if node.dtype("output_type", "int64") != np.int64:
        raise Cannot("an ArgMax into another type than int64")
    order = data.order or tuple(range(data.rank))
    kept = [a for a in order if a != axis]
    attributes = {"axis": order.index(axis), "keepdims": 0}
    stored = tuple(data.shape[a] for a in kept)
    out = builder.emit("ArgMax", [builder.stored(data, order)], node.name, np.dtype(np.int64), stored, attributes)
    like = Value(node.name, np.dtype(np.int64), data.shape)
    return relabelled(like, node.name, out, tuple(d for a, d in enumerate(data.shape) if a != axis), kept)
