"""Attributes of ONNX nodes, typed, and what convolutions and pools share: windows as 3-D ones with unit axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from voxelrt.plan.lowering.builder import Unsupported


def integer(node: ir.Node, name: str, default: int) -> int:
    attribute = node.attributes.get(name)
    return int(attribute.as_int()) if attribute is not None else default


def real(node: ir.Node, name: str, default: float) -> float:
    attribute = node.attributes.get(name)
    return float(attribute.as_float()) if attribute is not None else default


def text(node: ir.Node, name: str, default: str) -> str:
    attribute = node.attributes.get(name)
    return str(attribute.as_string()) if attribute is not None else default


def integers(node: ir.Node, name: str) -> tuple[int, ...] | None:
    attribute = node.attributes.get(name)
    return tuple(int(v) for v in attribute.as_ints()) if attribute is not None else None


@dataclass(frozen=True)
class Window:
    """A convolution's or pool's window on (Z, Y, X)."""

    kernel: tuple[int, int, int]
    stride: tuple[int, int, int]
    dilation: tuple[int, int, int]
    pad_begin: tuple[int, int, int]
    pad_end: tuple[int, int, int]

    @property
    def taps(self) -> int:
        return self.kernel[0] * self.kernel[1] * self.kernel[2]


def three(values: Sequence[int], fill: int) -> tuple[int, int, int]:
    """Values of 1 to 3 spatial axes as (Z, Y, X)."""
    if len(values) > 3:
        raise Unsupported(f"{len(values)} spatial axes; at most 3 are supported")
    z, y, x = (*(fill,) * (3 - len(values)), *values)
    return (int(z), int(y), int(x))


def window(node: ir.Node, size: Sequence[int], kernel: Sequence[int]) -> Window:
    """The window of a Conv or pool whose input has this spatial size; ``auto_pad`` resolved."""
    rank = len(size)
    stride = integers(node, "strides") or (1,) * rank
    dilation = integers(node, "dilations") or (1,) * rank
    begin, end = padding(node, size, kernel, stride, dilation)
    return Window(three(kernel, 1), three(stride, 1), three(dilation, 1), three(begin, 0), three(end, 0))


def padding(
    node: ir.Node, size: Sequence[int], kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The padding at both ends of each axis (ONNX Conv, attributes ``auto_pad`` and ``pads``)."""
    rank = len(size)
    mode = text(node, "auto_pad", "NOTSET")
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        begin, end = [], []
        for n, k, s, d in zip(size, kernel, stride, dilation, strict=True):
            total = max(0, (-(-n // s) - 1) * s + d * (k - 1) + 1 - n)
            low = total // 2 if mode == "SAME_UPPER" else total - total // 2
            begin.append(low)
            end.append(total - low)
        return tuple(begin), tuple(end)
    pads = integers(node, "pads") if mode == "NOTSET" else None
    given = pads or (0,) * (2 * rank)
    return given[:rank], given[rank:]
