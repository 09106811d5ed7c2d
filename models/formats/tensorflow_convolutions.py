"""Importers of TensorFlow's sliding-window ops: convolutions, their transposes, pooling, bias and batch norm.

TensorFlow's rule for SAME: the output has ceil(in / stride) voxels, the padding that this needs is split evenly and
the odd one goes to the end. A transposed convolution is the gradient of one, so the rule holds with the roles of input
and output exchanged: the padding follows from the *output* size that the graph asks for, not from the kernel alone.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from voxelrt.errors import ModelError
from voxelrt.models.formats.tensorflow_node import Axes, Node, axes_of, importer
from voxelrt.models.formats.tensorflow_values import (
    MAX_DIM,
    Builder,
    Cannot,
    Dim,
    Order,
    Shape,
    Symbol,
    Value,
    constant,
)


def _window(node: Node, key: str, axes: Axes) -> list[int]:
    """A per-axis attribute (strides, dilations, ksize) along the spatial axes."""
    rank = len(axes.order)
    values = node.ints(key, [1] * rank)
    if len(values) != rank or any(not 1 <= v <= MAX_DIM for v in values):
        raise ModelError(f"node {node.name} ({node.op}): {key} {values} on a tensor with {rank} dims")
    if values[0] != 1 or values[axes.channel] != 1:
        raise Cannot(f"{key} {values} over batch or channels")
    return [values[a] for a in axes.space]


def _explicit(node: Node, axes: Axes) -> tuple[list[int], list[int]]:
    pads = node.ints("explicit_paddings", [])
    if len(pads) != 2 * len(axes.order) or any(not 0 <= p <= MAX_DIM for p in pads):
        raise ModelError(f"node {node.name} ({node.op}): explicit_paddings {pads}")
    return [pads[2 * a] for a in axes.space], [pads[2 * a + 1] for a in axes.space]


def _slide(node: Node, axes: Axes, shape: Shape, kernel: list[int]) -> tuple[list[Dim], dict[str, list[int] | str]]:
    """The output extents of a sliding window and the ONNX attributes that give them."""
    strides, dilations = _window(node, "strides", axes), _window(node, "dilations", axes)
    padding = node.text("padding", "VALID")
    begins, ends, out = [0] * len(kernel), [0] * len(kernel), list[Dim]()
    unknown = False
    if padding == "EXPLICIT":
        begins, ends = _explicit(node, axes)
    elif padding not in ("SAME", "VALID"):
        raise Cannot(f"padding {padding} is not known")
    for i, axis in enumerate(axes.space):
        extent, reach = shape[axis], (kernel[i] - 1) * dilations[i] + 1
        if isinstance(extent, Symbol):
            if padding == "SAME" and strides[i] == 1:
                begins[i], ends[i] = (reach - 1) // 2, reach // 2
                out.append(extent)
            else:
                unknown = unknown or padding == "SAME"
                out.append(Symbol())
        elif padding == "SAME":
            size = -(-extent // strides[i])
            total = max((size - 1) * strides[i] + reach - extent, 0)
            begins[i], ends[i] = total // 2, total - total // 2
            out.append(size)
        else:
            room = extent + begins[i] + ends[i] - reach
            if room < 0:
                raise ModelError(f"node {node.name} ({node.op}): a window of {reach} over {extent} voxels")
            out.append(room // strides[i] + 1)
    attributes: dict[str, list[int] | str] = {"strides": strides}
    if any(d != 1 for d in dilations):
        attributes["dilations"] = dilations
    if unknown:
        attributes["auto_pad"] = "SAME_UPPER"
    else:
        attributes["pads"] = begins + ends
    return out, attributes


def _tf_shape(axes: Axes, batch: Dim, channels: Dim, space: list[Dim]) -> Shape:
    placed = dict(zip(axes.order, [batch, channels, *space], strict=True))
    return tuple(placed[a] for a in range(len(axes.order)))


def _kernel(node: Node, index: int, rank: int) -> tuple[Value, list[int], Order]:
    """The filter, its known shape in TensorFlow's order (space…, in, out), and the order ONNX wants."""
    value = node.input(index)
    known = [d for d in value.shape if not isinstance(d, Symbol)]
    if len(known) != rank or value.rank != rank or 0 in known:
        raise ModelError(f"node {node.name} ({node.op}): a filter of shape {value.shape} on a tensor with {rank} dims")
    return value, known, (rank - 1, rank - 2, *range(rank - 2))


@importer("Conv2D", "Conv3D")
def _convolution(builder: Builder, node: Node) -> Value:
    data = node.input(0)
    axes = axes_of(node, data.rank)
    weights, kernel, order = _kernel(node, 1, data.rank)
    channels = data.shape[axes.channel]
    groups = 1
    if not isinstance(channels, Symbol):
        groups = channels // kernel[-2]
        if groups < 1 or channels % kernel[-2] or kernel[-1] % groups:
            raise ModelError(f"node {node.name} ({node.op}): {channels} channels, filter of shape {kernel}")
    out, attributes = _slide(node, axes, data.shape, kernel[:-2])
    extra = {"group": groups} if groups > 1 else {}
    return builder.result(
        "Conv",
        [builder.stored(data, axes.order), builder.stored(weights, order)],
        node.name,
        (data.dtype, _tf_shape(axes, data.shape[0], kernel[-1], out), axes.order),
        {**attributes, "kernel_shape": kernel[:-2], **extra},
    )


@importer("DepthwiseConv2dNative")
def _depthwise(builder: Builder, node: Node) -> Value:
    data, weights = node.input(0), node.array(1)
    axes = axes_of(node, data.rank)
    if weights.ndim != 4 or data.rank != 4 or data.shape[axes.channel] != weights.shape[2]:
        raise ModelError(f"node {node.name} ({node.op}): filter of shape {weights.shape} on {data.shape}")
    groups = weights.shape[2]
    merged = constant(node.input(1).name, weights.reshape(*weights.shape[:2], 1, -1))
    kernel = list(weights.shape[:2])
    out, attributes = _slide(node, axes, data.shape, kernel)
    return builder.result(
        "Conv",
        [builder.stored(data, axes.order), builder.stored(merged, (3, 2, 0, 1))],
        node.name,
        (data.dtype, _tf_shape(axes, data.shape[0], groups * weights.shape[3], out), axes.order),
        {**attributes, "kernel_shape": kernel, "group": groups},
    )


@importer("Conv2DBackpropInput", "Conv3DBackpropInputV2")
def _transposed(builder: Builder, node: Node) -> Value:
    sizes, data = node.partial(0).ravel().tolist(), node.input(2)
    axes = axes_of(node, data.rank)
    weights, kernel, order = _kernel(node, 1, data.rank)
    if len(sizes) != data.rank:
        raise ModelError(f"node {node.name} ({node.op}): output shape {sizes} for a tensor with {data.rank} dims")
    if not isinstance(data.shape[axes.channel], Symbol) and data.shape[axes.channel] != kernel[-1]:
        raise ModelError(f"node {node.name} ({node.op}): filter of shape {kernel} on {data.shape}")
    strides, dilations = _window(node, "strides", axes), _window(node, "dilations", axes)
    padding = node.text("padding", "VALID")
    begins, ends = _explicit(node, axes) if padding == "EXPLICIT" else ([0] * len(kernel[2:]), [0] * len(kernel[2:]))
    extra, out = [0] * len(begins), list[Dim]()
    for i, axis in enumerate(axes.space):
        reach = (kernel[i] - 1) * dilations[i] + 1
        size, extent = _transposed_extent(node, sizes[axis], data.shape[axis], strides[i], reach)
        # What the input covers, less what is asked for: positive is cut off, negative is added at the end.
        surplus = (extent - 1) * strides[i] + reach - begins[i] - ends[i] - size
        if surplus > 0 and padding == "SAME":
            begins[i], ends[i] = surplus // 2, surplus - surplus // 2
        elif surplus > 0 or -surplus >= strides[i]:
            raise ModelError(
                f"node {node.name} ({node.op}): {extent} voxels do not become {size} at stride {strides[i]}"
            )
        else:
            extra[i] = -surplus
        out.append(size if not isinstance(sizes[axis], Symbol) else sizes[axis])
    attributes = {"strides": strides, "pads": begins + ends, "kernel_shape": kernel[:-2]}
    attributes.update({"dilations": dilations} if any(d != 1 for d in dilations) else {})
    attributes.update({"output_padding": extra} if any(extra) else {})
    return builder.result(
        "ConvTranspose",
        [builder.stored(data, axes.order), builder.stored(weights, order)],
        node.name,
        (data.dtype, _tf_shape(axes, data.shape[0], kernel[-2], out), axes.order),
        attributes,
    )


def _transposed_extent(node: Node, size: Dim, extent: Dim, stride: int, reach: int) -> tuple[int, int]:
    """Output and input extent of one axis as numbers.

    Where neither is fixed, the padding can still be derived if the graph asks for exactly stride times the input: the
    difference does not depend on the extent, so any one stands for all.
    """
    same = node.text("padding", "VALID") == "SAME"
    if isinstance(size, Symbol):
        wanted = extent * stride
        if same and isinstance(extent, Symbol) and (size == wanted or size == stride * extent):
            return reach * stride, reach
        raise Cannot("its output size is not fixed; give the shapes of the inputs")
    expected = -(-size // stride) if same else (size - reach) // stride + 1
    if isinstance(extent, Symbol):
        return size, expected
    if _padding_known(node) and extent != expected:
        raise ModelError(f"node {node.name} ({node.op}): {extent} voxels do not become {size} at stride {stride}")
    return size, extent


def _padding_known(node: Node) -> bool:
    """True where the padding follows from the sizes (SAME, VALID) and is not spelled out."""
    return node.text("padding", "VALID") != "EXPLICIT"


@importer("MaxPool", "MaxPool3D", "AvgPool", "AvgPool3D")
def _pool(builder: Builder, node: Node) -> Value:
    data = node.input(0)
    axes = axes_of(node, data.rank)
    kernel = _window(node, "ksize", axes)
    out, attributes = _slide(node, axes, data.shape, kernel)
    # TensorFlow's average leaves the padding out of the count, which is ONNX's default as well.
    return builder.result(
        "MaxPool" if node.op.startswith("Max") else "AveragePool",
        [builder.stored(data, axes.order)],
        node.name,
        (data.dtype, _tf_shape(axes, data.shape[0], data.shape[axes.channel], out), axes.order),
        {**attributes, "kernel_shape": kernel},
    )


@importer("BiasAdd")
def _bias(builder: Builder, node: Node) -> Value:
    data, bias = node.input(0), node.input(1)
    # data_format is "NHWC" here even for volumes: only "channels first or last" is meant.
    channel = 1 if node.text("data_format", "").startswith("NC") else data.rank - 1
    if bias.rank != 1 or data.rank < 2 or (bias.array is not None and bias.shape[0] != data.shape[channel]):
        raise ModelError(f"node {node.name} ({node.op}): a bias of shape {bias.shape} on {data.shape}")
    before = builder.steps.get(data.stored) if data.stored is not None else None
    foldable = before is not None and before.op in ("Conv", "ConvTranspose") and len(before.inputs) == 2
    if before is not None and foldable and node.sole_reader and bias.array is not None and data.order[1] == channel:
        before.inputs.append(builder.stored(bias))
        return data
    side: ir.Value
    if bias.array is not None:
        extents = [1] * data.rank
        extents[channel] = -1
        side = builder.stored(constant(bias.name, bias.array.reshape(extents)), data.order)
    elif channel == data.rank - 1 and data.order == tuple(range(data.rank)):
        side = builder.stored(bias)
    else:
        raise Cannot("a bias that is known only at run time")
    like = (data.dtype, data.shape, data.order)
    return builder.result("Add", [builder.stored(data, data.order), side], node.name, like)


@importer("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3")
def _batch_norm(builder: Builder, node: Node) -> Value:
    if node.flag("is_training", True):
        raise Cannot("it is in training mode: freeze the graph for inference")
    data = node.input(0)
    axes = axes_of(node, data.rank)
    parameters = [node.input(i) for i in range(1, 5)]
    if any(p.rank != 1 or p.shape[0] != data.shape[axes.channel] for p in parameters):
        raise ModelError(f"node {node.name} ({node.op}): parameters of shapes {[p.shape for p in parameters]}")
    return builder.result(
        "BatchNormalization",
        [builder.stored(data, axes.order), *(builder.stored(p) for p in parameters)],
        node.name,
        (data.dtype, data.shape, axes.order),
        {"epsilon": float(np.float32(node.number("epsilon", 1e-4)))},
    )
