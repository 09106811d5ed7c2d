"""The same network with the same weights as torch modules: what a torch user would run.

The ONNX graph becomes a ``torch.fx`` module of ``nn.Conv3d``, ``nn.ConvTranspose3d``, ``nn.InstanceNorm3d`` and so on,
called in order by generated straight-line code, so that eager torch and torch.compile meet nothing unusual.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import fx, nn


def build_twin(path: Path) -> fx.GraphModule:
    """Read an ONNX file of one input and one output and build its twin.

    Parameters
    ----------
    path
        A network of the ops in ``MODULES`` and ``CALLS``, in two or three dimensions, with fixed shapes.

    Raises
    ------
    NotImplementedError
        An op, or a setting of one, that has no twin here; names the node.
    """
    model = ir.load(path)
    root = nn.Module()
    graph = fx.Graph()
    (start,) = model.graph.inputs
    values = {start.name: graph.placeholder("x")}
    for index, node in enumerate(model.graph):
        attributes = {name: attribute.value for name, attribute in node.attributes.items()}
        constants = [_constant(value) for value in node.inputs]
        arguments = [
            values[value.name]
            for value, c in zip(node.inputs, constants, strict=True)
            if value is not None and c is None
        ]
        weights = [c for c in constants if c is not None]
        if node.op_type == "Add" and weights:
            name = f"step{index}_constant"
            root.register_buffer(name, torch.from_numpy(weights[0]))
            result = graph.call_function(torch.add, (*arguments, graph.get_attr(name)))
        elif node.op_type in MODULES:
            name = f"step{index}_{node.op_type.lower()}"
            root.add_module(name, MODULES[node.op_type](node, attributes, weights))
            result = graph.call_module(name, tuple(arguments))
            result = _trimmed(graph, result, node.op_type, attributes)
        elif node.op_type in CALLS:
            result = CALLS[node.op_type](graph, arguments, attributes, weights)
        else:
            raise NotImplementedError(f"{node.name}: {node.op_type} has no torch twin")
        values[node.outputs[0].name] = result
    graph.output(values[model.graph.outputs[0].name])
    graph.lint()
    return fx.GraphModule(root, graph)


def _constant(value: ir.Value | None) -> np.ndarray[Any, Any] | None:
    if value is None or value.const_value is None:
        return None
    return np.array(value.const_value.numpy())


def _fill(module: nn.Module, **arrays: np.ndarray[Any, Any]) -> nn.Module:
    module.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})
    return module


def _symmetric(node: ir.Node, attributes: Mapping[str, Any], axes: int) -> tuple[int, ...]:
    pads = tuple(attributes.get("pads", (0,) * 2 * axes))
    if pads[:axes] != pads[axes:] or attributes.get("auto_pad", "NOTSET") != "NOTSET":
        raise NotImplementedError(f"{node.name}: pads {pads} differ between the ends")
    return pads[:axes]


def _convolution(node: ir.Node, attributes: Mapping[str, Any], weights: list[Any]) -> nn.Module:
    weight, *bias = weights
    group, axes = attributes.get("group", 1), weight.ndim - 2
    module = {2: nn.Conv2d, 3: nn.Conv3d}[axes](
        weight.shape[1] * group,
        weight.shape[0],
        weight.shape[2:],
        stride=tuple(attributes.get("strides", (1,) * axes)),
        padding=_symmetric(node, attributes, axes),
        dilation=tuple(attributes.get("dilations", (1,) * axes)),
        groups=group,
        bias=bool(bias),
    )
    return _fill(module, weight=weight, **({"bias": bias[0]} if bias else {}))


def _transposed(node: ir.Node, attributes: Mapping[str, Any], weights: list[Any]) -> nn.Module:
    weight, *bias = weights
    axes = weight.ndim - 2
    if (
        any(tuple(attributes.get("pads", (0,) * 2 * axes))[:axes])
        or "output_padding" in attributes
        or "output_shape" in attributes
    ):
        raise NotImplementedError(f"{node.name}: only a transposed convolution trimmed at its end has a twin here")
    module = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}[axes](
        weight.shape[0],
        weight.shape[1],
        weight.shape[2:],
        stride=tuple(attributes.get("strides", (1,) * axes)),
        bias=bool(bias),
    )
    return _fill(module, weight=weight, **({"bias": bias[0]} if bias else {}))


def _trimmed(graph: fx.Graph, result: fx.Node, op: str, attributes: Mapping[str, Any]) -> fx.Node:
    """Cut what ONNX's end pads of a transposed convolution take away; torch has no name for it."""
    pads = tuple(attributes.get("pads", ()))
    ends = pads[len(pads) // 2 :]
    if op != "ConvTranspose" or not any(ends):
        return result
    keep = (slice(None), slice(None), *(slice(0, -end if end else None) for end in ends))
    return graph.call_function(_cut, (result, keep))


def _cut(x: Any, keep: tuple[slice, ...]) -> Any:
    return x[keep]


def _norm(node: ir.Node, attributes: Mapping[str, Any], weights: list[Any]) -> nn.Module:
    gamma, beta = weights
    shape = node.inputs[0].shape if node.inputs[0] is not None else None
    kind = nn.InstanceNorm2d if shape is not None and len(shape) == 4 else nn.InstanceNorm3d
    module = kind(len(gamma), eps=attributes.get("epsilon", 1e-5), affine=True)
    return _fill(module, weight=gamma, bias=beta)


def _max_pool(node: ir.Node, attributes: Mapping[str, Any], weights: list[Any]) -> nn.Module:
    axes = len(attributes["kernel_shape"])
    return {2: nn.MaxPool2d, 3: nn.MaxPool3d}[axes](
        tuple(attributes["kernel_shape"]),
        stride=tuple(attributes.get("strides", (1,) * axes)),
        padding=_symmetric(node, attributes, axes),
    )


def _mean_pool(node: ir.Node, attributes: Mapping[str, Any], weights: list[Any]) -> nn.Module:
    axes = len(attributes["kernel_shape"])
    if any(attributes.get("pads", ())) or attributes.get("ceil_mode", 0):
        raise NotImplementedError(f"{node.name}: only a mean over whole windows has a twin here")
    pool = {2: nn.AvgPool2d, 3: nn.AvgPool3d}[axes]
    return pool(tuple(attributes["kernel_shape"]), stride=tuple(attributes.get("strides", (1,) * axes)))


def _batch_norm(node: ir.Node, attributes: Mapping[str, Any], weights: list[Any]) -> nn.Module:
    gamma, beta, mean, variance = weights
    module = nn.BatchNorm2d(len(gamma), eps=attributes.get("epsilon", 1e-5))
    counted = np.array(0, np.int64)
    return _fill(module, weight=gamma, bias=beta, running_mean=mean, running_var=variance, num_batches_tracked=counted)


def _matmul(node: ir.Node, attributes: Mapping[str, Any], weights: list[Any]) -> nn.Module:
    (weight,) = weights
    return _fill(nn.Linear(*weight.shape, bias=False), weight=np.ascontiguousarray(weight.T))


def _add(graph: fx.Graph, arguments: list[Any], attributes: Mapping[str, Any], weights: list[Any]) -> fx.Node:
    return graph.call_function(torch.add, tuple(arguments))


class Recurrent(nn.Module):  # type: ignore[misc]  # mypy does not see torch
    """An LSTM layer that answers as ONNX's: (steps, directions, batch, hidden)."""

    def __init__(self, node: ir.Node, attributes: Mapping[str, Any], weights: list[Any]) -> None:
        super().__init__()
        w, r, b = weights
        if set(attributes) - {"hidden_size", "direction"} or attributes.get("direction") == "reverse":
            raise NotImplementedError(f"{node.name}: only plain LSTM layers have a twin here")
        self.directions, self.hidden = w.shape[0], r.shape[2]
        self.layer = nn.LSTM(w.shape[2], self.hidden, bidirectional=self.directions == 2)
        state = {}
        for d, suffix in zip(range(self.directions), ("", "_reverse"), strict=False):
            half = 4 * self.hidden
            parts = {"weight_ih": w[d], "weight_hh": r[d], "bias_ih": b[d, :half], "bias_hh": b[d, half:]}
            for name, rows in parts.items():
                i, o, f, c = np.split(rows, 4)  # torch's order is i, f, c, o
                state[f"{name}_l0{suffix}"] = torch.from_numpy(np.concatenate([i, f, c, o]))
        self.layer.load_state_dict(state)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y, _ = self.layer(x)
        return y.reshape(*y.shape[:2], self.directions, self.hidden).transpose(1, 2)


class GridRecurrent(nn.Module):  # type: ignore[misc]  # as above
    """An MDLSTM layer as a loop over the cells of the grid; all directions and rows are one product a cell."""

    def __init__(self, node: ir.Node, attributes: Mapping[str, Any], weights: list[Any]) -> None:
        super().__init__()
        w, r, b = (torch.from_numpy(weight) for weight in weights)
        self.axes = {2: 1, 4: 2, 8: 3}[w.shape[0]]
        self.hidden = r.shape[2] // self.axes
        for name, value in (("w", w.transpose(1, 2)), ("r", r.transpose(1, 2)), ("b", b[:, None])):
            self.register_buffer(name, value.contiguous())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        *grid, batch, inputs = x.shape
        count, flips = 2**self.axes, [[a for a in range(self.axes) if k >> a & 1] for k in range(2**self.axes)]
        turned = torch.stack([x.flip(flip) for flip in flips]).reshape(count, -1, inputs)
        part = torch.baddbmm(self.b, turned, self.w).reshape(count, math.prod(grid), batch, -1)
        zero = x.new_zeros(count, batch, self.hidden)
        strides = [math.prod(grid[a + 1 :]) for a in range(self.axes)]
        states: list[torch.Tensor] = []
        cells: list[torch.Tensor] = []
        for index in range(math.prod(grid)):
            before = [index - s if index // s % n else -1 for s, n in zip(strides, grid, strict=True)]
            known = torch.cat([states[at] if at >= 0 else zero for at in before], -1)
            i, o, *forget, new = torch.baddbmm(part[:, index], known, self.r).chunk(self.axes + 3, -1)
            cell = torch.sigmoid(i) * torch.tanh(new)
            for gate, at in zip(forget, before, strict=True):
                if at >= 0:
                    cell = cell + torch.sigmoid(gate) * cells[at]
            cells.append(cell)
            states.append(torch.sigmoid(o) * torch.tanh(cell))
        y = torch.stack(states, 1).reshape(count, *grid, batch, self.hidden)
        return torch.stack([one.flip(flip) for one, flip in zip(y, flips, strict=True)], self.axes)


MODULES: dict[str, Callable[[ir.Node, Mapping[str, Any], list[Any]], nn.Module]] = {
    "Conv": _convolution,
    "ConvTranspose": _transposed,
    "InstanceNormalization": _norm,
    "BatchNormalization": _batch_norm,
    "LSTM": Recurrent,
    "MDLSTM": GridRecurrent,
    "MatMul": _matmul,
    "AveragePool": _mean_pool,
    "MaxPool": _max_pool,
    "LeakyRelu": lambda node, attributes, weights: nn.LeakyReLU(attributes.get("alpha", 0.01), inplace=True),
    "Relu": lambda node, attributes, weights: nn.ReLU(inplace=True),
    "Sigmoid": lambda node, attributes, weights: nn.Sigmoid(),
}

CALLS: dict[str, Callable[[fx.Graph, list[Any], Mapping[str, Any], list[Any]], fx.Node]] = {
    "Add": _add,
    "ReduceMean": lambda graph, arguments, attributes, weights: graph.call_method(
        "mean", (arguments[0], tuple(int(a) for a in weights[0]), bool(attributes.get("keepdims", 1)))
    ),
    "Concat": lambda graph, arguments, attributes, weights: graph.call_function(
        torch.cat, (arguments, attributes["axis"])
    ),
    "Reshape": lambda graph, arguments, attributes, weights: graph.call_method(
        "reshape", (arguments[0], tuple(int(d) for d in weights[0]))
    ),
    "Transpose": lambda graph, arguments, attributes, weights: graph.call_method(
        "permute", (arguments[0], tuple(attributes["perm"]))
    ),
}
