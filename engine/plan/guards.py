"""Which nodes serve one side of a selection alone: they need not run where the other side is selected."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from voxelrt.graph.edit import is_constant, static_shape
from voxelrt.plan.islands import reads

MOST = 8  # kMostGuards of kernels/common/format.h
Needs = tuple[tuple[ir.Value, bool], ...]


def guards_of(graph: ir.Graph) -> Mapping[ir.Node, Needs]:
    """The conditions, and what they must be, of the nodes that serve one side of ``Where`` alone; outermost first.

    Only conditions of one element that are made before the node in the graph's order, and that are not constants.
    """
    selections = [node for node in graph if node.op_type == "Where" and node.domain == "" and _decides(node.inputs[0])]
    if not selections:
        return {}
    order = {node: index for index, node in enumerate(graph)}
    readers: dict[ir.Value, list[tuple[ir.Node, int | None]]] = {}
    for node in graph:
        for index, value in enumerate(node.inputs):
            if value is not None:
                readers.setdefault(value, []).append((node, index))
        direct = set(node.inputs)
        for value in reads(node):
            if value not in direct:
                readers.setdefault(value, []).append((node, None))
    found: dict[ir.Node, list[tuple[ir.Value, bool]]] = {}
    for condition in dict.fromkeys(node.inputs[0] for node in reversed(selections)):
        assert condition is not None
        maker = condition.producer()
        first = -1 if maker is None else order[maker]
        for wanted in (True, False):
            for node in _serves(graph, condition, 1 if wanted else 2, readers, order, first):
                found.setdefault(node, []).append((condition, wanted))
    return {node: tuple(needs[:MOST]) for node, needs in found.items()}


def _decides(condition: ir.Value | None) -> bool:
    size = static_shape(condition)
    return size is not None and all(d == 1 for d in size) and not is_constant(condition)


def _serves(
    graph: ir.Graph,
    condition: ir.Value,
    side: int,
    readers: Mapping[ir.Value, list[tuple[ir.Node, int | None]]],
    order: Mapping[ir.Node, int],
    first: int,
) -> set[ir.Node]:
    """The nodes behind the condition whose results reach nothing but that input of its selections."""
    chosen: set[ir.Node] = set()

    def selects(node: ir.Node, index: int | None) -> bool:
        return node.op_type == "Where" and node.domain == "" and node.inputs[0] is condition and index == side

    for node in reversed(list(graph)):
        if order[node] <= first:
            break
        uses = [use for value in node.outputs for use in readers.get(value, ())]
        inside = all(user in chosen or selects(user, index) for user, index in uses)
        if uses and inside and not any(value.is_graph_output() for value in node.outputs):
            chosen.add(node)
    return chosen
