"""Bring both branches of an ``If`` that is decided at run time into the main graph, and select between their results.

Possible where what the branches give has the same static shapes: then every result is a ``Where``. What serves one
side alone need not run (``plan/guards.py``). Where a branch cannot work on these shapes at all (silero's network for
8 kHz on chunks of 16 kHz), the other takes the node's place, behind ``voxelrt.Require``, which is an error at run time
if the inputs ask for the impossible one. All else stays an ``If``.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from voxelrt.errors import ModelError
from voxelrt.graph.bodies import Names, place, take_over
from voxelrt.graph.edit import add_initializer, is_constant, names_of, static_shape, tensor_of
from voxelrt.graph.passes import infer_shapes
from voxelrt.graph.spec import OUR_DOMAIN

Refine = Callable[[ir.Model], ir.Model]
Branch = tuple[ir.Graph, list[ir.Value]]  # refined, and the outer values that its inputs stand for


def run(model: ir.Model, refine: Refine) -> bool:
    """Flatten what can be; the passes have to be at rest, so that a condition which follows from constants is one.

    Parameters
    ----------
    refine : applies all passes to the graph of a branch until nothing changes.

    Returns
    -------
    Whether anything was changed.
    """
    changed = False
    for node in [n for n in model.graph if n.op_type == "If" and n.domain == ""]:
        changed = _flatten(model, node, refine) or changed
    return changed


def _flatten(model: ir.Model, node: ir.Node, refine: Refine) -> bool:
    condition = node.inputs[0]
    size = static_shape(condition)
    if condition is None or size is None or any(d != 1 for d in size):
        return False
    sides = (_refined(model, node, "then_branch", refine), _refined(model, node, "else_branch", refine))
    if None in sides:
        return False
    possible = [side for side in sides if isinstance(side, tuple)]
    names = Names(names_of(model.graph), {str(n.name) for n in model.graph.all_nodes()})
    if len(possible) == 2 and _alike(*possible):
        flag = _scalar(model.graph, node, condition, names) if size else condition
        results = [place(model.graph, node, graph, outer, names) for graph, outer in possible]
        made = [_add(model.graph, node, "Where", [flag, *pair], names) for pair in zip(*results, strict=True)]
    elif len(possible) == 1:
        results = [place(model.graph, node, *possible[0], names)]
        wanted = ir.AttrInt64("wanted", int(isinstance(sides[0], tuple)))
        made = [_add(model.graph, node, "Require", [v, condition], names, OUR_DOMAIN, wanted) for v in results[0]]
    else:
        return False
    take_over(model.graph, node, made, names)
    model.graph.remove(node, safe=True)
    model.opset_imports.setdefault(OUR_DOMAIN, 1)
    return True


def _alike(first: Branch, second: Branch) -> bool:
    """Whether both branches give tensors of the same shapes and dtypes."""
    pairs = list(zip(first[0].outputs, second[0].outputs, strict=True))
    return all(static_shape(a) == static_shape(b) and a.dtype == b.dtype for a, b in pairs)


def _refined(model: ir.Model, node: ir.Node, which: str, refine: Refine) -> Branch | str | None:
    """A branch as a graph of its own; "impossible" where it cannot work on these shapes; None where that is open."""
    graph = node.attributes[which].as_graph().clone(allow_outer_scope_values=True)
    outer: dict[ir.Value, ir.Value] = {}
    for inner in (graph, *graph.subgraphs()):
        for index, value in enumerate(inner.outputs):
            if value.graph is not None and value.graph is model.graph:
                inner.outputs[index] = outer.setdefault(value, _stand_in(value))
        for nested in inner:
            for index, read in enumerate(nested.inputs):
                if read is not None and read.graph is model.graph:
                    nested.replace_input_with(index, outer.setdefault(read, _stand_in(read)))
    for value, stand_in in outer.items():
        if is_constant(value):
            graph.register_initializer(stand_in)
        elif not _is_static(value):
            return None
        else:
            graph.inputs.append(stand_in)
    alone = ir.Model(graph, ir_version=model.ir_version or 10)
    alone.opset_imports.update(model.opset_imports)
    try:
        alone = refine(alone)
        infer_shapes.check(alone)
    except ModelError:
        return "impossible"
    if infer_shapes.cannot_run(alone):
        return "impossible"
    if not all(_is_static(value) for value in alone.graph.outputs):
        return None
    known = {stand_in: value for value, stand_in in outer.items()}
    return alone.graph, [known[value] for value in alone.graph.inputs]


def _is_static(value: ir.Value) -> bool:
    """Whether a value is a tensor of a known shape; sequences and optionals have a dtype too."""
    return isinstance(value.type, ir.TensorType) and static_shape(value) is not None


def _stand_in(value: ir.Value) -> ir.Value:
    """A value of a branch's own graph in place of one outside."""
    shape = None if value.shape is None else ir.Shape(list(value.shape))
    return ir.Value(name=value.name, type=value.type, shape=shape, const_value=value.const_value)


def _scalar(graph: ir.Graph, before: ir.Node, condition: ir.Value, names: Names) -> ir.Value:
    """A condition with axes as one without: they would show in what a Where gives."""
    shape = add_initializer(graph, names.value("condition_shape"), tensor_of(np.zeros(0, np.int64)))
    return _add(graph, before, "Reshape", [condition, shape], names)


def _add(
    graph: ir.Graph,
    before: ir.Node,
    kind: str,
    inputs: list[ir.Value],
    names: Names,
    domain: str = "",
    *attributes: ir.Attr,
) -> ir.Value:
    node = ir.Node(domain, kind, inputs, attributes, num_outputs=1, name=names.node(f"{before.name}_{kind.lower()}"))
    like = inputs[0] if kind in ("Require", "Reshape") else inputs[1]
    node.outputs[0].name = names.value(f"{node.name}_output")
    node.outputs[0].type = like.type
    graph.insert_before(before, node)
    return node.outputs[0]
