"""An ONNX file of unknown origin: everything that is checked before anything is believed or allocated.

Works on the parsed protobuf alone, in time linear in its size, and raises ModelError with the name of the part that is
wrong. After ``check_proto`` every tensor has the bytes its shape asks for, external data lie inside the model's own
folder, every name is defined once and before it is used (nodes may still be out of order), and functions neither call
themselves nor expand without bound.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from onnx import AttributeProto, TensorProto

from voxelrt.errors import ModelError
from voxelrt.graph.untrusted_tensors import ELEMENT_BITS, check_tensor, tensors

MAX_NODES = 1_000_000
OLDEST_IR, NEWEST_IR = 3, int(onnx.IR_VERSION)


def check_proto(model: onnx.ModelProto, folder: Path | None) -> None:
    """Check a parsed model.

    Parameters
    ----------
    model : as parsed.
    folder : the folder that external data must lie in; None where there is no file, and so no external data.

    Raises
    ------
    ModelError : anything is damaged, missing, contradictory or out of bounds; names the part.
    """
    if not OLDEST_IR <= model.ir_version <= NEWEST_IR:
        raise ModelError(
            f"not an ONNX model that can be read: IR version {model.ir_version}, known are {OLDEST_IR} to {NEWEST_IR}"
        )
    _check_texts(model)
    if not model.HasField("graph") or not (model.graph.node or model.graph.output):
        raise ModelError("not an ONNX model: it has no graph")
    if not model.opset_import:
        raise ModelError("the ONNX model does not say which operator set it uses")
    for tensor in tensors(model):
        check_tensor(tensor, folder)
    for info in (*model.graph.input, *model.graph.output):
        kind = info.type.WhichOneof("value")
        element = info.type.tensor_type.elem_type
        if kind is None or (kind == "tensor_type" and element not in ELEMENT_BITS and element != TensorProto.STRING):
            raise ModelError(f"the input or output {info.name!r} of the graph has no type that is known")
    _check_graph(model.graph, [], 0)
    for function in model.functions:
        _check_function(function)
    _check_calls(model)


def _check_texts(model: onnx.ModelProto) -> None:
    """All text is UTF-8: protobuf hands other bytes on as ``bytes``, which nothing behind here expects."""
    waiting: list[Any] = [model]
    while waiting:
        message = waiting.pop()
        if isinstance(message, TensorProto):  # its values are not text, and looking at them copies them
            texts = [message.name, message.doc_string, *(e.value for e in message.external_data)]
            if any(isinstance(text, bytes) for text in texts):
                raise ModelError("the file is damaged: the name of a tensor is not UTF-8")
            continue
        if isinstance(message, AttributeProto):
            _check_attribute(message)
        for field, value in message.ListFields():
            values = [value] if isinstance(value, str | bytes | Message) else value
            if field.type == FieldDescriptor.TYPE_STRING:
                if any(isinstance(text, bytes) for text in values):
                    raise ModelError(f"the file is damaged: the text in {field.full_name} is not UTF-8")
            elif field.type == FieldDescriptor.TYPE_MESSAGE:
                waiting += values


def _check_attribute(attribute: AttributeProto) -> None:
    if not attribute.name or (attribute.type == AttributeProto.UNDEFINED and not attribute.ref_attr_name):
        raise ModelError(f"the attribute {attribute.name!r} has no name or no type")
    try:
        for text in (attribute.s, *attribute.strings):
            text.decode()
    except UnicodeDecodeError as error:
        raise ModelError(f"the file is damaged: the attribute {attribute.name!r} is not UTF-8") from error


def node_label(node: onnx.NodeProto, index: int) -> str:
    """How messages call a node: its name, or its operator and place."""
    return f"{node.name!r} ({node.op_type})" if node.name else f"number {index} ({node.op_type})"


def _check_graph(graph: onnx.GraphProto, outer: list[set[str]], depth: int) -> None:
    defined: set[str] = set()
    for info in graph.input:
        if not info.name or info.name in defined:
            raise ModelError(f"the input {info.name!r} of the graph is unnamed or named twice")
        defined.add(info.name)
    names = [tensor.name for tensor in graph.initializer]
    if len(set(names)) != len(names) or "" in names:
        raise ModelError("an initializer is unnamed or defined twice")
    defined.update(names)
    _check_nodes(graph.node, defined, outer, depth)
    for info in graph.output:
        if info.name not in defined:
            raise ModelError(f"nothing in the graph makes its output {info.name!r}")


def _check_function(function: onnx.FunctionProto) -> None:
    defined = set(function.input)
    _check_nodes(function.node, defined, [], 0)
    missing = [name for name in function.output if name not in defined]
    if missing:
        raise ModelError(f"nothing in the function {function.name!r} makes its output {missing[0]!r}")


def _check_nodes(nodes: Sequence[onnx.NodeProto], defined: set[str], outer: list[set[str]], depth: int) -> None:
    """Names are defined once, what is read is defined, and no node waits for itself. Adds to ``defined``."""
    makers: dict[str, int] = {}
    for index, node in enumerate(nodes):
        if not node.op_type:
            raise ModelError(f"node number {index} has no operator")
        if node.op_type == "Einsum":
            _check_equation(node, index)
        for name in node.output:
            if name and (name in makers or name in defined):
                raise ModelError(
                    f"the value {name!r} is defined twice; the second time by node {node_label(node, index)}"
                )
            if name:
                makers[name] = index
    defined.update(makers)
    scopes = [*outer, defined]
    for index, node in enumerate(nodes):
        for name in node.input:
            if name and not any(name in scope for scope in scopes):
                raise ModelError(f"node {node_label(node, index)} reads {name!r}, which nothing defines")
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs) if _is_graph(attribute) else ():
                _check_graph(graph, scopes, depth + 1)
    _check_cycles(nodes, makers)


_TERM = r"[A-Za-z]*(?:\.\.\.)?[A-Za-z]*"
_EQUATION = re.compile(f"{_TERM}(?:,{_TERM})*(?:->{_TERM})?")


def _check_equation(node: onnx.NodeProto, index: int) -> None:
    """The equation of an Einsum is one: the ONNX library's own reader does not end on some that are not."""
    for attribute in node.attribute:
        if attribute.name == "equation" and not attribute.ref_attr_name:
            text = attribute.s.decode("latin-1").replace(" ", "")
            if not _EQUATION.fullmatch(text):
                raise ModelError(f"node {node_label(node, index)} has the equation {text!r}, which is not one")


def _is_graph(attribute: AttributeProto) -> bool:
    return attribute.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS) and not attribute.ref_attr_name


def reads(node: onnx.NodeProto) -> Iterator[str]:
    """The names that a node reads, those that its subgraphs capture included (and their own, which do no harm)."""
    waiting = [node]
    while waiting:
        current = waiting.pop()
        yield from current.input
        for attribute in current.attribute:
            for graph in (attribute.g, *attribute.graphs) if _is_graph(attribute) else ():
                waiting += graph.node
                yield from (info.name for info in graph.output)


def _check_cycles(nodes: Sequence[onnx.NodeProto], makers: dict[str, int]) -> None:
    waits = []
    for node in nodes:
        own = set(node.output)
        waits.append(
            {makers[name] for name in reads(node) if name in makers and (name not in own or name in node.input)}
        )
    stuck = _stuck(waits)
    if stuck:
        labels = [node_label(nodes[i], i) for i in stuck[:8]]
        raise ModelError(f"the graph has a cycle; among these nodes: {', '.join(labels)}{' …' * (len(stuck) > 8)}")


def _order(waits: Sequence[set[int]]) -> list[int]:
    """The items whose turn comes when each waits for others; those on a cycle, or behind one, are left out."""
    users: list[list[int]] = [[] for _ in waits]
    left = [len(sources) for sources in waits]
    for index, sources in enumerate(waits):
        for source in sources:
            users[source].append(index)
    order = [index for index, count in enumerate(left) if not count]
    for index in order:  # grows while it is walked
        for user in users[index]:
            left[user] -= 1
            if not left[user]:
                order.append(user)
    return order


def _stuck(waits: Sequence[set[int]]) -> list[int]:
    order = _order(waits)
    return [] if len(order) == len(waits) else sorted(set(range(len(waits))) - set(order))


def _check_calls(model: onnx.ModelProto) -> None:
    """No function calls itself, and inlining all of them makes no more than MAX_NODES nodes."""
    numbers = {(f.domain, f.name, f.overload): i for i, f in enumerate(model.functions)}
    if len(numbers) != len(model.functions):
        raise ModelError("the ONNX model defines a function twice")

    def calls(nodes: Sequence[onnx.NodeProto]) -> list[int | None]:
        found: list[int | None] = []
        waiting = list(nodes)
        while waiting:
            node = waiting.pop()
            found.append(numbers.get((node.domain, node.op_type, node.overload)))
            for attribute in node.attribute:
                for graph in (attribute.g, *attribute.graphs) if _is_graph(attribute) else ():
                    waiting += graph.node
        return found

    needs = [calls(function.node) for function in model.functions]
    waits = [{c for c in found if c is not None} for found in needs]
    stuck = _stuck(waits)
    if stuck:
        names = ", ".join(model.functions[i].name for i in stuck[:8])
        raise ModelError(f"functions of the model call themselves; among these: {names}")
    sizes = [0] * len(needs)
    for index in _order(waits):
        sizes[index] = sum(1 if c is None else sizes[c] for c in needs[index])
    total = sum(1 if c is None else sizes[c] for c in calls(model.graph.node))
    if total > MAX_NODES:
        raise ModelError(f"the model has {total} nodes once its functions are expanded; at most {MAX_NODES} are read")
