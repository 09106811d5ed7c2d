"""Classifiers of 2-D images with seeded weights: ResNet, DenseNet, EfficientNet and ConvNeXt as in their papers.

All take ``image`` (N, channels, Y, X) float32 and give ``logits`` (N, classes). Widths and depths are arguments, so
that tests build them small and benches at full size.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from voxelrt.errors import UsageError
from voxelrt.models.architectures.layers import Layers, Parameters

Size = tuple[int, int]
# Of ResNet: blocks in each stage, and whether a block is a bottleneck (1×1, 3×3, 1×1) or two 3×3.
RESNETS = {18: ((2, 2, 2, 2), False), 34: ((3, 4, 6, 3), False), 50: ((3, 4, 6, 3), True), 101: ((3, 4, 23, 3), True)}


def build_resnet(
    depth: int = 18,
    size: Size = (224, 224),
    *,
    batch: int = 1,
    channels: int = 3,
    classes: int = 10,
    width: int = 64,
    seed: int = 0,
    parameters: Parameters | None = None,
) -> ir.Model:
    """ResNet of He et al., CVPR 2016, with the stride on the 3×3 of a bottleneck as torchvision has it.

    Parameters
    ----------
    depth : one of ``RESNETS``.
    size : (Y, X).
    width : channels of the first stage; 64 in the paper.

    Raises
    ------
    UsageError : no such depth, or a size below one.
    """
    if depth not in RESNETS:
        raise UsageError(f"depth {depth}: choose from {', '.join(map(str, RESNETS))}")
    blocks, bottleneck = RESNETS[depth]
    net = Layers(seed, parameters)
    x = _normed(net, net.input("image", batch, channels, *size), channels, width, 7, stride=2)
    x = net.op("MaxPool", x, kernel_shape=(3, 3), strides=(2, 2), pads=(1, 1, 1, 1))
    before = width
    for stage, count in enumerate(blocks):
        inner = width << stage
        for block in range(count):
            stride = 2 if stage and not block else 1
            x = _residual(net, x, before, inner, stride, bottleneck)
            before = inner * (4 if bottleneck else 1)
    x = net.linear(net.mean(x, (2, 3)), before, classes, gain=1.0)
    return net.finish(f"resnet{depth}", logits=(x, (batch, classes)))


def _normed(
    net: Layers, x: ir.Value, inputs: int, outputs: int, kernel: int, act: str = "Relu", **options: int
) -> ir.Value:
    """Convolution without bias, batch norm, activation."""
    x = net.conv(x, inputs, outputs, kernel, bias=False, **options)
    return net.activation(net.batch_norm(x, outputs), act)


def _residual(net: Layers, x: ir.Value, inputs: int, inner: int, stride: int, bottleneck: bool) -> ir.Value:
    outputs = inner * (4 if bottleneck else 1)
    if bottleneck:
        y = _normed(net, x, inputs, inner, 1)
        y = _normed(net, y, inner, inner, 3, stride=stride)
        y = net.conv(y, inner, outputs, 1, bias=False)
    else:
        y = _normed(net, x, inputs, inner, 3, stride=stride)
        y = net.conv(y, inner, outputs, 3, bias=False)
    y = net.batch_norm(y, outputs, 0.3)  # a branch adds little to what it stands beside, as after training
    if stride > 1 or inputs != outputs:
        x = net.batch_norm(net.conv(x, inputs, outputs, 1, stride=stride, bias=False, gain=1.0), outputs)
    return net.activation(net.op("Add", y, x), "Relu")


def build_densenet(
    blocks: Sequence[int] = (6, 12, 24, 16),
    size: Size = (224, 224),
    *,
    batch: int = 1,
    channels: int = 3,
    classes: int = 10,
    growth: int = 32,
    seed: int = 0,
    parameters: Parameters | None = None,
) -> ir.Model:
    """DenseNet-BC of Huang et al., CVPR 2017; the default is DenseNet-121.

    Parameters
    ----------
    blocks : layers of each dense block.
    growth : channels that a layer adds.
    """
    net = Layers(seed, parameters)
    before = 2 * growth
    x = _normed(net, net.input("image", batch, channels, *size), channels, before, 7, stride=2)
    x = net.op("MaxPool", x, kernel_shape=(3, 3), strides=(2, 2), pads=(1, 1, 1, 1))
    for index, count in enumerate(blocks):
        for _ in range(count):
            y = net.activation(net.batch_norm(x, before), "Relu")
            y = _normed(net, y, before, 4 * growth, 1)
            x = net.op("Concat", x, net.conv(y, 4 * growth, growth, 3, bias=False), axis=1)
            before += growth
        x = net.activation(net.batch_norm(x, before), "Relu")
        if index < len(blocks) - 1:
            x = net.conv(x, before, before // 2, 1, bias=False)
            x = net.op("AveragePool", x, kernel_shape=(2, 2), strides=(2, 2))
            before //= 2
    x = net.reshape(net.op("GlobalAveragePool", x), batch, before)
    weight = net.weight(classes, before, fan_in=before, gain=1.0)
    x = net.op("Gemm", x, weight, net.near(0.0, classes), transB=1)
    return net.finish("densenet", logits=(x, (batch, classes)))


# Of EfficientNet-B0: expansion, channels, blocks, stride, kernel of each stage.
EFFICIENTNET = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)


def build_efficientnet(
    stages: Sequence[tuple[int, int, int, int, int]] = EFFICIENTNET,
    size: Size = (224, 224),
    *,
    batch: int = 1,
    channels: int = 3,
    classes: int = 10,
    stem: int = 32,
    head: int = 1280,
    seed: int = 0,
    parameters: Parameters | None = None,
) -> ir.Model:
    """EfficientNet of Tan and Le, ICML 2019: inverted bottlenecks, depth-wise, with squeeze and excitation; B0.

    Parameters
    ----------
    stages : (expansion, channels, blocks, stride, kernel) of each.
    """
    net = Layers(seed, parameters)
    x = _normed(net, net.input("image", batch, channels, *size), channels, stem, 3, "Silu", stride=2)
    before = stem
    for expansion, width, count, stride, kernel in stages:
        for block in range(count):
            x = _inverted(net, x, before, width, expansion, kernel, stride if block == 0 else 1)
            before = width
    x = _normed(net, x, before, head, 1, "Silu")
    x = net.linear(net.mean(x, (2, 3)), head, classes, gain=1.0)
    return net.finish("efficientnet", logits=(x, (batch, classes)))


def _inverted(
    net: Layers, x: ir.Value, inputs: int, outputs: int, expansion: int, kernel: int, stride: int
) -> ir.Value:
    inner = inputs * expansion
    y = _normed(net, x, inputs, inner, 1, "Silu") if expansion > 1 else x
    y = _normed(net, y, inner, inner, kernel, "Silu", stride=stride, groups=inner)
    squeezed = max(1, inputs // 4)
    gate = net.activation(net.conv(net.mean(y, (2, 3), keep=True), inner, squeezed, 1), "Silu")
    gate = net.activation(net.conv(gate, squeezed, inner, 1, gain=1.0), "Sigmoid")
    y = net.batch_norm(net.conv(net.op("Mul", y, gate), inner, outputs, 1, bias=False), outputs)
    return net.op("Add", y, x) if stride == 1 and inputs == outputs else y


def build_convnext(
    depths: Sequence[int] = (3, 3, 9, 3),
    widths: Sequence[int] = (96, 192, 384, 768),
    size: Size = (224, 224),
    *,
    batch: int = 1,
    channels: int = 3,
    classes: int = 10,
    seed: int = 0,
    parameters: Parameters | None = None,
) -> ir.Model:
    """ConvNeXt of Liu et al., CVPR 2022: 7×7 depth-wise convolutions, layer norms, GELU, layer scale; the tiny one.

    Parameters
    ----------
    depths, widths : blocks and channels of each stage.
    """
    net = Layers(seed, parameters)
    x, before = net.input("image", batch, channels, *size), channels
    for stage, (count, width) in enumerate(zip(depths, widths, strict=True)):
        patch = 2 if stage else 4
        x = x if not stage else _norm_channels(net, x, before)
        weight = net.weight(width, before, patch, patch, fan_in=before * patch * patch, gain=1.0)
        x = net.op("Conv", x, weight, net.near(0.0, width), kernel_shape=(patch, patch), strides=(patch, patch))
        x = x if stage else _norm_channels(net, x, width)
        for _ in range(count):
            y = net.transpose(net.conv(x, width, width, 7, groups=width, gain=1.0), 0, 2, 3, 1)
            y = net.linear(net.layer_norm(y, width), width, 4 * width, gain=1.0)
            y = net.linear(net.activation(y, "Gelu"), 4 * width, width)
            y = net.op("Mul", y, net.near(0.3, width))
            x = net.op("Add", x, net.transpose(y, 0, 3, 1, 2))
        before = width
    x = net.layer_norm(net.mean(x, (2, 3)), before)
    return net.finish("convnext", logits=(net.linear(x, before, classes, gain=1.0), (batch, classes)))


def _norm_channels(net: Layers, x: ir.Value, channels: int) -> ir.Value:
    return net.transpose(net.layer_norm(net.transpose(x, 0, 2, 3, 1), channels), 0, 3, 1, 2)
