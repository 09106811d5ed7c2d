"""Networks of the tasks beside segmentation, with seeded weights: classifier and detector of volumes, cine.

Their weights are drawn, not trained: they show the way of data through a task, and say nothing of a patient.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from voxelrt.errors import UsageError
from voxelrt.models.architectures.layers import Layers, Parameters


def build_classifier3d(
    grid: Sequence[int] = (32, 32, 32),
    widths: Sequence[int] = (8, 16, 32),
    *,
    batch: int = 1,
    channels: int = 1,
    classes: int = 2,
    seed: int = 0,
    parameters: Parameters | None = None,
) -> ir.Model:
    """A CNN that ends in global average pooling and a linear layer.

    ``image`` (N, C, Z, Y, X) -> ``logits`` (N, classes).

    Parameters
    ----------
    widths : channels of each stage; from the second on a stage halves the grid.

    Raises
    ------
    UsageError : the grid has not three sizes, or there is no stage.
    """
    net = Layers(seed, parameters)
    x = net.input("image", batch, channels, *_checked(grid, widths))
    x = _stages(net, x, 3, channels, widths, halve_first=False)
    x = net.reshape(net.op("GlobalAveragePool", x), batch, widths[-1])
    weight = net.weight(classes, widths[-1], fan_in=widths[-1], gain=4.0)
    x = net.op("Gemm", x, weight, net.near(0.0, classes), transB=1)
    return net.finish("classifier3d", logits=(x, (batch, classes)))


def build_detector3d(
    grid: Sequence[int] = (64, 64, 64),
    widths: Sequence[int] = (8, 16),
    *,
    batch: int = 1,
    channels: int = 1,
    classes: int = 1,
    seed: int = 0,
    parameters: Parameters | None = None,
) -> ir.Model:
    """A detector without anchors (Tian et al., ICCV 2019): at each point of a coarse grid scores and six distances.

    ``image`` (N, C, Z, Y, X) -> ``scores`` (N, classes, z, y, x), logits, and ``distances`` (N, 6, z, y, x) in
    voxels to the faces of the box around the point. The coarse grid is the image's, halved once by each stage.

    Raises
    ------
    UsageError : the grid has not three sizes, does not halve so often, or there is no stage.
    """
    net = Layers(seed, parameters)
    sizes = _checked(grid, widths)
    if any(size % (1 << len(widths)) for size in sizes):
        raise UsageError(f"grid {tuple(sizes)} does not halve {len(widths)} times")
    x = _stages(net, net.input("image", batch, channels, *sizes), 3, channels, widths, halve_first=True)
    coarse = [size >> len(widths) for size in sizes]
    scores = net.conv(x, widths[-1], classes, 3, axes=3, gain=4.0)
    stride = net.constant([float(1 << len(widths))])
    reach = net.activation(net.conv(x, widths[-1], 6, 3, axes=3, gain=1.0), "Sigmoid")
    distances = net.op("Mul", reach, net.op("Mul", stride, net.constant([3.0])))
    return net.finish(
        "detector3d", scores=(scores, (batch, classes, *coarse)), distances=(distances, (batch, 6, *coarse))
    )


def build_autoencoder3d(
    grid: Sequence[int] = (64, 64, 64),
    widths: Sequence[int] = (8, 16),
    *,
    batch: int = 1,
    channels: int = 1,
    seed: int = 0,
    parameters: Parameters | None = None,
) -> ir.Model:
    """A convolutional autoencoder: ``image`` -> ``reconstruction``, both (N, C, Z, Y, X); each stage halves the grid.

    Raises
    ------
    UsageError : the grid has not three sizes, does not halve so often, or there is no stage.
    """
    net = Layers(seed, parameters)
    sizes = _checked(grid, widths)
    if any(size % (1 << len(widths)) for size in sizes):
        raise UsageError(f"grid {tuple(sizes)} does not halve {len(widths)} times")
    x = _stages(net, net.input("image", batch, channels, *sizes), 3, channels, widths, halve_first=True)
    before = widths[-1]
    for width in (*reversed(widths[:-1]), channels):
        weight = net.weight(before, width, 2, 2, 2, fan_in=before, gain=1.0)
        x = net.op("ConvTranspose", x, weight, kernel_shape=(2, 2, 2), strides=(2, 2, 2))
        x, before = net.activation(x, "Relu") if width != channels else x, width
    return net.finish("autoencoder3d", reconstruction=(x, (batch, channels, *sizes)))


def build_cine(
    size: Sequence[int] = (64, 64),
    widths: Sequence[int] = (8, 16),
    hidden: int = 32,
    *,
    channels: int = 1,
    classes: int = 2,
    seed: int = 0,
    parameters: Parameters | None = None,
) -> ir.Model:
    """A CNN on each frame of a film and an LSTM over them, one frame a call.

    ``frame`` (1, C, Y, X), ``hidden`` and ``cell`` (1, 1, hidden) -> ``logits`` (1, classes), ``hidden_out``,
    ``cell_out``.

    Raises
    ------
    UsageError : not two sizes, no stage, or no unit.
    """
    if len(size) != 2 or not widths or hidden < 1:
        raise UsageError(f"size {tuple(size)}, widths {tuple(widths)}, hidden {hidden}: two sizes, a stage, a unit")
    net = Layers(seed, parameters)
    x = net.input("frame", 1, channels, *size)
    state, cell = net.input("hidden", 1, 1, hidden), net.input("cell", 1, 1, hidden)
    x = _stages(net, x, 2, channels, widths, halve_first=True)
    x = net.reshape(net.op("GlobalAveragePool", x), 1, 1, widths[-1])
    y, state_out, cell_out = net.ops(
        "LSTM",
        3,
        x,
        net.weight(1, 4 * hidden, widths[-1], fan_in=widths[-1], gain=4.0, name="lstm.w"),
        net.weight(1, 4 * hidden, hidden, fan_in=hidden, gain=1.0, name="lstm.r"),
        net.scattered(np.zeros(1), (1, 8 * hidden), 0.1, "lstm.b"),
        None,
        state,
        cell,
        hidden_size=hidden,
    )
    logits = net.linear(net.reshape(y, 1, hidden), hidden, classes, gain=8.0)
    shape = (1, 1, hidden)
    return net.finish("cine", logits=(logits, (1, classes)), hidden_out=(state_out, shape), cell_out=(cell_out, shape))


def _checked(grid: Sequence[int], widths: Sequence[int]) -> Sequence[int]:
    if len(grid) != 3 or not widths or min(widths) < 1:
        raise UsageError(f"grid {tuple(grid)}, widths {tuple(widths)}: three sizes, a stage of at least one channel")
    return grid


def _stages(
    net: Layers, x: ir.Value, axes: int, channels: int, widths: Sequence[int], *, halve_first: bool
) -> ir.Value:
    """Convolution, norm and ReLU, for each width; the grid is halved by all but perhaps the first."""
    before = channels
    for index, width in enumerate(widths):
        stride = 2 if index or halve_first else 1
        x = net.conv(x, before, width, 3, axes=axes, stride=stride, bias=False)
        x = net.activation(net.batch_norm(x, width), "Relu")
        before = width
    return x
