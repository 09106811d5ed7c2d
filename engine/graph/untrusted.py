"""An ONNX file of unknown origin: everything that is checked before anything is believed or allocated.

Works on the parsed protobuf alone, in time linear in its size, and raises ModelError with the name of the part that is
wrong. After ``check_proto`` every tensor has the bytes its shape asks for, external data lie inside the model's own
folder, every name is defined once and before it is used (nodes may still be out of order), and functions neither call
themselves nor expand without bound.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import onnx
from onnx import AttributeProto, TensorProto

from voxelrt.errors import ModelError, UnsupportedError

MAX_NODES = 1_000_000
MAX_DEPTH = 32
MAX_AXES = 64
OLDEST_IR, NEWEST_IR = 3, int(onnx.IR_VERSION)

_BITS: dict[int, int] = {}  # of one element
for _names, _bits in (
    ("BOOL INT8 UINT8 FLOAT8E4M3FN FLOAT8E4M3FNUZ FLOAT8E5M2 FLOAT8E5M2FNUZ FLOAT8E8M0", 8),
    ("INT16 UINT16 FLOAT16 BFLOAT16", 16),
    ("INT32 UINT32 FLOAT", 32),
    ("INT64 UINT64 DOUBLE COMPLEX64", 64),
    ("COMPLEX128", 128),
    ("INT4 UINT4 FLOAT4E2M1", 4),
    ("INT2 UINT2", 2),
):
    for _name in _names.split():
        if hasattr(TensorProto, _name):
            _BITS[getattr(TensorProto, _name)] = _bits

_FIELDS: dict[int, str] = {
    TensorProto.FLOAT: "float_data",
    TensorProto.COMPLEX64: "float_data",
    TensorProto.DOUBLE: "double_data",
    TensorProto.COMPLEX128: "double_data",
    TensorProto.INT64: "int64_data",
    TensorProto.UINT64: "uint64_data",
    TensorProto.UINT32: "uint64_data",
    TensorProto.STRING: "string_data",
}


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
    if not model.HasField("graph") or not (model.graph.node or model.graph.output):
        raise ModelError("not an ONNX model: it has no graph")
    if not model.opset_import:
        raise ModelError("the ONNX model does not say which operator set it uses")
    for graph_tensor in _tensors(model):
        check_tensor(graph_tensor, folder)
    _check_graph(model.graph, [], 0)
    for function in model.functions:
        _check_function(function)
    _check_calls(model)


def check_tensor(tensor: TensorProto, folder: Path | None) -> None:
    """Check that a tensor's shape, type and stored bytes agree. Raises ModelError."""
    name = tensor.name or "(unnamed)"
    bits = _BITS.get(tensor.data_type)
    if bits is None and tensor.data_type != TensorProto.STRING:
        raise ModelError(f"the tensor {name!r} has the unknown data type {tensor.data_type}")
    if len(tensor.dims) > MAX_AXES:
        raise ModelError(f"the tensor {name!r} has {len(tensor.dims)} axes")
    count = 1
    for dim in tensor.dims:
        if dim < 0:
            raise ModelError(f"the tensor {name!r} has the negative dimension {dim}")
        count *= dim
    if count > 1 << 40:
        raise ModelError(f"the tensor {name!r} of shape {list(tensor.dims)} is too large")
    if tensor.HasField("segment"):
        raise ModelError(f"the tensor {name!r} is stored in segments, which no ONNX version defines fully")
    size = -(-count * (bits or 0) // 8)
    if tensor.data_location == TensorProto.EXTERNAL:
        if bits is None:
            raise ModelError(f"the tensor {name!r} of strings cannot be external")
        _check_external(tensor, name, size, folder)
        return
    field = _FIELDS.get(tensor.data_type, "int32_data")
    expected = count
    if tensor.data_type in (TensorProto.COMPLEX64, TensorProto.COMPLEX128):
        expected = 2 * count
    elif bits is not None and bits < 8:
        expected = size
    found, unit = len(getattr(tensor, field)), "values"
    if tensor.HasField("raw_data") and bits is not None:
        expected, found, unit = size, len(tensor.raw_data), "bytes"
    if found != expected:
        raise ModelError(
            f"the file is damaged: the tensor {name!r} {list(tensor.dims)} needs {expected} {unit} and has {found}"
        )


def _check_external(tensor: TensorProto, name: str, size: int, folder: Path | None) -> None:
    if folder is None:
        raise ModelError(f"the tensor {name!r} is stored in another file, and this model was not read from a file")
    place: dict[str, str] = {entry.key: entry.value for entry in tensor.external_data}
    location = place.get("location", "")
    pure = PurePosixPath(location)
    if not location or "\0" in location or "\\" in location or pure.is_absolute() or ".." in pure.parts:
        raise ModelError(f"the tensor {name!r} lies at {location!r}: only files inside the model's folder are read")
    home = folder.resolve()
    try:
        path = (home / pure).resolve(strict=True)
    except (OSError, RuntimeError) as error:
        raise ModelError(f"the tensor {name!r} lies in the file {location!r}, which is missing") from error
    if not path.is_relative_to(home) or not path.is_file():
        raise ModelError(
            f"the tensor {name!r} lies at {location!r}: a link that leaves the model's folder is not followed"
        )
    try:
        offset, length = int(place.get("offset") or 0), int(place.get("length") or size)
    except ValueError as error:
        raise ModelError(f"the tensor {name!r} has an offset or length that is not a number") from error
    if length != size:
        raise ModelError(f"the tensor {name!r} of shape {list(tensor.dims)} needs {size} bytes, not {length}")
    available = path.stat().st_size
    if offset < 0 or offset > available or size > available - offset:
        raise ModelError(
            f"the tensor {name!r} needs bytes {offset} to {offset + size} of {location!r}, which has {available}"
        )


def _tensors(model: onnx.ModelProto) -> Iterator[TensorProto]:
    """All tensors anywhere in the model. Refuses sparse ones and graphs nested too deep."""
    waiting: list[tuple[onnx.GraphProto | onnx.FunctionProto, int]] = [(model.graph, 0)]
    waiting += [(function, 0) for function in model.functions]
    while waiting:
        scope, depth = waiting.pop()
        if depth > MAX_DEPTH:
            raise ModelError(f"the model's graphs are nested more than {MAX_DEPTH} deep")
        if isinstance(scope, onnx.GraphProto):
            if scope.sparse_initializer:
                raise UnsupportedError("the model has sparse initializers, which are not supported: store them dense")
            yield from scope.initializer
        attributes = itertools.chain.from_iterable(node.attribute for node in scope.node)
        if isinstance(scope, onnx.FunctionProto):
            attributes = itertools.chain(attributes, scope.attribute_proto)
        for attribute in attributes:
            if attribute.type in (AttributeProto.SPARSE_TENSOR, AttributeProto.SPARSE_TENSORS):
                raise UnsupportedError(f"the attribute {attribute.name!r} is a sparse tensor, which is not supported")
            if attribute.type == AttributeProto.TENSOR and not attribute.ref_attr_name:
                yield attribute.t
            elif attribute.type == AttributeProto.TENSORS:
                yield from attribute.tensors
            elif attribute.type == AttributeProto.GRAPH and not attribute.ref_attr_name:
                waiting.append((attribute.g, depth + 1))
            elif attribute.type == AttributeProto.GRAPHS:
                waiting += [(graph, depth + 1) for graph in attribute.graphs]


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
