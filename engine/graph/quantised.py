"""Convolutions of quantised numbers as ONNX spells them: Conv(Dequantize(Quantize(x)), Dequantize(w)), all Linear.

The weights are int8 with a zero of 0 and one scale, or one for each output channel; x has one scale and one zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True)
class Quantised:
    """What such a convolution computes with.

    Parameters
    ----------
    source : x, before it is rounded.
    scale, zero, signed : of the codes of x: int8, or uint8.
    weights : int8 (O, I, ...).
    weight_scales : float32 (O).
    """

    source: ir.Value
    scale: float
    zero: int
    signed: bool
    weights: NDArray[np.int8]
    weight_scales: NDArray[np.float32]


def quantised_convolution(node: ir.Node) -> Quantised | None:
    """The node as such a convolution; None where it is another."""
    if node.op_type != "Conv" or node.domain != "" or len(node.inputs) < 2:
        return None
    if "group" in node.attributes and node.attributes["group"].as_int() != 1:
        return None
    weights = _weights(node.inputs[1])
    spread = _producer(node.inputs[0], "DequantizeLinear")
    rounded = _producer(spread.inputs[0], "QuantizeLinear") if spread is not None else None
    if weights is None or spread is None or rounded is None:
        return None
    ends = [_scale_and_zero(n) for n in (rounded, spread)]
    source = rounded.inputs[0]
    if ends[0] is None or ends[0] != ends[1] or source is None or source.dtype != ir.DataType.FLOAT:
        return None
    return Quantised(source, *ends[0], *weights)


def left_to_convolutions(node: ir.Node) -> bool:
    """Whether only convolutions as above read what a QuantizeLinear or DequantizeLinear makes."""
    value = node.outputs[0]
    uses = list(value.uses())
    if not uses or value.is_graph_output():
        return False
    if node.op_type == "QuantizeLinear":
        return all(u.node.op_type == "DequantizeLinear" and u.idx == 0 and left_to_convolutions(u.node) for u in uses)
    return all(u.node.op_type == "Conv" and u.idx < 2 and quantised_convolution(u.node) is not None for u in uses)


def _producer(value: ir.Value | None, op_type: str) -> ir.Node | None:
    node = value.producer() if value is not None else None
    return node if node is not None and node.op_type == op_type and node.domain == "" else None


def _known(value: ir.Value | None) -> Array | None:
    if value is None or value.const_value is None or value.is_graph_input():
        return None
    return np.asarray(value.const_value.numpy())


def _scale_and_zero(node: ir.Node) -> tuple[float, int, bool] | None:
    """One scale above zero, and a zero of 8 bits."""
    scale = _known(node.inputs[1])
    given = node.inputs[2] if len(node.inputs) > 2 else None
    zero = np.zeros((), np.uint8) if given is None else _known(given)
    if scale is None or zero is None or scale.size != 1 or zero.size != 1 or zero.dtype not in (np.int8, np.uint8):
        return None
    number = float(scale.reshape(()))
    inverse = 1.0 / number if number > 0 else np.inf
    if scale.dtype != np.float32 or not np.isfinite(number) or not inverse < float(np.finfo(np.float32).max):
        return None
    return number, int(zero.reshape(())), zero.dtype == np.int8


def _weights(value: ir.Value | None) -> tuple[NDArray[np.int8], NDArray[np.float32]] | None:
    node = _producer(value, "DequantizeLinear")
    if node is None or ("block_size" in node.attributes and node.attributes["block_size"].as_int() != 0):
        return None
    codes, scales = _known(node.inputs[0]), _known(node.inputs[1])
    zeros = node.inputs[2] if len(node.inputs) > 2 else None
    zero = np.zeros(1) if zeros is None else _known(zeros)
    if codes is None or scales is None or zero is None or codes.dtype != np.int8 or scales.dtype != np.float32:
        return None
    axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 1
    by_output = scales.shape == codes.shape[:1] and axis % codes.ndim == 0
    if zero.any() or codes.ndim < 3 or not (scales.size == 1 or by_output):
        return None
    return codes, np.ascontiguousarray(np.broadcast_to(scales.reshape(-1), codes.shape[:1]))
