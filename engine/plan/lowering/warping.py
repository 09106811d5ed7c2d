"""GridSample, and Warp of our own domain: both are one kernel, whose displacement a normalised grid can be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from voxelrt.errors import UsageError
from voxelrt.kernels.common import capi
from voxelrt.kernels.integrate.codes import PADDINGS as INTEGRATE_PADDINGS
from voxelrt.kernels.warp3d import normalised, onnx_padding
from voxelrt.kernels.warp3d.codes import MODES, PADDINGS
from voxelrt.kernels.warp3d.cpu import full_matrix
from voxelrt.plan.lowering.attributes import integer, text
from voxelrt.plan.lowering.builder import Builder, Unsupported, dims_of, lowers
from voxelrt.plan.schedule import Operand

FLOAT32 = capi.DTYPES["float32"]
# ONNX's words, those of operator sets before 20 among them.
_ONNX_MODES = {
    "linear": "linear",
    "bilinear": "linear",
    "nearest": "nearest",
    "cubic": "keys",
    "bicubic": "keys",
}
_FLOPS = {"nearest": 20, "linear": 44, "keys": 160, "bspline": 160, "vote": 60}


@lowers("GridSample")
def grid_sample(b: Builder, node: ir.Node) -> None:
    """A grid given at run time, with ONNX's normalised positions."""
    x, grid = node.inputs[0], node.inputs[1]
    assert x is not None
    assert grid is not None
    size = dims_of(x)[2:]
    if len(size) not in (2, 3):
        raise Unsupported(f"a volume of {len(size)} spatial axes")
    mode = _ONNX_MODES.get(text(node, "mode", "linear"))
    if mode is None:
        raise Unsupported(f"the mode {text(node, 'mode', '')!r}")
    align_corners = bool(integer(node, "align_corners", 0))
    try:
        padding = onnx_padding(mode, text(node, "padding_mode", "zeros"), align_corners)
    except UsageError as error:
        raise Unsupported(str(error)) from error
    affine, matrix = normalised(size, align_corners)
    given = b.linear(grid)
    rank = len(given.dims)
    order = (0, rank - 1, *range(1, rank - 1))  # components in front, where they lie
    field = replace(given, dims=tuple(given.dims[i] for i in order), strides=tuple(given.strides[i] for i in order))
    _warp(b, node, field, b.weight(affine[None]), full_matrix(matrix, len(size)), mode, padding)


@lowers("Warp")
def warp(b: Builder, node: ir.Node) -> None:
    """Inputs: volume, displacement in voxels, affine; the two latter may be left out."""
    field, affine = (node.inputs[i] if i < len(node.inputs) else None for i in (1, 2))
    mode, padding = text(node, "mode", "linear"), text(node, "padding", "zeros")
    if mode not in MODES or padding not in PADDINGS:
        raise Unsupported(f"the mode {mode!r} with the padding {padding!r}")
    rows = None
    if affine is not None:
        rows = b.linear(affine)
        rows = rows if len(rows.dims) == 3 else rows.view((1, *rows.dims))
    axes = len(dims_of(node.outputs[0])) - 2
    source: Operand | None = None
    if mode == "bspline":
        x = node.inputs[0]
        assert x is not None
        given = b.linear(x)
        source = b.temporary(given.dims, FLOAT32)
        b.step("spline_prefilter", [given], [source], flops=source.count * axes * 5, reserved=0)
    moved = b.linear(field) if field is not None else None
    _warp(b, node, moved, rows, full_matrix(None, axes), mode, padding, source)


@lowers("IntegrateVelocity")
def integrate(b: Builder, node: ir.Node) -> None:
    """Scaling and squaring of a velocity field."""
    velocity = node.inputs[0]
    assert velocity is not None
    padding, steps = text(node, "padding", "zeros"), integer(node, "steps", 7)
    if padding not in INTEGRATE_PADDINGS:
        raise Unsupported(f"the padding {padding!r}")
    source, target = b.linear(velocity), b.result(node.outputs[0])
    number = INTEGRATE_PADDINGS.index(padding)
    b.step("integrate", [source], [target], flops=target.count * steps * 20, steps=steps, padding=number)


def _warp(
    b: Builder,
    node: ir.Node,
    field: Operand | None,
    affine: Operand | None,
    matrix: NDArray[np.float64],
    mode: str,
    padding: str,
    source: Operand | None = None,
) -> None:
    x, out = node.inputs[0], node.outputs[0]
    assert x is not None
    source, target = source or b.linear(x), b.result(out)
    b.step(
        "warp3d",
        [source, field, affine],
        [target],
        flops=target.count * _FLOPS[mode],
        mode=MODES.index(mode),
        padding=PADDINGS.index(padding),
        matrix=list(matrix.ravel()),
    )
