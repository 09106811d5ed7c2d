"""Give every node a name of its own: ``<op>_<n>`` where it has none, a number behind one that is used twice."""

from __future__ import annotations

import onnx_ir as ir


def run(model: ir.Model) -> ir.Model:
    """Name the nodes of the model and of its inner graphs; names that are unique already are kept."""
    nodes = list(model.graph.all_nodes())
    taken: set[str] = set()
    nameless = []
    given = {node.name for node in nodes if node.name}
    counts: dict[str, int] = {}

    def fresh(stem: str, start: int) -> str:
        number = counts.get(stem, start)
        while f"{stem}_{number}" in given:
            number += 1
        counts[stem] = number + 1
        return f"{stem}_{number}"

    for node in nodes:
        if not node.name:
            nameless.append(node)
        elif node.name in taken:
            node.name = fresh(node.name, 2)
            given.add(node.name)
        taken.add(node.name or "")
    for node in nameless:
        node.name = fresh(node.op_type, 0)
        given.add(node.name)
    return model
