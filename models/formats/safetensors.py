"""safetensors: tensors by name, without code. Read by ourselves: a length, a JSON header and raw bytes need no package,
and what is worth having, that a hostile header is refused before anything is believed, is the checks below.

A file becomes a network where its metadata say which of our architectures it belongs to and how that is built
(``voxelrt.architecture`` and ``voxelrt.arguments``, JSON). Format: https://huggingface.co/docs/safetensors.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from voxelrt.errors import ModelError, UsageError
from voxelrt.io.atomic import atomic_path
from voxelrt.models.architectures import named
from voxelrt.models.formats.onnx import load_onnx

MAX_HEADER_BYTES = 100_000_000
ARCHITECTURE, ARGUMENTS = "voxelrt.architecture", "voxelrt.arguments"
DTYPES: dict[str, np.dtype[Any]] = {
    name: np.dtype(kind)
    for name, kind in {
        "BOOL": np.bool_,
        "U8": np.uint8,
        "I8": np.int8,
        "F8_E5M2": ml_dtypes.float8_e5m2,
        "F8_E4M3": ml_dtypes.float8_e4m3fn,
        "U16": "<u2",
        "I16": "<i2",
        "F16": "<f2",
        "BF16": ml_dtypes.bfloat16,
        "U32": "<u4",
        "I32": "<i4",
        "F32": "<f4",
        "U64": "<u8",
        "I64": "<i8",
        "F64": "<f8",
    }.items()
}

Array = NDArray[Any]


def read_safetensors(path: str | Path) -> tuple[dict[str, Array], dict[str, str]]:
    """The tensors of a file by name, and its metadata.

    Returns
    -------
    Arrays that are mapped from the file, not read into memory, and cannot be written to; and texts by name.

    Raises
    ------
    ModelError : no such file, or a header that is damaged or contradicts the file: nothing is allocated by its word.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            start = stream.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
            if not 2 <= length <= min(size - 8, MAX_HEADER_BYTES):
                raise ModelError(f"{path.name} is no safetensors file: its header would have {length} bytes")
            header = _parse(path, stream.read(length))
        data = np.memmap(path, np.uint8, "r", 8 + length) if size > 8 + length else np.empty(0, np.uint8)
    except OSError as error:
        raise ModelError(f"{path.name} cannot be read: {error.strerror}") from error
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise ModelError(f"{path.name}: the metadata of a safetensors file are texts")
    spans = {name: _span(path, name, entry) for name, entry in header.items()}
    _check_cover(path, [(begin, end) for _, _, begin, end in spans.values()], data.size)
    tensors = {
        name: np.asarray(data[begin:end]).view(dtype).reshape(shape)
        for name, (dtype, shape, begin, end) in spans.items()
    }
    return tensors, metadata


def load_safetensors(path: str | Path) -> ir.Model:
    """The network that a file's metadata name, with its weights.

    Raises
    ------
    ModelError : as ``read_safetensors``; or the metadata name no architecture, or one that these tensors do not fit.
    """
    tensors, metadata = read_safetensors(path)
    name = Path(path).name
    if ARCHITECTURE not in metadata:
        raise ModelError(
            f"{name} holds {len(tensors)} tensors and does not say of which network: its metadata need "
            f"{ARCHITECTURE} (one of {', '.join(named.ARCHITECTURES)}) and {ARGUMENTS}"
        )
    try:
        arguments = json.loads(metadata.get(ARGUMENTS, "{}"))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{name}: the metadata {ARGUMENTS} are not JSON") from error
    return network_of(name, metadata[ARCHITECTURE], arguments, tensors)


def network_of(name: str, architecture: str, arguments: Any, tensors: Mapping[str, Array]) -> ir.Model:
    """The architecture that a file of this name asks for, with its tensors. Raises ModelError: they do not fit."""
    try:
        model = named.build(architecture, arguments, tensors)
    except UsageError as error:
        raise ModelError(f"{name}: {error}") from error
    return load_onnx(ir.to_proto(model).SerializeToString())


def write_safetensors(
    path: str | Path,
    tensors: Mapping[str, Array],
    *,
    architecture: str = "",
    arguments: Mapping[str, Any] | None = None,
) -> None:
    """Write tensors, and which architecture they belong to.

    Raises
    ------
    UsageError : a dtype that the format does not have. OutputError : the file cannot be written.
    """
    names = {dtype: name for name, dtype in DTYPES.items()}
    header: dict[str, Any] = {}
    if architecture:
        header["__metadata__"] = {ARCHITECTURE: architecture, ARGUMENTS: json.dumps(dict(arguments or {}))}
    offset = 0
    for name, array in tensors.items():
        if array.dtype not in names:
            raise UsageError(f"the tensor {name!r} is {array.dtype}, which safetensors does not have")
        header[name] = {
            "dtype": names[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [offset, offset + array.nbytes],
        }
        offset += array.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with atomic_path(path) as target, target.open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        for array in tensors.values():
            stream.write(np.ascontiguousarray(array).tobytes())


def _parse(path: Path, data: bytes) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a name is used twice")
        return found

    try:
        header = json.loads(data.decode("utf-8"), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path.name}: the header of the safetensors file is not JSON with unique names") from error
    if not isinstance(header, dict):
        raise ModelError(f"{path.name}: the header of the safetensors file is no JSON object")
    return header


def _span(path: Path, name: str, entry: Any) -> tuple[np.dtype[Any], tuple[int, ...], int, int]:
    """Dtype, shape, begin and end of a tensor, which agree."""
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise ModelError(f"{path.name}: the tensor {name[:80]!r} needs dtype, shape and data_offsets")
    dtype = DTYPES.get(entry["dtype"]) if isinstance(entry["dtype"], str) else None
    if dtype is None:
        raise ModelError(f"{path.name}: the tensor {name[:80]!r} has the unknown dtype {str(entry['dtype'])[:20]!r}")
    shape, offsets = entry["shape"], entry["data_offsets"]
    if not _sizes(shape) or len(shape) > 32 or not _sizes(offsets) or len(offsets) != 2:
        raise ModelError(f"{path.name}: the tensor {name[:80]!r} has sizes that are no whole numbers")
    begin, end = offsets
    if end - begin != math.prod(shape) * dtype.itemsize:
        raise ModelError(
            f"{path.name}: the tensor {name[:80]!r} is {math.prod(shape)} × {dtype} and has {end - begin} bytes"
        )
    return dtype, tuple(shape), begin, end


def _sizes(values: Any) -> bool:
    return isinstance(values, list) and all(type(v) is int and 0 <= v < 1 << 62 for v in values)


def _check_cover(path: Path, spans: list[tuple[int, int]], size: int) -> None:
    """The tensors lie one behind the other and fill the file."""
    at = 0
    for begin, end in sorted(spans):
        if begin != at:
            raise ModelError(f"{path.name}: tensors lie on top of each other or leave a gap at byte {at}")
        at = end
    if at != size:
        raise ModelError(f"{path.name}: its tensors need {at} bytes; the file has {size}")
