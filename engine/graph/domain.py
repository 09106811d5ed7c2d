"""The shape rules of our own operators: what ONNX shape inference cannot know.

Warp
    volume (N, C, …), displacement (N or 1, axes, …) in voxels or none, affine (N or 1, axes, axes + 1) or none;
    attributes mode, padding, shape.
IntegrateVelocity
    velocity (N, axes, …) in voxels; attributes steps, padding.
MDLSTM
    x (grid, N, inputs) with a grid of one to three axes, W, R and B (or none) as ``kernels/mdlstm`` has them
    -> (grid, 2^axes, N, hidden).

ChannelsLastNorm
    x (N, …, C), scale and bias (C,); attributes epsilon, activation, alpha -> x's shape. Of GPUs' graphs alone, see
    ``passes/norms_apart.py``.

Require
    x, a condition of one bool; attribute wanted -> x. An error at run time where the condition is another.

Modes and paddings are the words of ``kernels/warp3d/codes.py``; `shape` is the output's where there is no displacement.
"""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from voxelrt.errors import ModelError
from voxelrt.graph.edit import static_shape
from voxelrt.graph.spec import OUR_DOMAIN, label

Shape = tuple[int, ...]


def run(model: ir.Model) -> ir.Model:
    """Give the outputs of our operators their shapes and dtypes, where those of their inputs are known.

    Raises
    ------
    ModelError : inputs that do not fit each other.
    """
    for node in model.graph:
        rule = _RULES.get(node.op_type) if node.domain == OUR_DOMAIN else None
        source = node.inputs[0] if node.inputs else None
        if rule is None or source is None or static_shape(source) is None or source.dtype is None:
            continue
        shape = rule(node)
        if shape is not None:
            node.outputs[0].shape, node.outputs[0].type = ir.Shape(shape), ir.TensorType(source.dtype)
    return model


def _warp(node: ir.Node) -> Shape | None:
    volume = static_shape(node.inputs[0]) or ()
    axes = len(volume) - 2
    if axes not in (2, 3):
        raise ModelError(label(node, f"a volume has two or three spatial axes, not the shape {volume}"))
    field, affine = (node.inputs[i] if i < len(node.inputs) else None for i in (1, 2))
    rows = static_shape(affine)
    if rows is not None and rows not in ((1, axes, axes + 1), (volume[0], axes, axes + 1)):
        raise ModelError(label(node, f"an affine for {volume} is ({volume[0]}, {axes}, {axes + 1}), not {rows}"))
    if field is not None:
        moved = static_shape(field)
        if moved is None:
            return None
        if len(moved) != len(volume) or moved[1] != axes or moved[0] not in (1, volume[0]):
            raise ModelError(label(node, f"a displacement for {volume} is ({volume[0]}, {axes}, …), not {moved}"))
        return (*volume[:2], *moved[2:])
    shape = node.attributes.get("shape")
    size = tuple(int(n) for n in shape.as_ints()) if shape is not None else volume[2:]
    if len(size) != axes or min(size) < 0:
        raise ModelError(label(node, f"the shape {size} is not one of {axes} axes"))
    return (*volume[:2], *size)


def _integrate(node: ir.Node) -> Shape:
    velocity = static_shape(node.inputs[0]) or ()
    if len(velocity) not in (4, 5) or velocity[1] != len(velocity) - 2:
        raise ModelError(label(node, f"a velocity field is (N, 3, Z, Y, X) or (N, 2, Y, X), not {velocity}"))
    return velocity


def _mdlstm(node: ir.Node) -> Shape | None:
    cells = static_shape(node.inputs[0]) or ()
    axes = len(cells) - 2
    if axes not in (1, 2, 3):
        raise ModelError(label(node, f"x is (grid, N, inputs) with one to three axes of the grid, not {cells}"))
    shapes = [static_shape(node.inputs[i]) if i < len(node.inputs) else None for i in (1, 2, 3)]
    r = shapes[1]
    if r is None:
        return None
    hidden = r[-1] // axes if len(r) == 3 else 0
    if hidden < 1:
        raise ModelError(label(node, f"R for a grid of {axes} axes is (2^{axes}, {axes + 3} · H, {axes} · H), not {r}"))
    rows = (2**axes, (axes + 3) * hidden)
    for name, shape, wanted in zip("WRB", shapes, ((*rows, cells[-1]), (*rows, axes * hidden), rows), strict=True):
        if shape is not None and shape != wanted:
            raise ModelError(label(node, f"{name} for a grid of {axes} axes is {wanted}, not {shape}"))
    return (*cells[:axes], 2**axes, cells[axes], hidden)


def _like_first(node: ir.Node) -> Shape | None:
    return static_shape(node.inputs[0])


_RULES: dict[str, Callable[[ir.Node], Shape | None]] = {
    "Warp": _warp,
    "IntegrateVelocity": _integrate,
    "MDLSTM": _mdlstm,
    "Require": _like_first,
    "ChannelsLastNorm": _like_first,
}
