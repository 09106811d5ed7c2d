"""Tensors of an ONNX file of unknown origin: shape, type and bytes agree; external ones lie in the model's folder."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import onnx
from onnx import AttributeProto, TensorProto

from voxelrt.errors import ModelError, UnsupportedError

MAX_DEPTH = 16
MAX_AXES = 64

ELEMENT_BITS: dict[int, int] = {}  # of one element
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
            ELEMENT_BITS[getattr(TensorProto, _name)] = _bits

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


def check_tensor(tensor: TensorProto, folder: Path | None) -> None:
    """Check that a tensor's shape, type and stored bytes agree. Raises ModelError."""
    name = tensor.name or "(unnamed)"
    bits = ELEMENT_BITS.get(tensor.data_type)
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


def tensors(model: onnx.ModelProto) -> Iterator[TensorProto]:
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
