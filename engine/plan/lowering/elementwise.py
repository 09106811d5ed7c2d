"""Functions of every element: unary, binary with broadcasting, Where, Cast, Clip."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from voxelrt.kernels.common import capi, native
from voxelrt.kernels.elementwise.codes import BINARY, UNARY
from voxelrt.plan.lowering.attributes import integer, real, text
from voxelrt.plan.lowering.builder import Builder, Unsupported, dims_of, dtype_of, lowers
from voxelrt.plan.schedule import BLOCKED16, LINEAR, Operand

FLOATS = {capi.DTYPES[name] for name in ("float32", "float64", "float16", "bfloat16")}

# ONNX operator -> (function, alpha, beta) from its attributes.
Parameters = Callable[[ir.Node], tuple[str, float, float]]


def _plain(name: str) -> Parameters:
    return lambda node: (name, 0.0, 0.0)


def _alpha(name: str, default: float, attribute: str = "alpha") -> Parameters:
    return lambda node: (name, real(node, attribute, default), 0.0)


_UNARY: dict[str, Parameters] = {
    **{
        name: _plain(name)
        for name in (
            *("Abs", "Neg", "Sign", "Sqrt", "Exp", "Log", "Reciprocal", "Floor", "Ceil", "Round", "Sin", "Cos", "Tan"),
            *("Asin", "Acos", "Atan", "Sinh", "Cosh", "Tanh", "Asinh", "Acosh", "Atanh", "Erf", "Sigmoid", "Relu"),
            *("HardSwish", "Softplus", "Softsign", "Mish", "Not", "IsNaN", "BitwiseNot"),
        )
    },
    "LeakyRelu": _alpha("LeakyRelu", 0.01),
    "Elu": _alpha("Elu", 1.0),
    "Celu": _alpha("Celu", 1.0),
    "Swish": _alpha("Swish", 1.0),
    "ThresholdedRelu": _alpha("ThresholdedRelu", 1.0),
    "Selu": lambda node: (
        "Selu",
        real(node, "alpha", 1.6732632423543772),
        real(node, "gamma", 1.0507009873554805),
    ),
    "HardSigmoid": lambda node: ("HardSigmoid", real(node, "alpha", 0.2), real(node, "beta", 0.5)),
    "Shrink": lambda node: ("Shrink", real(node, "lambd", 0.5), real(node, "bias", 0.0)),
    "Gelu": lambda node: ("GeluTanh" if text(node, "approximate", "none") == "tanh" else "Gelu", 0.0, 0.0),
    "IsInf": lambda node: (
        "IsInf",
        float(integer(node, "detect_negative", 1)),
        float(integer(node, "detect_positive", 1)),
    ),
}


@lowers(*_UNARY)
def unary(b: Builder, node: ir.Node) -> None:
    """A function of one value, in the layout the value has; a pending norm is applied on load."""
    x = node.inputs[0]
    assert x is not None
    name, alpha, beta = _UNARY[node.op_type](node)
    if name == "LeakyRelu" and _becomes_pending(b, node, x, alpha):
        return
    if name == "Relu" and _becomes_pending(b, node, x, 0.0):
        return
    apply(b, x, node.outputs[0], name, alpha, beta)


def apply(b: Builder, x: ir.Value, out: ir.Value, name: str, alpha: float, beta: float) -> None:
    """One unary function from a value to a value."""
    source = b.value(x)
    blocked = source.layout == BLOCKED16 and dtype_of(x) == dtype_of(out)
    if not blocked:
        source = b.linear(x)
    target = b.result(out, BLOCKED16 if blocked else LINEAR)
    b.step("elementwise.unary", [source], [target], op=UNARY.index(name), alpha=alpha, beta=beta)


def _becomes_pending(b: Builder, node: ir.Node, x: ir.Value, slope: float) -> bool:
    """A (leaky) ReLU behind a pending norm is one more thing pending: no step."""
    operand = b.value(x)
    if operand.pending is None or operand.pending.slope != 1.0:
        return False
    b.alias(node.outputs[0], replace(operand, pending=replace(operand.pending, slope=slope)))
    return True


@lowers("Clip")
def clip(b: Builder, node: ir.Node) -> None:
    """Clip with limits that are known, or as Max and Min."""
    x = node.inputs[0]
    assert x is not None
    limits = [node.inputs[i] if len(node.inputs) > i else None for i in (1, 2)]
    known = [b.constant(v) for v in limits]
    info = np.iinfo(capi.numpy_dtype(dtype_of(x))) if dtype_of(x) not in FLOATS else None
    low, high = (-np.inf, np.inf) if info is None else (float(info.min), float(info.max))
    exact = info is None or info.bits < 64  # limits travel as float64
    if exact and all(v is None or k is not None for v, k in zip(limits, known, strict=True)):
        alpha = low if known[0] is None else float(known[0].ravel()[0])
        beta = high if known[1] is None else float(known[1].ravel()[0])
        apply(b, x, node.outputs[0], "Clip", alpha, beta)
        return
    source = b.linear(x)
    for name, limit in zip(("Max", "Min"), limits, strict=True):
        if limit is not None:
            target = b.temporary(source.dims, source.dtype)
            binary_step(b, name, source, b.linear(limit), target)
            source = target
    b.alias(node.outputs[0], source)


_BINARY: dict[str, str] = {
    **{n: n for n in ("Add", "Sub", "Mul", "Div", "Pow", "And", "Or", "Xor", "Equal", "Greater", "Less", "PRelu")},
    **{n: n for n in ("GreaterOrEqual", "LessOrEqual", "BitwiseAnd", "BitwiseOr", "BitwiseXor")},
}


Post = tuple[str, float, float]  # a unary function of the result, its alpha and beta
_NO_POST: Post = ("Identity", 0.0, 0.0)


def binary_step(b: Builder, name: str, x: Operand, y: Operand, target: Operand, post: Post = _NO_POST) -> None:
    """One binary function of two operands, and a unary one of its result."""
    function, alpha, beta = post
    b.step(
        "elementwise.binary",
        [x, y],
        [target],
        op=BINARY.index(name),
        post=UNARY.index(function),
        alpha=alpha,
        beta=beta,
    )


@lowers(*_BINARY, "Mod", "BitShift")
def binary(b: Builder, node: ir.Node) -> None:
    """A function of two values with NumPy's broadcasting; two blocked volumes of one shape stay blocked."""
    x, y = node.inputs[0], node.inputs[1]
    assert x is not None
    assert y is not None
    name = _BINARY.get(node.op_type, "")
    if node.op_type == "Mod":
        name = "Fmod" if integer(node, "fmod", 0) else "Mod"
    elif node.op_type == "BitShift":
        name = "ShiftLeft" if text(node, "direction", "") == "LEFT" else "ShiftRight"
    fold(b, name, [x, y], node.outputs[0])


@lowers("Max", "Min", "Sum", "Mean")
def variadic(b: Builder, node: ir.Node) -> None:
    """One to many values, joined two at a time from the left; Mean divides at the end."""
    values = [v for v in node.inputs if v is not None]
    name = "Add" if node.op_type in ("Sum", "Mean") else node.op_type
    if len(values) == 1:
        apply(b, values[0], node.outputs[0], "Identity", 0.0, 0.0)
    else:
        fold(b, name, values, node.outputs[0], 1.0 / len(values) if node.op_type == "Mean" else None)


def fold(b: Builder, name: str, values: list[ir.Value], out: ir.Value, factor: float | None = None) -> None:
    """Join values from the left with a binary function, then scale; else a unary function behind it joins the step."""
    blocked = _blocked_together(b, values, out)
    layout = BLOCKED16 if blocked is not None else LINEAR
    operands = blocked if blocked is not None else [b.linear(v) for v in values]
    post, final = (_NO_POST, out) if factor is not None else _fused_function(b, out)
    sofar = operands[0]
    for i, operand in enumerate(operands[1:], start=2):
        last = i == len(operands) and factor is None
        try:
            shape = np.broadcast_shapes(sofar.dims, operand.dims)
        except ValueError as error:
            raise Unsupported(f"the shapes {sofar.dims} and {operand.dims} do not broadcast") from error
        target = b.result(final, layout) if last else b.temporary(shape, dtype_of(out), layout)
        binary_step(b, name, sofar, operand, target, post if last else _NO_POST)
        sofar = target
    if factor is not None:
        target = b.result(out, layout)
        b.step("elementwise.unary", [sofar], [target], op=UNARY.index("Affine"), alpha=factor, beta=0.0)


def _fused_function(b: Builder, value: ir.Value) -> tuple[Post, ir.Value]:
    """The unary function behind a floating value, absorbed, and the value it makes."""
    node = b.next_node(value, *_UNARY) if dtype_of(value) in FLOATS else None
    if node is None or dtype_of(node.outputs[0]) != dtype_of(value):
        return _NO_POST, value
    b.absorb(node)
    return _UNARY[node.op_type](node), node.outputs[0]


def _blocked_together(b: Builder, values: list[ir.Value], out: ir.Value) -> list[Operand] | None:
    """The operands of a blocked result: volumes as they are, what is spread over them linear; None for a linear one."""
    dims = dims_of(out)
    whole = [dims_of(v) == dims for v in values]
    volumes = [b.is_blocked(v) and full for v, full in zip(values, whole, strict=True)]
    same = dtype_of(out) == dtype_of(values[0]) and 2 <= len(dims) <= 5
    if not same or not any(volumes) or (len(values) > 2 and not all(volumes)):
        return None
    spread = {v: _spread(b, v, len(dims)) for v, full in zip(values, whole, strict=True) if not full}
    # Linear channels that do not fill their blocks forbid applying a norm on load: it is written first.
    partial = dims[1] % native.BLOCK != 0 and any(s.layout == LINEAR and s.dims[1] != 1 for s in spread.values())
    return [
        spread[v] if not full else b.value(v) if b.is_blocked(v) and not partial else b.blocked(v)
        for v, full in zip(values, whole, strict=True)
    ]


def _spread(b: Builder, value: ir.Value, rank: int) -> Operand:
    """A value that is spread over a volume, as one of five axes."""
    own = dims_of(value)
    if b.is_blocked(value) and len(own) == rank:
        return b.blocked(value)
    return b.volume(b.linear(value).view((*(1,) * (rank - len(own)), *own)))


@lowers("Where")
def where(b: Builder, node: ir.Node) -> None:
    """Where with broadcasting."""
    inputs = [b.linear(v) for v in node.inputs if v is not None]
    b.step("elementwise.where", inputs, [b.result(node.outputs[0])], reserved=0)


@lowers("Require")
def require(b: Builder, node: ir.Node) -> None:
    """The value as it is; a step that fails where the condition is not what it must be."""
    x, condition = node.inputs
    assert x is not None
    assert condition is not None
    b.step("elementwise.require", [b.linear(condition)], [], wanted=integer(node, "wanted", 1))
    b.alias(node.outputs[0], b.value(x))


@lowers("Cast", "CastLike")
def cast(b: Builder, node: ir.Node) -> None:
    """Another dtype; the same one is an alias."""
    x = node.inputs[0]
    assert x is not None
    out = node.outputs[0]
    if dtype_of(x) == dtype_of(out):
        b.alias(out, b.value(x))
        return
    b.step("elementwise.cast", [b.linear(x)], [b.result(out)], reserved=0)
