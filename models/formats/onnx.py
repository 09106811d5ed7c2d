"""ONNX files in: .onnx of operator sets 13 and newer as they are, older ones through onnx.version_converter.

A file is of unknown origin until it has passed ``voxelrt.graph.untrusted``. Functions are inlined, so that a graph has
only operators; operators of domains that nobody here knows are refused, all of them at once.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError
from onnx import TensorProto
from onnx_ir.passes.common import InlinePass

from voxelrt.errors import ModelError, UnsupportedError
from voxelrt.graph.edit import free_name, names_of
from voxelrt.graph.passes import infer_shapes, name_nodes
from voxelrt.graph.spec import (
    KNOWN_DOMAINS,
    NEWEST_OPSET,
    OLDEST_OPSET,
    ONNX_DOMAINS,
    OUR_DOMAIN,
    first_line,
    opset_of,
    verify,
)
from voxelrt.graph.structure import KEPT_BYTES
from voxelrt.graph.untrusted import check_proto, node_label

MAX_FILE_BYTES = (1 << 31) - 1  # what protobuf can hold
IR_VERSION = 10  # of every loaded model: initializers need not be inputs, nodes may have metadata


def load_onnx(source: str | Path | bytes) -> ir.Model:
    """Read an ONNX model.

    Parameters
    ----------
    source : a path, or the bytes of a model without external data.

    Returns
    -------
    The model: verified, functions inlined, every node named, large weights in memory once (external ones mapped).

    Raises
    ------
    ModelError : no such file, or it is damaged, malformed, or points outside its folder.
    UnsupportedError : operators that are not known, or an operator set that is too old or too new; all are named.
    """
    if isinstance(source, bytes):
        data, folder = source, None
    else:
        path = Path(source)
        data, folder = _read(path), path.parent
    proto = _parse(data)
    del data
    check_proto(proto, folder)
    _check_domains(proto)
    _open_sizes(proto.graph)
    proto = _at_known_opset(proto)
    model = _deserialise(proto)
    del proto
    if folder is not None:
        ir.external_data.set_base_dir(model.graph, folder.resolve())
    _own_tensors(model)
    _inline(model)
    model.graph.sort()
    name_nodes.run(model)
    _shape_outputs(model)
    verify(model)
    return model


def _read(path: Path) -> bytes:
    try:
        if not path.is_file():
            raise ModelError(f"{path.name}: no such file")
        size = path.stat().st_size
        if not 0 < size <= MAX_FILE_BYTES:
            raise ModelError(f"{path.name} has {size} bytes; an ONNX file has 1 to {MAX_FILE_BYTES}")
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path.name} cannot be read: {error.strerror}") from error


def _parse(data: bytes) -> onnx.ModelProto:
    try:
        return onnx.ModelProto.FromString(data)
    except (DecodeError, ValueError, RecursionError) as error:
        raise ModelError(
            "not an ONNX model: its protobuf cannot be parsed (damaged, truncated, or of another kind)"
        ) from error


def _check_domains(proto: onnx.ModelProto) -> None:
    """Refuse nodes of domains that are neither known nor defined by the model's own functions."""
    functions = {(f.domain, f.name, f.overload) for f in proto.functions}
    refused = []
    waiting = [(node, i) for i, node in enumerate(proto.graph.node)]
    waiting += [(node, i) for function in proto.functions for i, node in enumerate(function.node)]
    for node, index in waiting:  # grows while it is walked
        if node.domain not in KNOWN_DOMAINS and (node.domain, node.op_type, node.overload) not in functions:
            refused.append(f"{node_label(node, index)}: the operator domain {node.domain!r} is not known")
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                waiting += [(inner, i) for i, inner in enumerate(graph.node)]
    if refused:
        raise UnsupportedError(f"{len(refused)} nodes are of operator domains that are not known:", refused)


def _shape_outputs(model: ir.Model) -> None:
    """ONNX asks for the rank of every input and output, and some exporters leave the outputs' out.

    Raises
    ------
    ModelError : an input without one, which nobody can guess, or an output for which none can be inferred.
    """
    if shapeless := _without_shape(model.graph.inputs):
        raise ModelError(f"the input {shapeless[0]!r} has no shape, not even a number of axes: export it with one")
    if _without_shape(model.graph.outputs):
        infer_shapes.run(model)
    if shapeless := _without_shape(model.graph.outputs):
        raise ModelError(f"the output {shapeless[0]!r} has no shape, and none can be inferred")


def _without_shape(values: Sequence[ir.Value]) -> list[str | None]:
    return [value.name for value in values if isinstance(value.type, ir.TensorType) and value.shape is None]


def _open_sizes(graph: onnx.GraphProto) -> None:
    """Some exporters write -1 or ? for a size that is open; ONNX leaves it out, and one name means one size."""
    for info in (*graph.input, *graph.output, *graph.value_info):
        for dim in info.type.tensor_type.shape.dim:
            if dim.dim_value < 0 or dim.dim_param in ("?", "-1", "None"):
                dim.Clear()


def _at_known_opset(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model at an operator set that the rest of the program knows, converted where it is older."""
    versions = [o.version for o in proto.opset_import if o.domain in ONNX_DOMAINS]
    if not versions:
        proto.opset_import.add(domain="", version=NEWEST_OPSET)
        return proto
    for opset in proto.opset_import:
        opset.domain = "" if opset.domain in ONNX_DOMAINS else opset.domain
    version = max(versions)
    if version > NEWEST_OPSET:
        raise UnsupportedError(
            f"the model uses version {version} of the ONNX operator set; up to {NEWEST_OPSET} is known: "
            "update the onnx package, or export the model with an older version"
        )
    if version >= OLDEST_OPSET:
        return proto
    if version < 1:
        raise ModelError(f"the model uses version {version} of the ONNX operator set, which does not exist")
    return _convert(proto, version)


def _convert(proto: onnx.ModelProto, version: int) -> onnx.ModelProto:
    """The model at OLDEST_OPSET. Large weights do not pass through the converter, which copies all it is given."""
    aside = [t for t in proto.graph.initializer if t.data_location == TensorProto.EXTERNAL or t.ByteSize() > KEPT_BYTES]
    kept = [
        t for t in proto.graph.initializer if t.data_location != TensorProto.EXTERNAL and t.ByteSize() <= KEPT_BYTES
    ]
    inputs = {info.name for info in proto.graph.input}
    stand_ins = [t.name for t in aside if t.name not in inputs]
    light = onnx.ModelProto()
    light.CopyFrom(_without_initializers(proto))
    light.graph.initializer.extend(kept)
    light.graph.input.extend(
        onnx.helper.make_tensor_value_info(t.name, t.data_type, list(t.dims)) for t in aside if t.name in stand_ins
    )
    lost = [f"{node_label(n, i)}: {why}" for i, n in enumerate(proto.graph.node) if (why := _lost(n, version, proto))]
    if lost:
        raise UnsupportedError(
            f"{len(lost)} nodes mean something else in operator set {version} than in any newer one:",
            lost,
        )
    if proto.functions:
        raise UnsupportedError(f"the model has functions and operator set {version}; functions need {OLDEST_OPSET}")
    try:
        onnx.checker.check_model(light)
        converted = onnx.version_converter.convert_version(light, OLDEST_OPSET)
    except Exception as error:  # the converter raises what its C++ parts happen to throw
        raise UnsupportedError(
            f"the model uses version {version} of the ONNX operator set and cannot be brought to {OLDEST_OPSET}: "
            f"{first_line(error)}"
        ) from error
    for name in stand_ins:
        index = next(i for i, info in enumerate(converted.graph.input) if info.name == name)
        del converted.graph.input[index]
    converted.graph.initializer.extend(aside)
    return converted


def _lost(node: onnx.NodeProto, version: int, proto: onnx.ModelProto) -> str:
    """What the converter would get wrong about a node without a word."""
    if node.op_type == "Scan" and version < 9:
        return "its batch axis is gone"
    if node.op_type == "PRelu" and version < 7:
        slope = next((t for t in proto.graph.initializer if t.name == node.input[-1]), None)
        if slope is None or math.prod(slope.dims) != 1:
            return "its slopes belong to the channels"
    return ""


def _without_initializers(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A shallow look at the model whose graph has no initializers."""
    light = onnx.ModelProto(ir_version=proto.ir_version)
    light.opset_import.extend(proto.opset_import)
    for field in ("node", "input", "output", "value_info"):
        getattr(light.graph, field).extend(getattr(proto.graph, field))
    light.graph.name = proto.graph.name or "graph"
    return light


def _deserialise(proto: onnx.ModelProto) -> ir.Model:
    try:
        with _quiet():
            model = ir.serde.deserialize_model(proto)
    except NotImplementedError as error:
        raise UnsupportedError(f"the model uses a part of ONNX that is not supported: {first_line(error)}") from error
    except Exception as error:  # the file is hostile: whatever it triggers in the reader is its own fault
        raise ModelError(f"the ONNX model is malformed: {first_line(error)}") from error
    model.ir_version = max(model.ir_version or 0, IR_VERSION)
    for node in model.graph.all_nodes():
        node.domain = "" if node.domain in ONNX_DOMAINS else node.domain
    for graph in model.graphs():
        for value in (v for node in graph for v in node.outputs):
            if value.type is None:  # a shape alone says nothing
                value.shape = None
    model.opset_imports.setdefault("", NEWEST_OPSET)
    if any(node.domain == OUR_DOMAIN for node in model.graph.all_nodes()):
        model.opset_imports.setdefault(OUR_DOMAIN, 1)
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    """onnx-ir logs what it repairs; here that is either checked already or an error."""
    logger = logging.getLogger("onnx_ir")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _own_tensors(model: ir.Model) -> None:
    """Take the weights out of the protobuf, whose tensors copy their bytes at every look; map external ones."""
    for graph in model.graphs():
        for value in graph.initializers.values():
            value.const_value = _owned(value.const_value)
        for node in graph:
            for name, attribute in list(node.attributes.items()):
                if attribute.type == ir.AttributeType.TENSOR and not attribute.is_ref():
                    node.attributes[name] = ir.AttrTensor(name, _owned(attribute.as_tensor()))


def _owned(tensor: Any) -> Any:
    external = isinstance(tensor, ir.ExternalTensor)
    if external or (isinstance(tensor, ir.TensorProtoTensor) and tensor.dtype.bitwidth >= 8):
        return ir.Tensor(tensor.numpy(), dtype=tensor.dtype, shape=ir.Shape(tensor.shape.numpy()), name=tensor.name)
    return tensor


def _separate_outputs(function: ir.Function, opset: int) -> None:
    """Let no output of a function be its input or another output: the inliner would rename what is outside."""
    seen = set(function.inputs)
    for index, value in enumerate(function.outputs):
        if value in seen:
            node = ir.Node("", "Identity", [value], num_outputs=1)
            node.outputs[0].name = free_name(names_of(function.graph), f"{value.name}_out")
            function.append(node)
            function.outputs[index] = node.outputs[0]
            function.opset_imports.setdefault("", opset)
        seen.add(value)


def _inline(model: ir.Model) -> None:
    if not model.functions:
        return
    for function in model.functions.values():
        _separate_outputs(function, opset_of(model))
    try:
        InlinePass()(model)
    except Exception as error:  # as above: a function that does not fit its call shows itself only here
        raise UnsupportedError(f"the functions of the model cannot be inlined: {first_line(error)}") from error
    model.functions.clear()
    if opset_of(model) < OLDEST_OPSET:
        raise UnsupportedError(f"a function of the model uses an operator set older than {OLDEST_OPSET}")
