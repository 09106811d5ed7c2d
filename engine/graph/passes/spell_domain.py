"""Our own operators in plain ONNX, for executors that know no other: GridSample on a grid that is made for it.

It needs the grid in memory and rounds its positions to float32, which the native kernels do not; so this is no step of
compilation but the reference that plans are compared with, and a way out.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from voxelrt.errors import UnsupportedError
from voxelrt.graph.edit import add_initializer, free_name, names_of, static_shape, tensor_of
from voxelrt.graph.spec import OUR_DOMAIN, label, opset_of

GRID_SAMPLE_OPSET = 20  # the first whose GridSample takes volumes
_MODES = {"linear": "linear", "nearest": "nearest"}
_PADDINGS = {"zeros": "zeros", "border": "border", "reflect": "reflection"}


def run(model: ir.Model, only: Collection[ir.Node] | None = None) -> ir.Model:
    """Every Warp, IntegrateVelocity and Require of the main graph, or `only` some, becomes nodes of plain ONNX; shapes
    must be known.

    Raises
    ------
    UnsupportedError : there is no such form: a vote or a cubic spline, or an operator set before 20.
    """
    graph = model.graph
    ours = [node for node in graph if node.domain == OUR_DOMAIN and node.op_type in SPELLED]
    ours = [node for node in ours if only is None or node in only]
    if not ours:
        return model
    if any(node.op_type != "Require" for node in ours) and opset_of(model) < GRID_SAMPLE_OPSET:
        raise UnsupportedError(f"GridSample takes volumes since operator set 20; the model uses {opset_of(model)}")
    taken = names_of(graph)
    for node in ours:
        spelling = _Spelling(graph, node, taken)
        answer = _SPELLINGS[node.op_type](spelling)
        graph.insert_before(node, spelling.nodes)
        old, name = node.outputs[0], str(node.outputs[0].name)
        answer.shape, answer.type = old.shape, old.type
        old.replace_all_uses_with(answer, replace_graph_outputs=True)
        graph.remove(node, safe=True)
        answer.name = name
    return model


def spells(model: ir.Model) -> bool:
    """Whether all of our operators have a form in plain ONNX: MDLSTM has none, since its nodes would be as many as the
    grid has cells."""
    return all(node.domain != OUR_DOMAIN or node.op_type in SPELLED for node in model.graph)


class _Spelling:
    """The nodes that take one node's place."""

    def __init__(self, graph: ir.Graph, node: ir.Node, taken: set[str]) -> None:
        self.graph, self.node, self._taken = graph, node, taken
        self.nodes: list[ir.Node] = []

    def constant(self, array: NDArray[Any]) -> ir.Value:
        return add_initializer(self.graph, free_name(self._taken, f"{self.node.name}_part"), tensor_of(array))

    def op(self, kind: str, *inputs: ir.Value, **attributes: Any) -> ir.Value:
        name = free_name(self._taken, f"{self.node.name}_{kind.lower()}")
        made = ir.node(kind, list(inputs), attributes=attributes or None, name=name)
        made.outputs[0].name = free_name(self._taken, f"{name}_out")
        self.nodes.append(made)
        return made.outputs[0]

    def input(self, index: int) -> ir.Value | None:
        return self.node.inputs[index] if index < len(self.node.inputs) else None

    def text(self, name: str, default: str, known: dict[str, str]) -> str:
        attribute = self.node.attributes.get(name)
        word = attribute.as_string() if attribute is not None else default
        if word not in known:
            raise UnsupportedError(label(self.node, f"the {name} {word!r} has no form in plain ONNX"))
        return known[word]

    def sample(self, volume: ir.Value, position: ir.Value, mode: str, padding: str) -> ir.Value:
        """The volume at positions (N, …, axes), in voxels (z, y, x)."""
        size = np.array((static_shape(volume) or ())[2:], np.float64)
        centres = padding == "reflection"  # a reflection about the outer centres is one of aligned corners
        span = size - 1 if centres else size
        if (span < 1).any():
            raise UnsupportedError(label(self.node, f"a reflection in a volume of {tuple(map(int, size))} voxels"))
        backwards = self.constant(np.arange(len(size))[::-1].copy())
        scale, shift = 2 / span, (0 if centres else 1) / span - 1
        scaled = self.op("Mul", position, self.constant(scale.astype(np.float32)))
        grid = self.op("Gather", self.op("Add", scaled, self.constant(shift.astype(np.float32))), backwards, axis=-1)
        return self.op("GridSample", volume, grid, mode=mode, padding_mode=padding, align_corners=int(centres))


def _voxels(size: tuple[int, ...]) -> NDArray[np.float32]:
    """(1, …, axes): each voxel's own index (z, y, x)."""
    return np.stack(np.meshgrid(*[np.arange(n, dtype=np.float32) for n in size], indexing="ij"), -1)[None]


def _moved(s: _Spelling, position: ir.Value, field: ir.Value) -> ir.Value:
    rank = len(static_shape(field) or ())
    return s.op("Add", position, s.op("Transpose", field, perm=[0, *range(2, rank), 1]))


def _warp(s: _Spelling) -> ir.Value:
    volume, field, affine = (s.input(i) for i in range(3))
    assert volume is not None
    shape = static_shape(s.node.outputs[0])
    if shape is None:
        raise UnsupportedError(label(s.node, "its shape is not known"))
    position = s.constant(_voxels(shape[2:]))
    if affine is not None:
        axes = len(shape) - 2
        flat = s.op("Reshape", position, s.constant(np.array([1, -1, axes])))
        linear = s.op("Slice", affine, *(s.constant(np.array([v])) for v in (0, axes, 2)))
        shift = s.op("Slice", affine, *(s.constant(np.array([v])) for v in (axes, axes + 1, 2)))
        turned = s.op("MatMul", flat, s.op("Transpose", linear, perm=[0, 2, 1]))
        placed = s.op("Add", turned, s.op("Transpose", shift, perm=[0, 2, 1]))
        position = s.op("Reshape", placed, s.constant(np.array([-1, *shape[2:], axes])))
    if field is not None:
        position = _moved(s, position, field)
    whole = s.op("Expand", position, s.constant(np.array([shape[0], *shape[2:], len(shape) - 2])))
    return s.sample(volume, whole, s.text("mode", "linear", _MODES), s.text("padding", "zeros", _PADDINGS))


def _integrate(s: _Spelling) -> ir.Value:
    velocity = s.input(0)
    assert velocity is not None
    shape = static_shape(velocity)
    if shape is None:
        raise UnsupportedError(label(s.node, "its shape is not known"))
    attribute = s.node.attributes.get("steps")
    steps = attribute.as_int() if attribute is not None else 7
    padding = s.text("padding", "zeros", _PADDINGS)
    field = s.op("Mul", velocity, s.constant(np.full(1, 2.0**-steps, np.float32)))
    for _ in range(steps):
        field.shape, field.type = ir.Shape(shape), velocity.type
        found = s.sample(field, _moved(s, s.constant(_voxels(shape[2:])), field), "linear", padding)
        field = s.op("Add", field, found)
    return field


def _require(s: _Spelling) -> ir.Value:
    """Elsewhere nobody checks: the branch that is there runs whatever the condition says."""
    value = s.input(0)
    assert value is not None
    return s.op("Identity", value)


_SPELLINGS = {"Warp": _warp, "IntegrateVelocity": _integrate, "Require": _require}
SPELLED = frozenset(_SPELLINGS)
