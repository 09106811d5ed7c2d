"""safetensors: what the package wrote is read, networks come back by their weights, hostile headers are refused."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import voxelrt as vx
from tests.effort import at_most_a_second_of_work
from voxelrt.errors import ModelError, UsageError
from voxelrt.models.architectures import dense, named, unet3d
from voxelrt.models.formats.safetensors import DTYPES, load_safetensors, read_safetensors, write_safetensors

PEER = Path(__file__).parent / "data" / "peer.safetensors"  # by the safetensors package: make_safetensors.py
Header = dict[str, Any]
SMALL: dict[str, dict[str, Any]] = {
    "convnext": {"depths": [1, 1], "widths": [8, 16]},
    "densenet": {"blocks": [2], "growth": 4},
    "efficientnet": {"stages": [[6, 8, 1, 2, 3]], "stem": 8, "head": 16},
    "resnet": {"width": 4},
    "unet3d": {"features": [4, 8], "patch": [8, 8, 8]},
}


def seeds() -> list[bytes]:
    """Sound files for the fuzzer."""
    return [PEER.read_bytes(), file_with({"a": entry("F32", [2], 0, 8)}, 8)]


def entry(dtype: str, shape: Any, begin: Any, end: Any) -> Header:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def file_with(header: Any, size: int) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + b"\0" * size


def test_a_file_of_the_package_is_the_network_that_it_was() -> None:
    expected = named.parameters_of(dense.build_mlp((5, 7, 3), batch=2, seed=11))
    tensors, metadata = read_safetensors(PEER)
    assert metadata["format"] == "np"
    assert set(tensors) == set(expected)
    for name, array in tensors.items():
        np.testing.assert_array_equal(array, expected[name])
        assert not array.flags.writeable
    x = np.random.default_rng(0).standard_normal((2, 5), np.float32)
    built = vx.compile(dense.build_mlp((5, 7, 3), batch=2, seed=11), verify=False)
    np.testing.assert_array_equal(vx.compile(PEER, fallback="error")(x), built(x))


def test_every_dtype_and_shape_comes_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    tensors = {name: rng.integers(0, 2, (3, 0 if name == "I8" else 2)).astype(d) for name, d in DTYPES.items()}
    tensors["scalar"] = np.array(2.5, np.float32)
    write_safetensors(tmp_path / "all.safetensors", tensors)
    found, metadata = read_safetensors(tmp_path / "all.safetensors")
    assert metadata == {}
    for name, array in tensors.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)
    with pytest.raises(UsageError, match="complex64"):
        write_safetensors(tmp_path / "no.safetensors", {"c": np.zeros(1, np.complex64)})
    assert not (tmp_path / "no.safetensors").exists()


def test_a_network_of_half_floats(tmp_path: Path) -> None:
    arguments = {"features": [4, 8], "patch": [8, 8, 8], "classes": 2}
    layers = list(unet3d.convolutions((4, 8), (8, 8, 8), 2))
    weights = {n: a.astype(ml_dtypes.bfloat16) for n, a in unet3d.draw_parameters(layers, 3).items()}
    path = tmp_path / "net.safetensors"
    write_safetensors(path, weights, architecture="unet3d", arguments=arguments)
    model = load_safetensors(path)
    found = model.graph.initializers["head.bias"].const_value
    assert found is not None
    np.testing.assert_array_equal(found.numpy(), weights["head.bias"].astype(np.float32))


@pytest.mark.parametrize("name", list(named.ARCHITECTURES))
def test_weights_of_another_seed_make_the_network_of_that_seed(name: str) -> None:
    function = named.ARCHITECTURES[name]
    drawn, again = (named.parameters_of(function(**SMALL.get(name, {}), seed=seed)) for seed in (5, 5))
    assert drawn
    built = named.parameters_of(named.build(name, SMALL.get(name, {}), drawn))
    assert list(built) == list(again)
    assert all(np.array_equal(built[key], again[key]) for key in again)
    with pytest.raises(UsageError, match="has no weights named more"):
        named.build(name, SMALL.get(name, {}), drawn | {"more": np.zeros(1, np.float32)})


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "no safetensors"),
        (b"\xff" * 8, "no safetensors"),
        (struct.pack("<Q", 1 << 60) + b"{}", "no safetensors"),
        (file_with(b"[1]", 0), "no JSON object"),
        (file_with(b"{" * 50_000, 0), "not JSON"),
        (file_with(b'{"a": 1, "a": 2}', 0), "unique names"),
        (file_with({"__metadata__": {"a": 1}}, 0), "metadata"),
        (file_with({"a": 3}, 0), "needs dtype"),
        (file_with({"a": entry("F33", [1], 0, 4)}, 4), "unknown dtype"),
        (file_with({"a": entry("F32", [1 << 40, 1 << 20], 0, 1 << 62)}, 4), "no whole numbers|has"),
        (file_with({"a": entry("F32", [1 << 60], 0, 4)}, 4), "has 4 bytes"),
        (file_with({"a": entry("F32", [-1], 0, 4)}, 4), "no whole numbers"),
        (file_with({"a": entry("F32", [True], 0, 4)}, 4), "no whole numbers"),
        (file_with({"a": entry("F32", [1], 4, 8), "b": entry("F32", [1], 4, 8)}, 8), "on top of each other"),
        (file_with({"a": entry("F32", [1], 0, 4), "b": entry("F32", [1], 0, 4)}, 4), "on top of each other"),
        (file_with({"a": entry("F32", [1], 8, 12)}, 12), "gap"),
        (file_with({"a": entry("F32", [2], 0, 8)}, 4), "need 8 bytes"),
        (file_with({"a": entry("F32", [1], 0, 4)}, 8), "the file has 8"),
        (file_with({"a": entry("F32", [1], 0, 4)}, 4), "does not say of which network"),
    ],
)
def test_hostile_headers_are_refused_within_a_second(tmp_path: Path, data: bytes, why: str) -> None:
    path = tmp_path / "net.safetensors"
    path.write_bytes(data)
    with at_most_a_second_of_work(), pytest.raises(ModelError, match=why):
        load_safetensors(path)


@pytest.mark.parametrize(
    ("name", "arguments", "why"),
    [
        ("alexnet", {}, "is unknown; choose from"),
        ("mlp", [], "an object of names"),
        ("mlp", {"seed": 3}, "has no argument 'seed'"),
        ("mlp", {"widths": [5, "7"]}, "written like"),
        ("mlp", {"widths": [5, 7, 4]}, r"'linear_2.weight' is \(7, 3\); the network takes \(7, 4\)"),
        ("mlp", {"widths": [5, 7, 3, 9]}, "none named 'linear_3.weight'"),
        ("mlp", {"widths": [5, 7]}, "has no weights named linear_2"),
        ("dncnn3d", {"depth": 1 << 30}, "none named 'conv_1.weight'"),
        ("mlp", {"widths": [1 << 30, 1 << 30]}, "the network takes"),
        ("window_attention", {"grid": [4096, 4096, 4096]}, "the mask"),
    ],
)
def test_metadata_that_the_weights_do_not_fit(tmp_path: Path, name: str, arguments: Any, why: str) -> None:
    path = tmp_path / "net.safetensors"
    write_safetensors(path, read_safetensors(PEER)[0], architecture=name, arguments={})
    data = path.read_bytes()
    text = json.loads(data[8 : 8 + struct.unpack("<Q", data[:8])[0]])
    text["__metadata__"]["voxelrt.arguments"] = json.dumps(arguments)
    path.write_bytes(file_with(text, 0) + data[8 + struct.unpack("<Q", data[:8])[0] :])
    with at_most_a_second_of_work(), pytest.raises(ModelError, match=why):
        load_safetensors(path)
