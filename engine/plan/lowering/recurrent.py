"""Recurrent layers: a product for the input's part of all gates of all steps, then the recurrent part."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from voxelrt.errors import ShapeError, UsageError
from voxelrt.kernels.common import capi
from voxelrt.kernels.common.kernel import Array
from voxelrt.kernels.lstm.codes import ACTIVATIONS, USUAL
from voxelrt.kernels.lstm.layer import Activation, RecurrentLayer
from voxelrt.plan.lowering.arrangement import broadcast, transposed
from voxelrt.plan.lowering.attributes import integer, text
from voxelrt.plan.lowering.builder import Builder, Unsupported, dims_of, dtype_of, lowers
from voxelrt.plan.lowering.products import product_params
from voxelrt.plan.schedule import Operand

FLOAT32 = capi.DTYPES["float32"]


@lowers("LSTM", "GRU", "RNN")
def recurrent(b: Builder, node: ir.Node) -> None:
    """ONNX's LSTM, GRU and RNN whose weights are known at compile time.

    The result lies as (T, batch, directions, hidden), so that joining both directions of each step, which is what comes
    behind a layer, costs nothing.
    """
    x = _input(node, 0)
    assert x is not None
    if dtype_of(x) != FLOAT32:
        raise Unsupported("recurrent layers are float32")
    weights: list[Array | None] = [
        None if (v := _input(node, i)) is None else b.need_constant(v, what) for i, what in _weights(node)
    ]
    w, r, bias, peep = weights
    assert w is not None
    assert r is not None
    layer = _layer(node, r, [None if v is None else v.shape for v in weights])
    batch_first = integer(node, "layout", 0)
    gates = _gates(b, layer, b.linear(x), w, bias)
    lstm = layer.cell == "lstm"
    states = [_input(node, 5), _input(node, 6) if lstm else None]
    order = (1, 0, 2) if batch_first else (0, 1, 2)
    given = [None if v is None else transposed(b.linear(v), order) for v in states]
    lengths = _input(node, 4)
    inputs = [
        transposed(gates, order),
        b.weight(r, "lstm", **layer.params()),
        _weight(b, layer.state_bias(bias)),
        _weight(b, layer.peepholes(peep)),
        None if lengths is None else b.linear(lengths),
        *given,
    ]
    outputs: list[Operand | None] = [_sequence(b, node, batch_first)]
    for i in range(1, 3 if lstm else 2):
        value = _output(node, i)
        outputs.append(None if value is None else transposed(b.result(value), order))
    steps, batch, _ = transposed(gates, order).dims
    flops = 2 * steps * batch * layer.columns * layer.hidden
    b.step("lstm", inputs, outputs, flops=flops, **layer.params())


def _input(node: ir.Node, index: int) -> ir.Value | None:
    return node.inputs[index] if index < len(node.inputs) else None


def _output(node: ir.Node, index: int) -> ir.Value | None:
    return node.outputs[index] if index < len(node.outputs) and node.outputs[index].name else None


def _weights(node: ir.Node) -> list[tuple[int, str]]:
    peepholes = 7 if node.op_type == "LSTM" else len(node.inputs)
    return [(1, "the weight W"), (2, "the weight R"), (3, "the bias"), (peepholes, "the peepholes")]


def _weight(b: Builder, array: Array | None) -> Operand | None:
    return None if array is None else b.weight(array)


def _layer(node: ir.Node, r: Array, shapes: Sequence[Sequence[int] | None]) -> RecurrentLayer:
    clip = node.attributes.get("clip")
    cell = node.op_type.lower()
    direction = text(node, "direction", "forward")
    hidden = integer(node, "hidden_size", r.shape[-1])
    try:
        layer = RecurrentLayer(
            cell,
            hidden,
            direction,
            _activations(node, len(USUAL[cell]) * (2 if direction == "bidirectional" else 1)),
            None if clip is None else float(clip.as_float()),
            bool(integer(node, "input_forget", 0)),
            bool(integer(node, "linear_before_reset", 0)),
        )
        w, rest, bias, peep = shapes
        assert w is not None
        assert rest is not None
        layer.check(w, rest, bias, peep)
    except (ShapeError, UsageError) as error:
        raise Unsupported(str(error)) from error
    return layer


def _activations(node: ir.Node, count: int) -> tuple[Activation, ...] | None:
    """The activations with their numbers, which the attributes list for those functions only that have them."""
    attribute = node.attributes.get("activations")
    if attribute is None:
        return None
    known = {name.lower(): name for name in ACTIVATIONS}
    numbers = []
    for name in ("activation_alpha", "activation_beta"):
        given = node.attributes.get(name)
        numbers.append(iter([] if given is None else [float(v) for v in given.as_floats()]))
    made: list[Activation] = []
    for given_name in attribute.as_strings():
        if given_name.lower() not in known:
            raise Unsupported(f"the activation {given_name!r}")
        name = known[given_name.lower()]
        alpha, beta = (
            None if default is None else next(values, None)
            for default, values in zip(ACTIVATIONS[name], numbers, strict=True)
        )
        made.append((name, alpha, beta))
    if len(made) != count:
        raise Unsupported(f"{len(made)} activations where there should be {count}")
    return tuple(made)


def _gates(b: Builder, layer: RecurrentLayer, x: Operand, w: Array, bias: Array | None) -> Operand:
    """The input's part of the gates, in the order of the input's first two axes."""
    if x.dims[-1] != w.shape[2] or not x.dims[-1]:
        raise Unsupported(f"{x.dims[-1]} features for weights of {w.shape[2]}")
    dims = (*x.dims[:2], layer.columns)
    gates = b.temporary(dims, FLOAT32)
    added = layer.input_bias(bias)
    b.step(
        "matmul",
        [
            x,
            b.weight(layer.input_weight(w), "matmul", **product_params(True)),
            None if added is None else broadcast(b.weight(added), dims),
        ],
        [gates],
        flops=2 * int(np.prod(dims)) * w.shape[2],
        note="the input's part of the gates",
        **product_params(True),
    )
    return gates


def _sequence(b: Builder, node: ir.Node, batch_first: int) -> Operand | None:
    """Where the states of all steps go, as (T, directions, batch, hidden)."""
    value = _output(node, 0)
    if value is None:
        return None
    dims = dims_of(value)
    if batch_first:  # (batch, T, directions, hidden)
        return transposed(b.result(value), (1, 2, 0, 3))
    if b.is_output(value):
        return b.result(value)
    steps, directions, batch, hidden = dims
    memory = b.temporary((steps, batch, directions, hidden), FLOAT32)
    b.alias(value, transposed(memory, (0, 2, 1, 3)))
    return transposed(memory, (0, 2, 1, 3))
