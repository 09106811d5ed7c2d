"""The nodes of a TensorFlow graph by name: references, order, sinks. Nothing here knows what an op means."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Iterator
from typing import Any

from voxelrt.errors import ModelError, UnsupportedError, UsageError

# Ops that stand for reading training data; a frozen graph may still hold the end of its input pipeline.
_PIPELINE = ("Iterator", "OneShotIterator", "MakeIterator", "Queue", "FIFOQueue", "PaddingFIFOQueue", "Parse", "Reader")
_LOOP = frozenset({"Enter", "NextIteration", "LoopCond", "Exit", "RefEnter", "RefNextIteration"})
# Ops that never are a result of interest although nothing reads them.
_NO_RESULT = frozenset(
    {
        "Const",
        "Placeholder",
        "PlaceholderWithDefault",
        "NoOp",
        "Assert",
        "SaveV2",
        "RestoreV2",
        "MergeSummary",
        "Assign",
    }
    | {"ScalarSummary", "HistogramSummary", "ImageSummary", "Switch", "VariableV2", "VarHandleOp", "Print"}
)


def split(reference: str) -> tuple[str, int, bool]:
    """``name``, ``name:2`` or ``^name`` as the node's name, the number of the output, and whether it only orders."""
    control = reference.startswith("^")
    name, _, port = reference.removeprefix("^").partition(":")
    if (port and not (port.isascii() and port.isdigit() and len(port) < 7)) or not name:
        raise ModelError(f"{reference!r} is not the name of a node's output")
    return name, int(port or 0), control


class NodeTable:
    """The nodes of a graph message by name.

    Raises
    ------
    ModelError
        Two nodes have one name, or a node has none.
    """

    def __init__(self, nodes: Iterable[Any]) -> None:
        self.nodes: dict[str, Any] = {}
        for node in nodes:
            if not node.name or node.name in self.nodes:
                raise ModelError(f"the graph has two nodes named {node.name!r}, or one without a name")
            self.nodes[node.name] = node

    def attributes(self, name: str) -> dict[str, Any]:
        """The attribute messages of a node by key."""
        return {entry.key: entry.value for entry in self.nodes[name].attr}

    def data(self, name: str) -> Iterator[tuple[str, int]]:
        """The nodes and outputs that a node reads."""
        for reference in self.nodes[name].input:
            source, port, control = split(reference)
            if not control:
                yield source, port

    def named(self, name: str, what: str) -> str:
        """The name of a node that a user gave; UsageError with the nearest one if there is none."""
        if name not in self.nodes:
            near = difflib.get_close_matches(name, list(self.nodes), 3)
            hint = f"; near it: {', '.join(near)}" if near else ""
            raise UsageError(f"the graph has no node {name!r}, asked for as {what}{hint}")
        return name

    def sequence(self, wanted: Iterable[str], cuts: Collection[str]) -> list[str]:
        """The nodes that the wanted ones need, control inputs included, each after what it needs.

        Parameters
        ----------
        wanted
            Names of nodes.
        cuts
            Nodes whose own inputs are not followed.

        Raises
        ------
        ModelError
            A reference to a node that is not there, or a cycle; UnsupportedError where the cycle is a loop.
        """
        order: list[str] = []
        state: dict[str, bool] = {}  # False: on the path; True: done
        for start in wanted:
            path: list[tuple[str, Iterator[str]]] = []
            if start not in state:
                state[start] = False
                path.append((start, iter(self._needs(start, cuts))))
            while path:
                name, rest = path[-1]
                following = next(rest, None)
                if following is None:
                    path.pop()
                    state[name] = True
                    order.append(name)
                elif following not in state:
                    if following not in self.nodes:
                        raise ModelError(f"node {name} reads {following!r}, which is not in the graph")
                    state[following] = False
                    path.append((following, iter(self._needs(following, cuts))))
                elif not state[following]:
                    names = [n for n, _ in path]
                    self._refuse_cycle(names[names.index(following) :])
        return order

    def _needs(self, name: str, cuts: Collection[str]) -> list[str]:
        return [] if name in cuts else [split(r)[0] for r in self.nodes[name].input]

    def _refuse_cycle(self, names: list[str]) -> None:
        loop = [f"{n} ({self.nodes[n].op}): part of a loop" for n in names if self.nodes[n].op in _LOOP]
        if loop:
            raise UnsupportedError("the graph holds a loop, which cannot be imported:", loop)
        raise ModelError(f"the graph is damaged: a cycle through {', '.join(names[:5])}")

    def sinks(self) -> list[str]:
        """Nodes that no other one reads and that could be a result, in the file's order."""
        read = {split(r)[0] for node in self.nodes.values() for r in node.input if not r.startswith("^")}
        return [n for n, node in self.nodes.items() if n not in read and node.op not in _NO_RESULT]

    def without_pipeline(self, outputs: Iterable[str], cuts: Collection[str]) -> tuple[list[str], list[str]]:
        """Outputs that need no training data: one that does is replaced by those of its inputs that do not.

        Returns
        -------
        The outputs that are left, and those that were replaced.
        """
        tainted: set[str] = set()
        fed: set[str] = set()
        outputs = list(outputs)
        for name in self.sequence(outputs, cuts):
            sources = set() if name in cuts else {source for source, _ in self.data(name)}
            if sources & tainted or self.nodes[name].op.startswith(_PIPELINE):
                tainted.add(name)
            if name in cuts or sources & fed:
                fed.add(name)
        found: dict[str, None] = {}
        replaced: list[str] = []
        seen: set[str] = set()
        pending = outputs[::-1]
        while pending:
            name = pending.pop()
            if name in seen:
                continue
            seen.add(name)
            if name not in tainted:
                found[name] = None
            else:
                replaced += [name] if name in outputs else []
                pending += [s for s, _ in self.data(name) if s in fed and s not in cuts][::-1]
        return list(found), replaced
