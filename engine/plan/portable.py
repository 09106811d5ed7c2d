"""The portable part of a plan: the graph as ONNX, its large tensors outside so that they are mapped, not parsed."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from voxelrt.errors import PlanError

INLINE_BYTES = 1024  # smaller tensors stay inside the ONNX bytes
ALIGNMENT = 64


class WeightBlob:
    """The weights section while it is written: equal arrays are kept once."""

    def __init__(self) -> None:
        self._parts: list[NDArray[np.uint8]] = []
        self._places: dict[bytes, tuple[int, int]] = {}
        self._end = 0

    def add(self, array: NDArray[Any]) -> tuple[int, int]:
        """Where the array's bytes lie: (offset, bytes)."""
        data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        digest = hashlib.sha256(data.data).digest()
        if digest not in self._places:
            padding = -self._end % ALIGNMENT
            self._parts.append(data)
            self._places[digest] = (self._end + padding, data.size)
            self._end += padding + data.size
        return self._places[digest]

    @property
    def size(self) -> int:
        """The bytes of all."""
        return self._end

    def write(self, target: NDArray[np.uint8]) -> None:
        """Copy all arrays to their places in memory that is zero."""
        for place, data in zip(self._places.values(), self._parts, strict=True):
            target[place[0] : place[0] + place[1]] = data


def graph_bytes(model: ir.Model, blob: WeightBlob) -> bytes:
    """The model as ONNX; tensors over INLINE_BYTES refer to the blob by offset and length."""
    tensors = {name: v.const_value for name, v in model.graph.initializers.items()}
    large = {
        name: t for name, t in tensors.items() if t is not None and t.nbytes > INLINE_BYTES and t.dtype.itemsize >= 1
    }
    try:
        for name, tensor in large.items():
            array = tensor.numpy()
            offset, length = blob.add(array)
            model.graph.initializers[name].const_value = ir.ExternalTensor(
                "weights", offset, length, tensor.dtype, shape=ir.Shape(array.shape), name=name
            )
        return bytes(ir.serde.serialize_model(model).SerializeToString())
    finally:
        for name, tensor in large.items():
            model.graph.initializers[name].const_value = tensor


def read_graph(data: bytes, weights: NDArray[np.uint8]) -> ir.Model:
    """The model of a portable section; its large tensors are views on ``weights``.

    Raises
    ------
    PlanError : the graph is damaged or a tensor lies outside the weights.
    """
    try:
        proto = onnx.ModelProto.FromString(data)
    except Exception as error:
        raise PlanError("the plan is damaged: its graph is not an ONNX model") from error
    for tensor in proto.graph.initializer:
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        place = {entry.key: entry.value for entry in tensor.external_data}
        try:
            offset, length = int(place["offset"]), int(place["length"])
        except (KeyError, ValueError) as error:
            raise PlanError(f"the plan is damaged: place of the tensor {tensor.name!r}") from error
        if offset < 0 or length < 0 or offset > weights.size or length > weights.size - offset:
            raise PlanError(f"the plan is damaged: the tensor {tensor.name!r} lies outside the weights")
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
        if int(np.prod(tensor.dims, dtype=np.int64)) * dtype.itemsize != length:
            raise PlanError(f"the plan is damaged: size of the tensor {tensor.name!r}")
    model = ir.serde.deserialize_model(proto)
    for name, value in model.graph.initializers.items():
        outside = value.const_value
        if isinstance(outside, ir.ExternalTensor):
            start, size = outside.offset or 0, outside.length or 0
            array = weights[start : start + size].view(outside.dtype.numpy()).reshape(outside.shape.numpy())
            value.const_value = ir.Tensor(array, dtype=outside.dtype, name=name)
    return model
