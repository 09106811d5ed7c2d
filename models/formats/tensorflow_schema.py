"""The protobuf messages of a frozen TensorFlow graph, described here so that TensorFlow itself is not needed.

Only what an importer reads is named; a field that is not in the table is skipped by the protobuf library. The field
numbers are those of TensorFlow's public ``graph.proto``, ``node_def.proto``, ``attr_value.proto``, ``tensor.proto`` and
``types.proto``; they are frozen by TensorFlow's own promise of compatibility. The package has a name of its own so that
a process which also imports TensorFlow has no clash of descriptors.
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError, Message

from voxelrt.errors import ModelError

PACKAGE = "voxelrt.tensorflow"

_F = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "int32": _F.TYPE_INT32,
    "int64": _F.TYPE_INT64,
    "uint32": _F.TYPE_UINT32,
    "uint64": _F.TYPE_UINT64,
    "float": _F.TYPE_FLOAT,
    "double": _F.TYPE_DOUBLE,
    "bool": _F.TYPE_BOOL,
    "bytes": _F.TYPE_BYTES,
    "string": _F.TYPE_STRING,
}

# message -> its fields as "name type number"; a star marks a repeated field. An enum is an int32 on the wire.
_MESSAGES: dict[str, tuple[str, ...]] = {
    "Dim": ("size int64 1", "name string 2"),
    "TensorShape": ("dim *Dim 2", "unknown_rank bool 3"),
    "Tensor": (
        "dtype int32 1",
        "shape TensorShape 2",
        "content bytes 4",
        "float_val *float 5",
        "double_val *double 6",
        "int_val *int32 7",
        "string_val *bytes 8",
        "int64_val *int64 10",
        "bool_val *bool 11",
        "half_val *int32 13",
        "uint32_val *uint32 16",
        "uint64_val *uint64 17",
    ),
    "AttrList": ("s *bytes 2", "i *int64 3", "f *float 4", "b *bool 5", "type *int32 6", "shape *TensorShape 7"),
    "Function": ("name string 1",),
    "Attr": (
        "list AttrList 1",
        "s bytes 2",
        "i int64 3",
        "f float 4",
        "b bool 5",
        "type int32 6",
        "shape TensorShape 7",
        "tensor Tensor 8",
        "func Function 10",
    ),
    "AttrEntry": ("key string 1", "value Attr 2"),
    "Node": ("name string 1", "op string 2", "input *string 3", "device string 4", "attr *AttrEntry 5"),
    "Versions": ("producer int32 1", "min_consumer int32 2"),
    "Graph": ("node *Node 1", "library bytes 2", "versions Versions 4"),
}

# TensorFlow's DataType -> NumPy, the repeated field that holds short constants of it.
DTYPES: dict[int, tuple[np.dtype[Any], str]] = {
    1: (np.dtype("<f4"), "float_val"),
    2: (np.dtype("<f8"), "double_val"),
    3: (np.dtype("<i4"), "int_val"),
    4: (np.dtype("u1"), "int_val"),
    5: (np.dtype("<i2"), "int_val"),
    6: (np.dtype("i1"), "int_val"),
    9: (np.dtype("<i8"), "int64_val"),
    10: (np.dtype("?"), "bool_val"),
    14: (np.dtype(ml_dtypes.bfloat16), "half_val"),
    17: (np.dtype("<u2"), "int_val"),
    19: (np.dtype("<f2"), "half_val"),
    22: (np.dtype("<u4"), "uint32_val"),
    23: (np.dtype("<u8"), "uint64_val"),
}


def _build() -> type[Message]:
    """Put the messages of the table in a pool of their own and return the class of the graph message."""
    file = descriptor_pb2.FileDescriptorProto(name="voxelrt/tensorflow.proto", package=PACKAGE, syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for text in fields:
            field, kind, number = text.split()
            label = _F.LABEL_REPEATED if kind.startswith("*") else _F.LABEL_OPTIONAL
            kind = kind.removeprefix("*")
            if kind in _SCALARS:
                message.field.add(name=field, number=int(number), label=label, type=_SCALARS[kind])
            else:
                path = f".{PACKAGE}.{kind}"
                message.field.add(name=field, number=int(number), label=label, type=_F.TYPE_MESSAGE, type_name=path)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.Graph"))


_GRAPH = _build()


def parse_graph(data: bytes) -> Any:
    """Decode a serialised GraphDef.

    Parameters
    ----------
    data
        The bytes of the file.

    Returns
    -------
    The graph message; its nodes are in ``.node``.

    Raises
    ------
    ModelError
        The bytes are no GraphDef, are cut short, or hold no node.
    """
    graph: Any = _GRAPH()
    try:
        graph.ParseFromString(data)
    except (DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise ModelError(f"not a frozen TensorFlow graph, or a damaged or truncated one: {error}") from error
    if not graph.node:
        raise ModelError("not a frozen TensorFlow graph: it holds no node")
    return graph


def dimensions(shape: Any) -> tuple[int | None, ...] | None:
    """The dims of a TensorShape message: None where a dim is unknown, None as a whole where the rank is."""
    if shape.unknown_rank:
        return None
    return tuple(None if d.size < 0 else int(d.size) for d in shape.dim)


def tensor_array(tensor: Any, where: str, limit: int) -> np.ndarray[Any, np.dtype[Any]]:
    """The NumPy array of a Tensor message.

    A short constant may give fewer values than its shape has elements; the last one is then repeated, which is the one
    case where a few bytes in the file ask for much memory, so such a tensor must fit in ``limit`` bytes.

    Parameters
    ----------
    tensor
        The message.
    where
        The node's name, for messages.
    limit
        Most bytes that a tensor with repeated values may take.

    Returns
    -------
    A C-contiguous array of the tensor's shape and dtype.

    Raises
    ------
    ModelError
        The number of bytes or values does not match the shape and dtype, or the dtype is none that is known.
    """
    if tensor.dtype not in DTYPES:
        raise ModelError(f"constant {where}: TensorFlow dtype {tensor.dtype} is not a number type")
    dtype, field = DTYPES[tensor.dtype]
    dims = dimensions(tensor.shape)
    if dims is None or None in dims:
        raise ModelError(f"constant {where}: its shape is not known")
    shape = tuple(d for d in dims if d is not None)
    if len(shape) > 32:
        raise ModelError(f"constant {where}: it has {len(shape)} dims")
    count = 1
    for extent in shape:
        count *= extent
    if tensor.content:
        if len(tensor.content) != count * dtype.itemsize:
            raise ModelError(f"constant {where}: {len(tensor.content)} bytes for shape {shape} of {dtype}")
        return np.frombuffer(tensor.content, dtype).reshape(shape)
    values = getattr(tensor, field)
    if len(values) > count or (len(values) < count and count * dtype.itemsize > limit):
        raise ModelError(f"constant {where}: {len(values)} values for shape {shape} of {dtype}")
    if field == "half_val":
        if any(not 0 <= v <= 0xFFFF for v in values):
            raise ModelError(f"constant {where}: a 16-bit value is out of range")
        given = np.array(values, np.uint16).view(dtype)
    else:
        try:
            given = np.array(values, dtype=dtype)
        except (OverflowError, ValueError) as error:
            raise ModelError(f"constant {where}: a value does not fit {dtype}: {error}") from error
    out = np.zeros(count, dtype)
    out[: len(given)] = given
    if 0 < len(given) < count:
        out[len(given) :] = given[-1]
    return out.reshape(shape)
