"""Frozen TensorFlow-1 graphs (``.pb``) as ONNX graphs, without TensorFlow.

One walk over the nodes in topological order does everything: constants and shapes fold as they are met, ``Switch`` on a
folded condition kills one branch and ``Merge`` takes the other, and every remaining node is imported by its function in
the table of importers. Only what the outputs need of the result is kept. Channels-last graphs compute channels-first in
ONNX; the inputs and outputs keep TensorFlow's own axis order and names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx
import onnx_ir as ir

from voxelrt.errors import ModelError, UsageError
from voxelrt.models.formats.tensorflow_graph import NodeTable, split
from voxelrt.models.formats.tensorflow_schema import DTYPES, dimensions, parse_graph, tensor_array
from voxelrt.models.formats.tensorflow_values import FOLD_LIMIT, Builder, Step, Symbol, Value, constant
from voxelrt.models.formats.tensorflow_walk import BLOCKED, DEAD, Walk

OPSET = 18
IR_VERSION = 10
MAX_FILE = (1 << 31) - 1  # protobuf's own limit
# Placeholders that switch dropout and batch statistics on: wanted off here, whatever they default to.
_TRAINING = frozenset(
    {"training", "is_training", "train", "phase_train", "is_train", "training_phase", "learning_phase"}
    | {"keras_learning_phase", "istraining"}
)

Inputs: TypeAlias = Sequence[str] | Mapping[str, Sequence[int | None] | None]


def load_tensorflow(
    path: str | Path,
    *,
    inputs: Inputs | None = None,
    outputs: Sequence[str] | None = None,
    constants: Mapping[str, Any] | None = None,
) -> ir.Model:
    """Read a frozen TensorFlow-1 graph and turn it into an ONNX model.

    Parameters
    ----------
    path
        The ``.pb`` file, a serialised GraphDef whose variables are constants.
    inputs
        Nodes that are the inputs; a mapping also gives their shapes, in TensorFlow's axis order, None for a dim
        that stays open. Any node may be one: the graph is cut there. Default: every placeholder that is needed.
    outputs
        Nodes that are the outputs, ``name`` or ``name:1``. Default: the nodes that no other one reads, without
        what computes on training data.
    constants
        Values for placeholders, such as ``{"training": False}``. A bool placeholder named like that which is
        not mentioned becomes False and a scalar with a constant default becomes that; ``metadata_props
        ["voxelrt.notes"]`` says so.

    Returns
    -------
    The model, opset 18, checked by ``onnx.checker``. Inputs and outputs have TensorFlow's names and axis order.

    Raises
    ------
    ModelError
        The file cannot be read, is damaged, or holds what cannot be (sizes, cycles, names).
    UnsupportedError
        Nodes that cannot be imported; all of them are listed.
    UsageError
        A name in ``inputs``, ``outputs`` or ``constants`` that is not in the graph, or a shape that is needed.
    """
    path = Path(path)
    try:
        if path.stat().st_size > MAX_FILE:
            raise ModelError(f"{path.name}: larger than a TensorFlow graph can be")
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from error
    model = import_graph(data, inputs=inputs, outputs=outputs, constants=constants)
    model.graph.name = path.stem
    return model


def import_graph(
    data: bytes,
    *,
    inputs: Inputs | None = None,
    outputs: Sequence[str] | None = None,
    constants: Mapping[str, Any] | None = None,
) -> ir.Model:
    """The same as :func:`load_tensorflow` for the bytes of the file."""
    table = NodeTable(parse_graph(data).node)
    builder = Builder(4 * FOLD_LIMIT + 4 * len(data))
    shapes = dict(inputs) if isinstance(inputs, Mapping) else dict.fromkeys(inputs or ())
    given = _given(table, builder, shapes, constants or {}, inputs is not None)
    automatic, left_out = outputs is None, list[str]()
    if outputs is None:
        names, left_out = table.without_pipeline(table.sinks(), given)
        wanted = [(name, 0) for name in names]
    else:
        wanted = [split(name)[:2] for name in outputs]
        for name, _ in wanted:
            table.named(name, "output")
    walk = Walk(table, builder, given)
    walk.run(table.sequence([name for name, _ in wanted], given), wanted)
    if automatic:
        wanted = [source for source in wanted if _is_result(walk, source)]
        if left_out:
            kept = ", ".join(name for name, _ in wanted)
            builder.notes.append(f"{', '.join(left_out)} needs data of the training pipeline; the outputs are {kept}")
    if not wanted:
        raise UsageError("the graph has no output that depends on its inputs: name the outputs")
    walk.refuse(wanted)
    return _model(walk, builder, given, wanted, list(shapes))


def _is_result(walk: Walk, source: tuple[str, int]) -> bool:
    """True for an output worth having by default: computed, and neither constant nor folded away."""
    result = walk.result(*source)
    return result is BLOCKED or (isinstance(result, Value) and result.array is None)


def _given(
    table: NodeTable,
    builder: Builder,
    shapes: dict[str, Sequence[int | None] | None],
    constants: Mapping[str, Any],
    only: bool,
) -> dict[str, Value]:
    """The values of the graph's inputs and of the placeholders that are constants."""
    given: dict[str, Value] = {}
    for name, value in constants.items():
        attributes = table.attributes(table.named(name, "constant"))
        if name in shapes:
            raise UsageError(f"{name!r} is both an input and a constant")
        given[name] = constant(name, _user_constant(name, value, attributes))
    for name in shapes:
        given[table.named(name, "input")] = _input(table, builder, name, shapes[name])
    for name, node in table.nodes.items():
        if name in given or node.op not in ("Placeholder", "PlaceholderWithDefault"):
            continue
        attributes = table.attributes(name)
        code = int(attributes["dtype"].type) if "dtype" in attributes else 1
        if code not in DTYPES:
            continue  # the string handle of a data pipeline, say; an error only if an output needs it
        if code == 10 and name.rsplit("/", 1)[-1].lower() in _TRAINING:
            given[name] = constant(name, np.array(False))
            builder.notes.append(f"placeholder {name} was folded to False")
        elif node.op == "PlaceholderWithDefault" and (default := _scalar_default(table, name)) is not None:
            given[name] = constant(name, default)
            builder.notes.append(f"placeholder {name} was folded to its default, {default.item()}")
        elif not only:
            given[name] = _input(table, builder, name, None)
    return given


def _user_constant(name: str, value: Any, attributes: Mapping[str, Any]) -> np.ndarray[Any, np.dtype[Any]]:
    code = int(attributes["dtype"].type) if "dtype" in attributes else 0
    try:
        array = np.asarray(value)
        if code in DTYPES:
            array = array.astype(DTYPES[code][0], casting="same_kind" if array.ndim else "unsafe")
    except (TypeError, ValueError) as error:
        raise UsageError(f"constant {name!r}: {value!r} is not of the placeholder's type: {error}") from error
    if array.dtype.kind not in "biuf":
        raise UsageError(f"constant {name!r}: {value!r} is not a number")
    return array


def _scalar_default(table: NodeTable, name: str) -> np.ndarray[Any, np.dtype[Any]] | None:
    """The default of a scalar placeholder, if it is a constant in the file."""
    source = next((s for s, _ in table.data(name)), None)
    if source is None or source not in table.nodes or table.nodes[source].op != "Const":
        return None
    attributes = table.attributes(source)
    if "value" not in attributes or dimensions(attributes["value"].tensor.shape) != ():
        return None
    return tensor_array(attributes["value"].tensor, source, FOLD_LIMIT)


def _input(table: NodeTable, builder: Builder, name: str, shape: Sequence[int | None] | None) -> Value:
    """A graph input; its open dims become symbols, the first one ``batch`` so that several inputs agree on it."""
    attributes = table.attributes(name)
    key = next((k for k in ("dtype", "T") if k in attributes), None)
    code = int(attributes[key].type) if key else 1
    if code not in DTYPES:
        raise UsageError(f"input {name!r} has the TensorFlow dtype {code}, which is not a number type")
    declared = dimensions(attributes["shape"].shape) if "shape" in attributes else None
    if shape is not None and declared is not None:
        fits = len(shape) == len(declared) and all(
            a == b or None in (a, b) for a, b in zip(shape, declared, strict=True)
        )
        if not fits:
            raise UsageError(f"input {name!r} has the shape {declared}, not {tuple(shape)}")
        shape = [a if a is not None else b for a, b in zip(shape, declared, strict=True)]
    dims = tuple(shape) if shape is not None else declared
    if dims is None:
        raise UsageError(f"the file does not tell the shape of input {name!r}: give it in inputs={{{name!r}: ...}}")
    opened = tuple(d if d is not None else Symbol("batch" if i == 0 else f"{name}_{i}") for i, d in enumerate(dims))
    return builder.input(name, DTYPES[code][0], opened)


def _model(
    walk: Walk, builder: Builder, given: Mapping[str, Value], wanted: Sequence[tuple[str, int]], named: list[str]
) -> ir.Model:
    """The model of what the outputs need, checked."""
    results: list[ir.Value] = []
    taken = {value.stored for value in given.values() if value.stored is not None}
    for name, port in wanted:
        value = walk.result(name, port)
        if value is DEAD or not isinstance(value, Value):
            raise UsageError(f"output {name!r} is never computed: it is on a branch that is folded away")
        stored = builder.stored(value)
        label = f"{name}:{port}" if port else name
        if stored in taken or value.array is not None:
            stored = builder.emit("Identity", [stored], label, value.dtype, value.shape)
        taken.add(stored)
        builder.rename(stored, label)
        results.append(stored)
    steps, used = _needed(builder, results)
    sources = [given[n].stored for n in given if given[n].array is None and (given[n].stored in used or n in named)]
    graph = ir.Graph(
        [s for s in sources if s is not None],
        results,
        nodes=[step.node() for step in steps],
        initializers=[v for v in builder.initializers if v in used],
        opset_imports={"": OPSET},
        name="tensorflow",
    )
    model = ir.Model(graph, ir_version=IR_VERSION, producer_name="voxelrt")
    model.metadata_props["voxelrt.source"] = "tensorflow"
    if builder.notes:
        model.metadata_props["voxelrt.notes"] = "\n".join(builder.notes)
    try:
        onnx.checker.check_model(ir.to_proto(model), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError) as error:
        raise ModelError(f"the TensorFlow graph does not make a valid ONNX graph: {error}") from error
    return model


def _needed(builder: Builder, results: Sequence[ir.Value]) -> tuple[list[Step], set[ir.Value]]:
    used = set(results)
    steps: list[Step] = []
    for step in reversed(builder.steps.values()):
        if step.output in used:
            steps.append(step)
            used.update(v for v in step.inputs if v is not None)
    return steps[::-1], used
