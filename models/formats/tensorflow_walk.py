"""The one walk over a TensorFlow graph in topological order that folds, prunes and imports its nodes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, TypeAlias

import numpy as np

from voxelrt.errors import ModelError, UnsupportedError
from voxelrt.models.formats import tensorflow_arithmetic, tensorflow_convolutions, tensorflow_shapes, tensorflow_slices
from voxelrt.models.formats.tensorflow_graph import NodeTable, split
from voxelrt.models.formats.tensorflow_node import IMPORTERS, Node
from voxelrt.models.formats.tensorflow_schema import tensor_array
from voxelrt.models.formats.tensorflow_values import FOLD_LIMIT, Builder, Cannot, Value, constant

# Importing these modules fills the table of importers.
TABLES = (tensorflow_arithmetic, tensorflow_convolutions, tensorflow_shapes, tensorflow_slices)
# What an importer may raise on a node whose attributes or inputs make no sense.
_MALFORMED = (IndexError, KeyError, ValueError, TypeError, OverflowError, ZeroDivisionError, AttributeError)


class Dead:
    """The value of an edge that is never computed, because a condition is folded to the other branch."""


class Blocked:
    """The value of an edge whose node, or one before it, cannot be imported."""


DEAD, BLOCKED = Dead(), Blocked()
Result: TypeAlias = Value | Dead | Blocked


class Walk:
    """Imports nodes one after the other and remembers the result of each output.

    A node that cannot be imported stops nothing: its reason is kept and told only if an output turns out to need it.

    Parameters
    ----------
    table : the nodes.
    builder : takes the ONNX nodes.
    given : values of nodes that are inputs of the graph or constants of the user.
    """

    def __init__(self, table: NodeTable, builder: Builder, given: Mapping[str, Value]) -> None:
        self.table = table
        self.builder = builder
        self.results: dict[str, tuple[Result, ...]] = {name: (value,) for name, value in given.items()}
        self.reasons: dict[str, str] = {}
        self.faults: dict[str, ModelError] = {}
        self._readers: dict[tuple[str, int], int] = {}

    def run(self, names: Collection[str], outputs: Iterable[tuple[str, int]]) -> None:
        """Import the nodes; ``names`` are in topological order, ``outputs`` count as readers of their nodes."""
        for name in names:
            for source in self.table.data(name):
                self._readers[source] = self._readers.get(source, 0) + 1
        for source in outputs:
            self._readers[source] = self._readers.get(source, 0) + 1
        for name in names:
            if name not in self.results:
                self.results[name] = self._node(name)

    def result(self, name: str, port: int) -> Result:
        """The result of one output of a node."""
        found = self.results[name]
        if port < len(found):
            return found[port]
        if found[0] is DEAD:
            return DEAD
        if found[0] is not BLOCKED:
            self.reasons[name] = f"{name} ({self.table.nodes[name].op}): its output {port} is not imported"
        return BLOCKED

    def _node(self, name: str) -> tuple[Result, ...]:
        message = self.table.nodes[name]
        inputs = [self.result(*source) for source in self.table.data(name)]
        if message.op == "Merge":
            return self._merge(name, inputs)
        controls = [r for r in message.input if r.startswith("^")]
        if DEAD in inputs or any(self.results[split(r)[0]][0] is DEAD for r in controls):
            return (DEAD, DEAD)
        node = Node(name, message.op, self.table.attributes(name))
        node.sole_reader = all(self._readers.get(s, 0) == 1 for s in list(self.table.data(name))[:1])
        try:
            if message.op == "Const" and "value" in node.attributes:
                return (self._kept(node, self._constant(node)),)
            if message.op not in IMPORTERS and message.op != "Switch":
                raise Cannot("this op is not supported")
            node.inputs = [i for i in inputs if isinstance(i, Value)]
            if len(node.inputs) < len(inputs):
                return (BLOCKED,)
            if message.op == "Switch":
                return self._switch(node)
            return (self._kept(node, IMPORTERS[message.op](self.builder, node)),)
        except Cannot as reason:
            self.reasons[name] = f"{name} ({message.op}): {reason}"
        except ModelError as error:
            if self.builder.budget < 0:
                raise
            # Without its traceback, which would keep the arrays of its frames alive.
            self.faults[name] = error.with_traceback(None)
        except _MALFORMED as error:
            self.faults[name] = ModelError(f"node {name} ({message.op}) is malformed: {error}")
        return (BLOCKED,)

    def _kept(self, node: Node, value: Value) -> Value:
        if value.array is not None and value not in node.inputs:
            self.builder.charge(value.array.nbytes)
        return value

    def _constant(self, node: Node) -> Value:
        array = tensor_array(node.attributes["value"].tensor, node.name, FOLD_LIMIT)
        return constant(node.name, array)

    def _switch(self, node: Node) -> tuple[Result, ...]:
        try:
            condition = node.array(1)
        except Cannot as reason:
            raise Cannot("its condition is known only at run time") from reason
        if condition.size != 1 or condition.dtype != np.bool_:
            raise ModelError(f"node {node.name} (Switch): its condition is {condition.dtype} of {condition.shape}")
        data = node.input(0)
        return (DEAD, data) if condition.reshape(()) else (data, DEAD)

    def _merge(self, name: str, inputs: list[Result]) -> tuple[Result, ...]:
        live = [i for i, value in enumerate(inputs) if value is not DEAD]
        if len(live) == 1:
            index = constant(f"{name}:1", np.array(live[0], np.int32))
            return (inputs[live[0]], index)
        if not live:
            return (DEAD, DEAD)
        if BLOCKED not in inputs:
            self.reasons[name] = f"{name} (Merge): more than one branch reaches it"
        return (BLOCKED,)

    def refuse(self, outputs: Iterable[tuple[str, int]]) -> None:
        """Raise what stands in the way of the outputs, all of it at once.

        Raises
        ------
        ModelError
            A node that is needed is damaged.
        UnsupportedError
            Nodes that are needed cannot be imported; each is listed.
        """
        pending = [name for name, port in outputs if self.result(name, port) is BLOCKED]
        seen: set[str] = set()
        while pending:
            name = pending.pop()
            if name not in seen:
                seen.add(name)
                pending += [
                    s for s, port in self.table.data(name) if s in self.results and self.result(s, port) is BLOCKED
                ]
        needed: list[Any] = [n for n in self.table.nodes if n in seen]
        for name in needed:
            if name in self.faults:
                raise self.faults[name]
        if needed:
            lines = [self.reasons[n] for n in needed if n in self.reasons]
            raise UnsupportedError(f"{len(lines)} nodes of the TensorFlow graph cannot be imported:", lines)
