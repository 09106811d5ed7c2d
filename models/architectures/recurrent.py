"""Recurrent networks on images and volumes, with seeded weights: MDLSTM, LSTMs within and across slices, ConvLSTM."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from voxelrt.errors import UsageError
from voxelrt.models.architectures.layers import Layers, Parameters

MAX_STEPS = 1024  # of a network that is unrolled


def build_mdlstm(
    grid: Sequence[int] = (64, 64),
    hidden: Sequence[int] = (16, 32),
    *,
    batch: int = 1,
    channels: int = 1,
    classes: int = 3,
    window: int = 2,
    seed: int = 0,
    parameters: Parameters | None = None,
) -> ir.Model:
    """Segmentation by LSTMs in all directions of an image or a volume, as Byeon et al. (CVPR 2015) label scenes.

    Windows become cells; each layer is an MDLSTM in all 2^d directions, whose states a fully connected layer joins.
    ``image`` (N, channels, grid) -> ``logits`` (N, classes, grid).

    Parameters
    ----------
    grid : two or three sizes, multiples of ``window``.
    hidden : units of each layer in each direction.

    Raises
    ------
    UsageError : another number of axes, sizes that windows do not fill, no layer.
    """
    axes = _checked_grid(grid)
    if window < 1 or any(size % window for size in grid):
        raise UsageError(f"grid {tuple(grid)}: every size is a multiple of the window, {window}")
    if not hidden or min(hidden) < 1:
        raise UsageError(f"hidden {tuple(hidden)}: there is at least one layer, each of at least one unit")
    net = Layers(seed, parameters)
    cells = [size // window for size in grid]
    x = net.input("image", batch, channels, *grid)
    width, taps = hidden[0], window**axes
    weight = net.weight(width, channels, *[window] * axes, fan_in=channels * taps, gain=1.0, name="windows.weight")
    x = net.op("Conv", x, weight, kernel_shape=[window] * axes, strides=[window] * axes)
    x = net.transpose(x, *range(2, axes + 2), 0, 1)  # (cells, N, features), as it stays up to the last layer
    for units in hidden:
        y = _mdlstm(net, x, axes, width, units)
        y = net.transpose(y, *range(axes), axes + 1, axes, axes + 2)
        joined = net.reshape(y, *cells, batch, 2**axes * units)
        x = net.activation(net.linear(joined, 2**axes * units, units, gain=1.0), "Tanh")
        width = units
    x = net.transpose(x, axes, axes + 1, *range(axes))
    weight = net.weight(width, classes, *[window] * axes, fan_in=width, gain=1.0, name="head.weight")
    bias = net.near(0.0, classes, 0.05, "head.bias")
    logits = net.op("ConvTranspose", x, weight, bias, kernel_shape=[window] * axes, strides=[window] * axes)
    return net.finish("mdlstm", logits=(logits, (batch, classes, *grid)))


def build_hierarchical_lstm(
    grid: Sequence[int] = (24, 64, 64),
    hidden: Sequence[int] = (64, 32),
    *,
    batch: int = 1,
    classes: int = 2,
    seed: int = 0,
    parameters: Parameters | None = None,
) -> ir.Model:
    """One bidirectional LSTM reads the rows of each slice, a second the slices of the volume (as El Hihi and Bengio
    (NIPS 1995) put slow layers above fast ones).

    ``volume`` (N, Z, Y, X) -> ``slices`` (N, Z, classes), logits of each slice, and ``whole`` (N, classes).

    Parameters
    ----------
    grid : slices, rows, columns.
    hidden : units in each direction, within slices and across them.

    Raises
    ------
    UsageError : not three sizes, not two layers.
    """
    if len(grid) != 3 or len(hidden) != 2 or min(hidden) < 1:
        raise UsageError(f"grid {tuple(grid)}, hidden {tuple(hidden)}: three sizes, two layers of at least one unit")
    net = Layers(seed, parameters)
    slices, rows, columns = grid
    within, across = hidden
    volume = net.input("volume", batch, slices, rows, columns)
    steps = net.reshape(net.transpose(volume, 2, 1, 0, 3), rows, slices * batch, columns)
    _, last = _lstm(net, steps, columns, within)
    features = net.reshape(net.transpose(last, 1, 0, 2), slices, batch, 2 * within)
    y, last = _lstm(net, features, 2 * within, across)
    each = net.reshape(net.transpose(y, 2, 0, 1, 3), batch, slices, 2 * across)
    whole = net.reshape(net.transpose(last, 1, 0, 2), batch, 2 * across)
    return net.finish(
        "hierarchical_lstm",
        slices=(net.linear(each, 2 * across, classes, gain=1.0), (batch, slices, classes)),
        whole=(net.linear(whole, 2 * across, classes, gain=1.0), (batch, classes)),
    )


def build_conv_lstm(
    grid: Sequence[int] = (64, 64),
    steps: int = 8,
    hidden: Sequence[int] = (16,),
    *,
    batch: int = 1,
    channels: int = 1,
    classes: int = 2,
    kernel: int = 3,
    seed: int = 0,
    parameters: Parameters | None = None,
) -> ir.Model:
    """Convolutional LSTM layers (Shi et al., NIPS 2015, without peepholes) over frames, unrolled.

    ``frames`` (steps · N, channels, grid), the N of a step side by side -> ``logits`` (N, classes, grid) after the last
    step.

    Parameters
    ----------
    grid : two or three sizes.
    steps : frames, at most ``MAX_STEPS``.
    hidden : channels of the state of each layer.
    kernel : edge length of the convolutions, odd.

    Raises
    ------
    UsageError : another number of axes, an even kernel, no layer, too many steps.
    """
    axes = _checked_grid(grid)
    if kernel < 1 or kernel % 2 == 0 or not hidden or min(hidden) < 1 or not 1 <= steps <= MAX_STEPS:
        raise UsageError(
            f"kernel {kernel}, hidden {tuple(hidden)}, steps {steps}: an odd kernel, at least one layer of at least "
            f"one channel, 1 to {MAX_STEPS} steps"
        )
    net = Layers(seed, parameters)
    x, width = net.input("frames", steps * batch, channels, *grid), channels
    for layer, units in enumerate(hidden):
        states = _conv_lstm(net, x, steps, axes, (width, units, kernel))
        last = layer == len(hidden) - 1
        x = states[-1] if last or steps == 1 else net.op("Concat", *states, axis=0)
        width = units
    logits = net.conv(x, width, classes, 1, axes=axes, gain=1.0)
    return net.finish("conv_lstm", logits=(logits, (batch, classes, *grid)))


def _checked_grid(grid: Sequence[int]) -> int:
    if len(grid) not in (2, 3):
        raise UsageError(f"grid {tuple(grid)}: two or three sizes")
    return len(grid)


def _mdlstm(net: Layers, x: ir.Value, axes: int, inputs: int, hidden: int) -> ir.Value:
    """(cells, N, inputs) -> (cells, 2^axes, N, hidden)."""
    name, gates = net.layer("mdlstm"), axes + 3
    rows = (2**axes, gates * hidden)
    # A cell adds up its predecessors' states: forget gates around one half would let them grow without bounds along
    # three axes. These are around 1 / (axes + 1).
    centre = np.zeros((gates, hidden))
    centre[2 : 2 + axes] = -math.log(axes)
    return net.our_op(
        "MDLSTM",
        x,
        net.weight(*rows, inputs, fan_in=inputs, gain=1.0, name=f"{name}.w"),
        net.weight(*rows, axes * hidden, fan_in=axes * hidden, gain=1.0, name=f"{name}.r"),
        net.scattered(centre.reshape(-1), rows, 0.1, f"{name}.b"),
    )


def _lstm(net: Layers, x: ir.Value, inputs: int, hidden: int) -> Sequence[ir.Value]:
    """A bidirectional layer on (T, N, inputs): all states (T, 2, N, hidden) and the last ones (2, N, hidden)."""
    name = net.layer("lstm")
    return net.ops(
        "LSTM",
        2,
        x,
        net.weight(2, 4 * hidden, inputs, fan_in=inputs, gain=1.0, name=f"{name}.w"),
        net.weight(2, 4 * hidden, hidden, fan_in=hidden, gain=1.0, name=f"{name}.r"),
        net.scattered(np.zeros(1), (2, 8 * hidden), 0.1, f"{name}.b"),
        hidden_size=hidden,
        direction="bidirectional",
    )


def _conv_lstm(net: Layers, x: ir.Value, steps: int, axes: int, sizes: tuple[int, int, int]) -> list[ir.Value]:
    """The states of all steps; the frames' part of the gates i, f, o, g is one convolution of all of them."""
    inputs, hidden, kernel = sizes
    frames = net.conv(x, inputs, 4 * hidden, kernel, axes=axes, gain=1.0)
    name, taps = net.layer("state"), kernel**axes
    weight = net.weight(4 * hidden, hidden, *[kernel] * axes, fan_in=hidden * taps, gain=1.0, name=f"{name}.weight")
    states: list[ir.Value] = []
    cell: ir.Value | None = None
    for now in net.ops("Split", steps, frames, axis=0, num_outputs=steps):
        gates = now
        if states:
            moved = net.op("Conv", states[-1], weight, kernel_shape=[kernel] * axes, pads=[kernel // 2] * (2 * axes))
            gates = net.op("Add", now, moved)
        i, f, o, g = net.ops("Split", 4, gates, axis=1, num_outputs=4)
        made = net.op("Mul", net.op("Sigmoid", i), net.op("Tanh", g))
        cell = made if cell is None else net.op("Add", net.op("Mul", net.op("Sigmoid", f), cell), made)
        states.append(net.op("Mul", net.op("Sigmoid", o), net.op("Tanh", cell)))
    return states
