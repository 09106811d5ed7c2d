"""Resize."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx_ir as ir

from voxelrt.kernels.common import capi
from voxelrt.kernels.resize.codes import COORDINATES, MODES, ROUNDINGS
from voxelrt.plan.lowering.attributes import integer, integers, real, text
from voxelrt.plan.lowering.builder import Builder, Unsupported, dims_of, dtype_of, lowers
from voxelrt.plan.schedule import BLOCKED16, LINEAR

FLOAT32, FLOAT64 = capi.DTYPES["float32"], capi.DTYPES["float64"]
Roi = list[tuple[float, float]]


@lowers("Resize")
def resize(b: Builder, node: ir.Node) -> None:
    """Resize with constant scales or sizes; a blocked volume that is resized in space stays blocked."""
    x, out = node.inputs[0], node.outputs[0]
    assert x is not None
    before, after = dims_of(x), dims_of(out)
    mode = text(node, "mode", "nearest")
    coordinate = text(node, "coordinate_transformation_mode", "half_pixel")
    scales, roi = _scales(b, node), _roi(b, node, coordinate)
    crops = coordinate == "tf_crop_and_resize"
    if before == after and all(s == 1 for s in scales) and not crops:
        b.alias(out, b.value(x))
        return
    blocked = b.is_blocked(x) and not crops and scales[:2] == [1.0, 1.0] and before[:2] == after[:2]
    if blocked:  # unit axes in front of the spatial ones
        scales = [*scales[:2], *[1.0] * (5 - len(scales)), *scales[2:]]
    rest = capi.MAX_RANK - len(scales)
    params: dict[str, Any] = {
        "mode": _code(mode, MODES, "mode"),
        "coordinate": _code(coordinate, COORDINATES, "coordinate_transformation_mode"),
        "rounding": _code(text(node, "nearest_mode", "round_prefer_floor"), ROUNDINGS, "nearest_mode"),
        "antialias": integer(node, "antialias", 0),
        "exclude_outside": integer(node, "exclude_outside", 0),
        "cubic": real(node, "cubic_coeff_a", -0.75),
        "extrapolation": real(node, "extrapolation_value", 0.0),
        "scale": [*scales, *[1.0] * rest],
        "roi": [end[i] for i in range(2) for end in (*roi, *[(0.0, 1.0)] * (capi.MAX_RANK - len(roi)))],
    }
    source = b.blocked(x) if blocked else b.linear(x)
    target = b.result(out, BLOCKED16 if blocked else LINEAR)
    flops = target.count * (0 if mode == "nearest" else 2 ** sum(s != 1 for s in scales))
    if mode == "nearest" or dtype_of(x) in (FLOAT32, FLOAT64):
        b.step("resize", [source], [target], flops=flops, **params)
        return
    wide, made = b.temporary(before, FLOAT32), b.temporary(after, FLOAT32)
    b.step("elementwise.cast", [source], [wide], reserved=0)
    b.step("resize", [wide], [made], flops=flops, **params)
    b.step("elementwise.cast", [made], [target], reserved=0)


def _code(value: str, values: Sequence[str], what: str) -> int:
    if value not in values:
        raise Unsupported(f"{what} {value!r}")
    return values.index(value)


def _input(node: ir.Node, index: int) -> ir.Value | None:
    return node.inputs[index] if len(node.inputs) > index else None


def _axes(node: ir.Node) -> list[int]:
    x = node.inputs[0]
    assert x is not None
    rank = len(dims_of(x))
    return [a % rank for a in integers(node, "axes") or range(rank)]


def _scales(b: Builder, node: ir.Node) -> list[float]:
    """The factor of every axis (ONNX Resize, ``scales``, ``sizes`` and ``keep_aspect_ratio_policy``)."""
    x = node.inputs[0]
    assert x is not None
    dims, axes = dims_of(x), _axes(node)
    factors = [1.0] * len(dims)
    given = _input(node, 2)
    scales = b.need_constant(given, "the scales").ravel() if given is not None else ()
    if len(scales):
        for axis, scale in zip(axes, scales, strict=True):
            factors[axis] = float(scale)
        return factors
    sizes = b.need_constant(_input(node, 3), "the sizes").ravel()
    if 0 in dims:
        raise Unsupported("sizes of an empty value")
    ratios = [float(size) / dims[axis] for axis, size in zip(axes, sizes, strict=True)]
    policy = text(node, "keep_aspect_ratio_policy", "stretch")
    if policy in ("not_larger", "not_smaller"):
        ratios = [min(ratios) if policy == "not_larger" else max(ratios)] * len(ratios)
    for axis, ratio in zip(axes, ratios, strict=True):
        factors[axis] = ratio
    return factors


def _roi(b: Builder, node: ir.Node, coordinate: str) -> Roi:
    x = node.inputs[0]
    assert x is not None
    roi: Roi = [(0.0, 1.0)] * len(dims_of(x))
    if coordinate == "tf_crop_and_resize":
        axes = _axes(node)
        ends = b.need_constant(_input(node, 1), "the region").ravel()
        for i, axis in enumerate(axes):
            roi[axis] = (float(ends[i]), float(ends[i + len(axes)]))
    return roi
