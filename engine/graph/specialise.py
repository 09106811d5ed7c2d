"""Fix a model to the shapes it will run at: every value gets a static shape and dtype, and what is known is folded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnx_ir as ir
from numpy.typing import NDArray

from voxelrt.errors import UsageError
from voxelrt.graph.edit import static_shape, tensor_of
from voxelrt.graph.passes import (
    flatten_branches,
    fold_batch_norm,
    fold_constants,
    infer_shapes,
    inline_branches,
    name_nodes,
    remove_dead_nodes,
    remove_identities,
    unroll_loops,
    unroll_scans,
)

Array = NDArray[Any]
PASSES = (
    infer_shapes,
    inline_branches,
    unroll_loops,
    unroll_scans,
    fold_constants,
    remove_identities,
    fold_batch_norm,
    remove_dead_nodes,
)
MAX_ROUNDS = 32


def specialise(
    model: ir.Model,
    shapes: Mapping[str, Sequence[int]],
    constants: Mapping[str, Array] | None = None,
) -> ir.Model:
    """A copy of the model for these input shapes, with all passes applied until nothing changes.

    Parameters
    ----------
    model : left as it is; the copy shares its weights.
    shapes : input name -> static shape. Inputs whose shape the model fixes need none, nor do open dimensions that have
        the name of one that is given elsewhere.
    constants : input name -> array: these inputs become constants.

    Returns
    -------
    The copy. Values whose shape depends on data (NonZero …) or that are not tensors still have none.

    Raises
    ------
    UsageError : unknown names, shapes or dtypes that contradict the model, dimensions that stay open.
    ModelError : an operator cannot work on the shapes that follow.
    """
    copy = model.clone()
    _drop_overridable(copy, shapes)
    _fix_inputs(copy, shapes, constants or {})
    _forget_shapes(copy.graph)
    copy = refine(copy)
    infer_shapes.check(copy)
    return copy


def refine(model: ir.Model) -> ir.Model:
    """Apply all passes until nothing changes; every node has a name of its own afterwards."""
    model = name_nodes.run(model)
    before = None
    for _ in range(MAX_ROUNDS):
        for step in PASSES:
            model = step.run(model)
        now = _state(model.graph)
        if now == before and not flatten_branches.run(model, refine):
            break
        before = now
    return name_nodes.run(model)


def _state(graph: ir.Graph) -> tuple[tuple[str, ...], int, int]:
    """What any pass that does something changes; a branch of one node may take the place of its ``If``."""
    known = sum(static_shape(value) is not None for node in graph for value in node.outputs)
    return tuple(node.op_type for node in graph), len(graph.initializers), known


def _drop_overridable(model: ir.Model, shapes: Mapping[str, Sequence[int]]) -> None:
    """An input with a default value is a constant, unless a shape is given for it."""
    graph = model.graph
    for value in list(graph.inputs):
        if not value.is_initializer():
            continue
        if value.name in shapes:
            del graph.initializers[str(value.name)]
            value.const_value = None
        else:
            graph.inputs.remove(value)


def _forget_shapes(graph: ir.Graph) -> None:
    """Shapes that the file gives for inner values and outputs hold for other inputs, or are wrong.

    Types stay, and the number of axes of the outputs.
    """
    for node in graph:
        for value in node.outputs:
            keep = value.shape is not None and value.is_graph_output()
            value.shape = ir.Shape([None] * len(value.shape)) if keep and value.shape is not None else None


def _fix_inputs(model: ir.Model, shapes: Mapping[str, Sequence[int]], constants: Mapping[str, Array]) -> None:
    graph = model.graph
    inputs = {str(value.name): value for value in graph.inputs}
    for kind, names in (("shapes", shapes), ("constants", constants)):
        unknown = sorted(set(names) - set(inputs))
        if unknown:
            raise UsageError(
                f"{kind} names {', '.join(unknown)}; the inputs of the model are {', '.join(inputs) or 'none'}"
            )
    bound: dict[str, tuple[int, str]] = {}
    for name, array in constants.items():
        _check_constant(inputs[name], array)
        _bind(inputs[name], array.shape, bound)
    for name, shape in shapes.items():
        if name not in constants:
            inputs[name].shape = ir.Shape(_bind(inputs[name], shape, bound))
    open_inputs = []
    for name, value in inputs.items():
        if name not in constants and isinstance(value.type, ir.TensorType | None):
            missing = _complete(value, bound)
            if missing:
                open_inputs.append(missing)
    if open_inputs:
        raise UsageError("the shapes of the model's inputs are not all known: " + "; ".join(open_inputs))
    for name, array in constants.items():
        graph.inputs.remove(inputs[name])
        inputs[name].const_value = tensor_of(array)
        inputs[name].shape = ir.Shape(array.shape)
        graph.register_initializer(inputs[name])


def _check_constant(value: ir.Value, array: Array) -> None:
    if not isinstance(value.type, ir.TensorType):
        raise UsageError(f"the input {value.name!r} is not a tensor: it cannot be a constant")
    found = tensor_of(array).dtype
    if found != value.dtype:
        raise UsageError(f"the constant for the input {value.name!r} is {array.dtype}; the model takes {value.dtype}")


def _bind(value: ir.Value, shape: Sequence[int], bound: dict[str, tuple[int, str]]) -> tuple[int, ...]:
    """Check a given shape against the model's and learn what its named dimensions are."""
    dims = tuple(int(d) for d in shape)
    if any(d < 0 for d in dims):
        raise UsageError(f"the shape {dims} for the input {value.name!r} has a negative dimension")
    if value.shape is None:
        return dims
    if len(value.shape) != len(dims):
        raise UsageError(
            f"the input {value.name!r} has {len(value.shape)} axes, {_text(value)}; {dims} has {len(dims)}"
        )
    for axis, (declared, given) in enumerate(zip(value.shape, dims, strict=True)):
        if isinstance(declared, int):
            if declared != given:
                raise UsageError(f"the input {value.name!r} is {_text(value)}: its axis {axis} cannot be {given}")
        elif declared.value is not None:
            known, source = bound.setdefault(declared.value, (given, str(value.name)))
            if known != given:
                raise UsageError(
                    f"the dimension {declared.value!r} is {known} in {source!r} and {given} in {str(value.name)!r}"
                )
    return dims


def _complete(value: ir.Value, bound: Mapping[str, tuple[int, str]]) -> str:
    """Fill in the open dimensions that are known by name; what is missing as text."""
    if value.shape is None:
        return f"{value.name!r} has no shape in the model: give shapes={{{value.name!r}: (...)}}"
    dims = [
        d if isinstance(d, int) else bound[d.value][0] if d.value is not None and d.value in bound else d
        for d in value.shape
    ]
    missing = [
        f"axis {axis}" + (f" ({d.value!r})" if d.value is not None else "")
        for axis, d in enumerate(dims)
        if not isinstance(d, int)
    ]
    if missing:
        return f"{value.name!r} is {_text(value)}, open are {', '.join(missing)}: give shapes={{{value.name!r}: (...)}}"
    value.shape = ir.Shape(dims)
    return ""


def _text(value: ir.Value) -> str:
    dims = ", ".join("?" if not isinstance(d, int) and d.value is None else str(d) for d in value.shape or ())
    return f"({dims})"
