"""Conv and ConvTranspose. A convolution takes its activation, and a skip concat in front of it as two sources."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from voxelrt.graph.quantised import Quantised, quantised_convolution
from voxelrt.kernels.common import capi, native
from voxelrt.kernels.conv3d.algorithm import DIRECT, Algorithm, Problem, algorithms
from voxelrt.plan.lowering.attributes import Window, integer, integers, text, three, window
from voxelrt.plan.lowering.builder import Activation, Builder, Unsupported, dims_of, dtype_of, lowers
from voxelrt.plan.lowering.frames import frames, is_product
from voxelrt.plan.lowering.fusion import fused_activation
from voxelrt.plan.schedule import BLOCKED16, LINEAR, Operand

FLOAT32, BFLOAT16 = capi.DTYPES["float32"], capi.DTYPES["bfloat16"]
FEW = 4  # channels up to which a first layer stays LINEAR
FEW_OUT = 8  # and up to which a last one does


@lowers("Conv")
def conv(b: Builder, node: ir.Node) -> None:
    """Conv: BLOCKED16 with packed weights where the kernel takes it, else the LINEAR fallback."""
    quantised = quantised_convolution(node)
    if quantised is not None:
        _integers(b, node, quantised)
        return
    x, w = node.inputs[0], node.inputs[1]
    assert x is not None
    weights = b.need_constant(w, "the weight of a convolution")
    groups = integer(node, "group", 1)
    if weights.ndim != len(dims_of(x)):
        raise Unsupported(f"a weight of {weights.ndim} axes on a value of {len(dims_of(x))}")
    shape = window(node, dims_of(x)[2:], weights.shape[2:])
    raw = weights.reshape(*weights.shape[:2], *shape.kernel)
    bias = _bias(b, node)
    if is_product(dims_of(x), weights.shape, groups, shape):
        frames(b, node, weights, bias, shape)
    elif dtype_of(x) == FLOAT32 and groups == dims_of(x)[1] == raw.shape[0] > 1:
        _depthwise(b, node, raw, bias, shape)
    elif dtype_of(x) == FLOAT32 and _divides(raw, groups):
        _direct(b, node, raw, bias, shape, groups)
    else:
        more = {"channels0": dims_of(x)[1], "output_channel_offset": 0}
        _linear(b, node, "conv3d.grouped", raw, bias, {**_window_params(shape), **more}, groups)


def _integers(b: Builder, node: ir.Node, found: Quantised) -> None:
    """A convolution of quantised numbers: the kernel rounds its source when it loads."""
    x = found.source if b.fuse else node.inputs[0]
    assert x is not None
    if found.weights.ndim != len(dims_of(x)):
        raise Unsupported(f"a weight of {found.weights.ndim} axes on a value of {len(dims_of(x))}")
    shape = window(node, dims_of(x)[2:], found.weights.shape[2:])
    raw, bias = found.weights.reshape(*found.weights.shape[:2], *shape.kernel), _bias(b, node)
    first, second = _sources(b, x)
    activation, out = fused_activation(b, node.outputs[0])
    target = b.result(out, LINEAR if raw.shape[0] <= FEW_OUT and not _read_by_volumes(out) else BLOCKED16)
    volume = b.volume(target)
    params = {
        **_window_params(shape),
        "algorithm": 0,
        "groups": 1,
        "channels0": first.dims[1],
        "activation": activation.kind,
        "alpha": activation.alpha,
        "beta": activation.beta,
        "output_channel_offset": 0,
        "precision": 2,
        "source_scale": found.scale,
        "source_zero": found.zero,
        "source_signed": int(found.signed),
    }
    packed = b.weight(raw, "conv3d.int8", **params)
    vector = None if bias is None else b.weight(bias)
    flops = 2 * shape.taps * raw.shape[1] * target.count
    operands = [first, second, packed, vector, None, b.weight(found.weight_scales)]
    b.step("conv3d.int8", operands, [volume], flops=flops, **params)
    if not activation.kind and volume.layout == BLOCKED16:
        b.offer_sums(volume)


def _divides(raw: np.ndarray[Any, Any], groups: int) -> bool:
    """Whether every group is whole blocks of channels."""
    return groups == 1 or (raw.shape[1] % native.BLOCK == 0 and raw.shape[0] // groups % native.BLOCK == 0)


def _bias(b: Builder, node: ir.Node) -> np.ndarray[Any, Any] | None:
    value = node.inputs[2] if len(node.inputs) > 2 else None
    return None if value is None else b.need_constant(value, "the bias of a convolution")


def _window_params(shape: Window) -> dict[str, Any]:
    return {
        "kernel": shape.kernel,
        "stride": shape.stride,
        "dilation": shape.dilation,
        "pad_begin": shape.pad_begin,
        "pad_end": shape.pad_end,
    }


def _sources(b: Builder, x: ir.Value) -> tuple[Operand, Operand | None]:
    """The input as one operand, or as the two sources of a concat that was left unmaterialised."""
    pair = b.concat_sources(x)
    if pair is not None:
        return _loaded(b, pair[0]), _loaded(b, pair[1])
    if dims_of(x)[1] <= FEW and b.value(x).layout == LINEAR:
        return b.volume(b.linear(x)), None
    return _loaded(b, x), None


def _loaded(b: Builder, x: ir.Value) -> Operand:
    """A blocked source as it is: the kernel applies a pending norm when it loads."""
    operand = b.value(x)
    return operand if operand.layout == BLOCKED16 else b.blocked(x)


def _read_by_volumes(value: ir.Value) -> bool:
    """Whether a consumer would want the value blocked."""
    wanting = ("Conv", "ConvTranspose", "MaxPool", "AveragePool", "InstanceNormalization", "Concat")
    return any(use.node.op_type in wanting for use in value.uses())


def _direct(
    b: Builder, node: ir.Node, raw: np.ndarray[Any, Any], bias: np.ndarray[Any, Any] | None, shape: Window, groups: int
) -> None:
    x = node.inputs[0]
    assert x is not None
    first, second = _sources(b, x)
    activation, out = fused_activation(b, node.outputs[0])
    head = raw.shape[0] <= FEW_OUT and not _read_by_volumes(out)
    # What rounding the network's own input would lose, no later layer brings back.
    target = b.result(out, LINEAR if head else BLOCKED16, exact=first.layout == LINEAR)
    volume = b.volume(target)
    params = {
        **_window_params(shape),
        "groups": groups,
        "channels0": first.dims[1],
        "activation": activation.kind,
        "alpha": activation.alpha,
        "beta": activation.beta,
        "output_channel_offset": 0,
        "precision": 0,
    }
    way = _algorithm(b, raw, (first, second), volume, shape, groups)
    packed = b.weight(raw, way.kernel, **{**params, **way.packing})
    b.step(
        way.kernel,
        [first, second, packed, b.weight(bias) if bias is not None else None, None],
        [volume],
        flops=2 * shape.taps * raw.shape[1] * target.count,
        **{**params, **way.params},
    )
    if not activation.kind and volume.layout == BLOCKED16:
        b.offer_sums(volume)


def _depthwise(
    b: Builder, node: ir.Node, raw: np.ndarray[Any, Any], bias: np.ndarray[Any, Any] | None, shape: Window
) -> None:
    """A group for each channel, so that nothing is summed over channels: in and out blocked."""
    x = node.inputs[0]
    assert x is not None
    source = _loaded(b, x)
    activation, out = fused_activation(b, node.outputs[0])
    target = b.result(out, BLOCKED16, exact=True)  # the kernel writes float32
    params = {
        **_window_params(shape),
        "algorithm": 0,
        "groups": raw.shape[0],
        "channels0": raw.shape[0],
        "activation": activation.kind,
        "alpha": activation.alpha,
        "beta": activation.beta,
        "output_channel_offset": 0,
        "precision": 0,
    }
    packed = b.weight(raw, "conv3d.depthwise", **params)
    operands = [source, None, packed, b.weight(bias) if bias is not None else None, None]
    b.step("conv3d.depthwise", operands, [target], flops=2 * shape.taps * target.count, **params)


def _algorithm(
    b: Builder,
    raw: np.ndarray[Any, Any],
    sources: Sequence[Operand | None],
    target: Operand,
    shape: Window,
    groups: int,
) -> Algorithm:
    """The builder's choice among the algorithms for these operands."""
    first, second = sources
    assert first is not None
    channels = first.dims[1] if second is None else -(-first.dims[1] // native.BLOCK) * native.BLOCK + second.dims[1]
    z, y, x = target.dims[2:]
    stored = "bf16" if BFLOAT16 in (first.dtype, target.dtype) else "fp32"
    problem = Problem(
        1, channels, target.dims[1], (z, y, x), shape.kernel, shape.stride, shape.dilation, groups, stored
    )
    blocked = first.layout == BLOCKED16 and target.layout == BLOCKED16
    found = [a for a in algorithms(problem) if blocked or a.params["algorithm"] == DIRECT]
    return b.choice.pick(b.weights.digest(raw), problem, found)


def _linear(
    b: Builder,
    node: ir.Node,
    kernel: str,
    raw: np.ndarray[Any, Any],
    bias: np.ndarray[Any, Any] | None,
    params: dict[str, Any],
    groups: int,
) -> None:
    """The LINEAR kernel: any groups, any channels, any float dtype."""
    x = node.inputs[0]
    assert x is not None
    source = b.volume(b.linear(x))
    activation, out = Activation(), node.outputs[0]
    if source.dtype == FLOAT32:
        activation, out = fused_activation(b, out)
    target = b.result(out)
    operands = [source, b.weight(raw), b.weight(bias) if bias is not None else None]
    if kernel.startswith("conv3d"):  # second source and residual are for the direct kernel
        operands = [source, None, *operands[1:], None]
    b.step(
        kernel,
        operands,
        [b.volume(target)],
        flops=2 * int(np.prod(raw.shape[1:])) * target.count,
        **params,
        algorithm=0,
        precision=0,
        groups=groups,
        activation=activation.kind,
        alpha=activation.alpha,
        beta=activation.beta,
    )


@lowers("ConvTranspose")
def conv_transpose(b: Builder, node: ir.Node) -> None:
    """ConvTranspose; ``output_shape`` and ``auto_pad`` become paddings as ONNX says."""
    x, w = node.inputs[0], node.inputs[1]
    assert x is not None
    weights = b.need_constant(w, "the weight of a transposed convolution")
    rank = len(dims_of(x)) - 2
    stride = integers(node, "strides") or (1,) * rank
    dilation = integers(node, "dilations") or (1,) * rank
    extra = integers(node, "output_padding") or (0,) * rank
    begin, end = _transposed_pads(node, dims_of(x)[2:], dims_of(node.outputs[0])[2:], weights.shape[2:])
    groups = integer(node, "group", 1)
    params: dict[str, Any] = {
        "kernel": three(weights.shape[2:], 1),
        "stride": three(stride, 1),
        "dilation": three(dilation, 1),
        "pad_begin": three(begin, 0),
        "pad_end": three(end, 0),
        "output_padding": three(extra, 0),
    }
    raw = weights.reshape(*weights.shape[:2], *three(weights.shape[2:], 1))
    bias = _bias(b, node)
    if dtype_of(x) != FLOAT32 or groups != 1:
        _linear(b, node, "conv_transpose3d.grouped", raw, bias, params, groups)
        return
    source = _loaded(b, x)
    activation, out = fused_activation(b, node.outputs[0])
    full: dict[str, Any] = {
        **params,
        "algorithm": 0,
        "precision": 0,
        "groups": 1,
        "activation": activation.kind,
        "alpha": activation.alpha,
        "beta": activation.beta,
    }
    kernel = "conv_transpose3d.direct"
    if b.half and params["kernel"] == params["stride"] and not any((*begin, *end, *extra)) and max(dilation) == 1:
        kernel, full["precision"] = "conv_transpose3d.bf16", 1
    packed = b.weight(raw, kernel, **full)
    target = b.result(out, BLOCKED16)
    b.step(
        kernel,
        [source, packed, b.weight(bias) if bias is not None else None],
        [target],
        flops=2 * int(np.prod(raw.shape[1:])) * source.count,
        **full,
    )


def _transposed_pads(
    node: ir.Node, size: tuple[int, ...], out: tuple[int, ...], kernel: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The paddings of a ConvTranspose from its output's size (ONNX ConvTranspose, ``output_shape``)."""
    rank = len(size)
    pads = integers(node, "pads")
    if text(node, "auto_pad", "NOTSET") == "NOTSET" and integers(node, "output_shape") is None:
        given = pads or (0,) * (2 * rank)
        return given[:rank], given[rank:]
    stride = integers(node, "strides") or (1,) * rank
    dilation = integers(node, "dilations") or (1,) * rank
    extra = integers(node, "output_padding") or (0,) * rank
    begin, end = [], []
    for n, o, k, s, d, e in zip(size, out, kernel, stride, dilation, extra, strict=True):
        total = s * (n - 1) + e + (k - 1) * d + 1 - o
        half = total // 2
        low = half if text(node, "auto_pad", "NOTSET") == "SAME_UPPER" else total - half
        begin.append(low)
        end.append(total - low)
    if min(*begin, *end) < 0:
        raise Unsupported("an output_shape that needs negative padding")
    return tuple(begin), tuple(end)
