"""Fuzz targets that go past a model's reader: a state dict to its network, an ONNX file to a plan and its answer."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx.backend.test.loader import load_model_tests

from tests.models.test_safetensors import SMALL
from tests.models.test_torch import WEIGHTS

Target = tuple[Callable[[Path], None], list[bytes]]
MOST_BYTES = 1 << 26  # of what a fuzzed plan may hold while it runs


def state_dict() -> Target:
    """A whole file, its pickle alone, or a JSON text of what the pickle says, of which values are changed by kind."""
    from voxelrt.models.formats.state_dict import is_state_dict, load_state_dict

    with zipfile.ZipFile(WEIGHTS) as archive:
        parts = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}

    def run(path: Path) -> None:
        data = path.read_bytes()
        path = path.rename(path.with_suffix(".pth"))
        described = _parsed(data)
        if described is not None:
            written = b"\x80\x02" + _written(described) + b"."
            path.write_bytes(_archive({"data.pkl": written, **_stored(described)}))
        elif not data.startswith(b"PK"):  # a checksum would hide it
            path.write_bytes(_archive({**parts, "data.pkl": data}))
        is_state_dict(path)
        load_state_dict(path)

    return run, [WEIGHTS.read_bytes(), parts["data.pkl"], *map(_described, ("mlp", "mdlstm", "conv_lstm", "unet3d"))]


def _described(name: str) -> bytes:
    """One of our architectures as the JSON text of a state dict."""
    from voxelrt.models.architectures import named

    arguments = SMALL.get(name, {})
    weights = named.parameters_of(named.build_seeded(name, arguments))
    tensors = {
        key: {
            "record": str(index),
            "kind": "FloatStorage",
            "elements": array.size,
            "offset": 0,
            "shape": list(array.shape),
            "strides": [step // array.itemsize for step in array.strides],
        }
        for index, (key, array) in enumerate(weights.items())
    }
    content = {"voxelrt.architecture": name, "voxelrt.arguments": arguments, "state_dict": tensors}
    return json.dumps(content).encode()


def _parsed(data: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(data) if data.startswith(b"{") else None
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _stored(value: dict[str, Any]) -> dict[str, bytes]:
    """The storages of a described state dict, of the sizes that it says where a small file could hold them."""
    tensors = value.get("state_dict")
    found = {}
    for tensor in tensors.values() if isinstance(tensors, dict) else ():
        record = tensor.get("record") if isinstance(tensor, dict) else None
        if isinstance(record, str) and record.isdecimal() and record.isascii():
            elements = tensor.get("elements")
            size = 4 * elements if type(elements) is int and 0 <= elements < 1 << 20 else 4
            found["data/" + record] = bytes(size)
    return found


def _written(value: Any) -> bytes:
    """A JSON value as opcodes of a pickle; an object with a ``record`` as the tensor that it describes."""
    if value is None or isinstance(value, bool):
        return {None: b"N", True: b"\x88", False: b"\x89"}[value]
    if isinstance(value, int | float):
        return (b"I%d\n" % value) if isinstance(value, int) else b"F" + repr(value).encode() + b"\n"
    if isinstance(value, str):
        text = value.encode("utf-8", "surrogatepass")
        return b"X" + len(text).to_bytes(4, "little") + text
    if isinstance(value, list):
        return b"](" + b"".join(map(_written, value)) + b"e"
    if "record" in value:
        kind, sizes = str(value.get("kind")).encode("ascii", "replace"), ("offset", "shape", "strides")
        storage = b"(" + _written("storage") + b"ctorch\n" + kind.replace(b"\n", b"") + b"\n"
        storage += _written(value["record"]) + _written("cpu") + _written(value.get("elements")) + b"tQ"
        rest = b"".join(_written(value.get(name)) for name in sizes)
        return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + rest + b"\x89NtR"
    return b"}(" + b"".join(_written(key) + _written(item) for key, item in value.items()) + b"u"


def _archive(parts: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in parts.items():
            archive.writestr(f"archive/{name}", data)
    return stream.getvalue()


def network() -> Target:
    """An ONNX file through passes, lowering, kernels' checks and a run; the seeds are ONNX's own tests of operators."""
    import voxelrt as vx
    from voxelrt.kernels.common.capi import numpy_dtype

    def run(path: Path) -> None:
        plan = vx.compile(path.rename(path.with_suffix(".onnx")), fallback="error", verify=False, tune="off")
        if plan.memory_bytes > MOST_BYTES:
            return
        rng = np.random.default_rng(0)
        plan.run({io.name: rng.integers(0, 3, io.dims).astype(numpy_dtype(io.dtype)) for io in plan.inputs})

    seeds = [test.model.SerializeToString() for test in load_model_tests(kind="node") if _small(test.model)]
    return run, seeds


def _small(model: onnx.ModelProto) -> bool:
    known = all(info.type.HasField("tensor_type") for info in model.graph.input)
    return known and len(model.graph.node) > 0 and model.ByteSize() < 4000
