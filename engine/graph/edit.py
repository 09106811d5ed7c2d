"""Small edits that passes share. All work on the main graph of a model."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

Array = NDArray[Any]


def constant_of(value: ir.Value | None) -> Array | None:
    """The array of a value that is an initializer (nothing else counts as constant); None for any other."""
    if value is None or value.const_value is None or not value.is_initializer() or value.is_graph_input():
        return None
    tensor = value.const_value
    if tensor.dtype == ir.DataType.STRING:
        texts = np.empty(tensor.size, dtype=object)
        texts[:] = [bytes(text).decode("utf-8", "replace") for text in tensor.string_data()]  # type: ignore[attr-defined]
        return texts.reshape(tensor.shape.numpy())
    return np.asarray(tensor.numpy())


def is_constant(value: ir.Value | None) -> bool:
    """Whether ``constant_of`` has an answer, without making it."""
    return value is not None and value.const_value is not None and value.is_initializer() and not value.is_graph_input()


def static_shape(value: ir.Value | None) -> tuple[int, ...] | None:
    """The value's dims if all are known."""
    if value is None or value.shape is None or not all(isinstance(d, int) for d in value.shape):
        return None
    return tuple(int(d) for d in value.shape)  # type: ignore[arg-type]


def tensor_of(array: Array, dtype: ir.DataType | None = None) -> ir.TensorProtocol:
    """The array as an ONNX tensor, sharing its memory; object arrays are strings."""
    if array.dtype.kind in "OUS":
        texts = [t if isinstance(t, bytes) else str(t).encode() for t in array.ravel().tolist()]
        return ir.StringTensor(texts, shape=ir.Shape(array.shape))
    contiguous = array if array.flags.c_contiguous else np.ascontiguousarray(array)
    return ir.Tensor(contiguous, dtype=dtype or ir.DataType.from_numpy(array.dtype))


def add_initializer(graph: ir.Graph, name: str, tensor: ir.TensorProtocol) -> ir.Value:
    """A new constant of the graph; the name must be free."""
    value = ir.Value(
        name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(tensor.shape.numpy()), const_value=tensor
    )
    graph.register_initializer(value)
    return value


def names_of(graph: ir.Graph) -> set[str]:
    """The names of all values of the graph and of the graphs inside its nodes."""
    names: set[str] = set()
    for scope in (graph, *graph.subgraphs()):
        names.update(str(v.name) for v in scope.inputs)
        names.update(scope.initializers)
        names.update(str(v.name) for node in scope for v in node.outputs)
    return names


def free_name(taken: set[str], stem: str) -> str:
    """``stem``, or with a number behind it if it is taken; the answer is added to ``taken``."""
    name, number = stem, 2
    while name in taken:
        name, number = f"{stem}_{number}", number + 1
    taken.add(name)
    return name


def replace_value(graph: ir.Graph, old: ir.Value, new: ir.Value) -> bool:
    """Let all who use ``old`` use ``new``; an output of the graph keeps its name.

    Returns
    -------
    False, and nothing is changed, where both have names that the outside knows: then a node must stand between them.
    """
    if old.is_graph_output():
        if new.producer() is None or new.is_graph_output() or new.is_graph_input() or new.graph is not graph:
            return False
        name = str(old.name)
        old.replace_all_uses_with(new, replace_graph_outputs=True)
        old.name = f"{name}_was"
        new.name = name
    else:
        old.replace_all_uses_with(new)
    if new.shape is None or static_shape(new) is None:
        new.shape = old.shape if old.shape is not None else new.shape
    new.type = new.type if new.type is not None else old.type
    return True


def become_constant(graph: ir.Graph, value: ir.Value, tensor: ir.TensorProtocol) -> None:
    """Let a constant of the same name take the place of a node's output; the node is left without users of it."""
    name = str(value.name)
    value.name = f"{name}_was"
    made = add_initializer(graph, name, tensor)
    value.replace_all_uses_with(made, replace_graph_outputs=True)
