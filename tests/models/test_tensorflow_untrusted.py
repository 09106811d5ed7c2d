"""Damaged and hostile TensorFlow graphs end in ModelError, before anything is allocated by their word."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.models.tensorflow_cases import cases
from voxelrt.errors import ModelError, UnsupportedError, VoxelRTError
from voxelrt.models.formats.tensorflow import import_graph, load_tensorflow
from voxelrt.models.formats.tensorflow_schema import parse_graph

FLOAT, INT32 = 1, 3


class Writer:
    """Writes GraphDefs by hand, also ones that TensorFlow itself would not."""

    def __init__(self) -> None:
        self.graph: Any = type(parse_graph(cases()["relu"]["graph"].tobytes()))()

    def node(self, name: str, op: str, inputs: Sequence[str] = (), **attributes: Any) -> Writer:
        node = self.graph.node.add(name=name, op=op, input=inputs)
        for key, value in attributes.items():
            entry = node.attr.add(key=key).value
            if isinstance(value, bytes):
                entry.s = value
            elif isinstance(value, list):
                entry.list.i.extend(value)
            else:
                entry.type = value
        return self

    def placeholder(self, *dims: int) -> Writer:
        self.node("x", "Placeholder", dtype=FLOAT)
        shape = self.graph.node[-1].attr.add(key="shape").value.shape
        shape.SetInParent()
        for size in dims:
            shape.dim.add(size=size)
        return self

    def const(self, name: str, dims: Sequence[int], dtype: int = FLOAT, content: bytes = b"", **values: Any) -> Writer:
        self.node(name, "Const", dtype=dtype)
        tensor = self.graph.node[-1].attr.add(key="value").value.tensor
        tensor.dtype, tensor.content = dtype, content
        tensor.shape.SetInParent()
        for size in dims:
            tensor.shape.dim.add(size=size)
        for key, value in values.items():
            getattr(tensor, key).extend(value)
        return self

    @property
    def data(self) -> bytes:
        return bytes(self.graph.SerializeToString())


def refused(data: bytes, match: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(ModelError, match=match):
            import_graph(data)
        assert tracemalloc.get_traced_memory()[1] < 600 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("data", [b"", b"\x00", b"not a graph", b"\x0a\xff\xff\xff\xff\x0f", b"\x08\x01" * 9])
def test_what_is_no_graph(data: bytes) -> None:
    refused(data, "not a frozen TensorFlow graph|node")


def test_every_truncation_and_many_flipped_bits_are_errors_or_models() -> None:
    whole = cases()["deconv3d_by_shape"]["graph"].tobytes()
    dice = random.Random(1)
    damaged = [whole[: dice.randrange(len(whole))] for _ in range(150)]
    for _ in range(500):
        data = bytearray(whole)
        for _ in range(dice.randrange(1, 4)):
            data[dice.randrange(len(data))] = dice.randrange(256)
        damaged.append(bytes(data))
    for data in damaged:
        try:
            import_graph(data)
        except VoxelRTError:
            continue


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be read"):
        load_tensorflow(tmp_path / "none.pb")


def test_cycle() -> None:
    graph = Writer().placeholder(2).node("a", "Add", ["x", "b"]).node("b", "Relu", ["a"]).node("y", "Relu", ["b"])
    refused(graph.data, "cycle through")


def test_loop_is_named_as_a_loop() -> None:
    graph = Writer().placeholder(2).node("m", "Merge", ["x", "n"]).node("n", "NextIteration", ["m"])
    graph.node("y", "Relu", ["m"])
    with pytest.raises(UnsupportedError, match=r"n \(NextIteration\): part of a loop"):
        import_graph(graph.data)


def test_a_deep_chain_needs_no_recursion() -> None:
    graph = Writer().placeholder(2)
    for i in range(5000):
        graph.node(f"r{i}", "Relu", [f"r{i - 1}" if i else "x"])
    assert len(import_graph(graph.data).graph) == 5000


def test_missing_and_repeated_nodes() -> None:
    refused(Writer().placeholder(2).node("y", "Add", ["x", "gone"]).data, "gone")
    refused(Writer().placeholder(2).node("x", "Relu", ["x"]).data, "two nodes named")
    refused(Writer().placeholder(2).node("y", "Add", ["x"]).data, "inputs")
    refused(Writer().placeholder(2).node("y", "Relu", ["x:99999999999"]).data, "not the name")


@pytest.mark.parametrize("content", [b"123", b"1" * 4, b"1" * 12])
def test_constant_with_the_wrong_number_of_bytes(content: bytes) -> None:
    refused(Writer().placeholder(2).const("c", [2], content=content).node("y", "Add", ["x", "c"]).data, "bytes for")


def test_constant_with_too_many_values() -> None:
    graph = Writer().placeholder(2).const("c", [2], float_val=[1, 2, 3]).node("y", "Add", ["x", "c"])
    refused(graph.data, "3 values for")


@pytest.mark.parametrize("dims", [[1 << 40], [1 << 20, 1 << 20], [-1], [1 << 62, 1 << 62], [2] * 40])
def test_constant_that_claims_to_be_huge(dims: list[int]) -> None:
    graph = Writer().placeholder(2).const("c", dims, float_val=[1]).node("y", "Add", ["x", "c"])
    refused(graph.data, "constant c")


def test_many_large_constants_of_few_bytes_are_refused_together() -> None:
    graph = Writer().placeholder(1)
    last = "x"
    for i in range(40):
        graph.const(f"c{i}", [1 << 24], float_val=[1]).node(f"a{i}", "Add", [last, f"c{i}"])
        last = f"a{i}"
    refused(graph.data, "more memory")


def test_folding_cannot_be_made_to_grow() -> None:
    dims = np.array([1 << 20, 1 << 10], "<i4").tobytes()
    graph = Writer().placeholder(1).const("d", [2], INT32, dims).const("v", [], float_val=[1])
    refused(graph.node("f", "Fill", ["d", "v"]).node("y", "Add", ["x", "f"]).data, "more than a constant can be")
    wide = Writer().placeholder(1).const("a", [1 << 14, 1], content=bytes(4 << 14))
    wide.const("b", [1, 1 << 14], content=bytes(4 << 14))
    refused(wide.node("f", "Mul", ["a", "b"]).node("y", "Add", ["x", "f"]).data, "too large")
    doubling = Writer().placeholder(1).const("p0", [1 << 10], content=bytes(4 << 10))
    for i in range(40):
        doubling.node(f"p{i + 1}", "Pack", [f"p{i}", f"p{i}"])
    refused(doubling.node("y", "Add", ["x", "p40"]).data, "more than a constant can be|axis|dims|malformed")


def test_shapes_past_all_reason() -> None:
    refused(Writer().placeholder(1 << 40).node("y", "Relu", ["x"]).data, "not possible")
    refused(Writer().placeholder(1 << 20, 1 << 20).node("y", "Relu", ["x"]).data, "not possible")
    graph = Writer().placeholder(-1, 2).node("s0", "Shape", ["x"])
    for i in range(80):
        graph.node(f"s{i + 1}", "Mul", [f"s{i}", f"s{i}"])
    refused(graph.node("y", "Reshape", ["x", "s80"]).data, "64 bits")


@pytest.mark.parametrize("strides", [[], [1, 0, 0, 0, 1], [1, -2, 1, 1, 1], [1, 2, 2], [1, 1 << 40, 1, 1, 1]])
def test_convolution_with_impossible_strides(strides: list[int]) -> None:
    graph = Writer().placeholder(1, 4, 4, 4, 1).const("w", [1] * 5, float_val=[1])
    graph.node("y", "Conv3D", ["x", "w"], strides=strides, padding=b"SAME")
    if strides:
        refused(graph.data, "strides")
    else:
        assert len(import_graph(graph.data).graph) == 3  # TensorFlow's own default would be an error; 1 is harmless


def test_filters_that_do_not_fit() -> None:
    for dims in ([1, 1, 1, 3, 1], [1, 1, 1, 0, 1], [1, 1, 2, 1], [9, 1, 1, 2, 1]):
        graph = Writer().placeholder(1, 4, 4, 4, 2).const("w", dims, float_val=[1] if 0 not in dims else [])
        refused(graph.node("y", "Conv3D", ["x", "w"], padding=b"VALID").data, "filter|channels|window")


def test_transposed_convolution_of_an_impossible_size() -> None:
    for size in (3, 9, 1 << 30):
        dims = np.array([1, size, 8, 8, 1], "<i4").tobytes()
        graph = (
            Writer().placeholder(1, 4, 4, 4, 1).const("n", [5], INT32, dims).const("w", [3, 3, 3, 1, 1], float_val=[1])
        )
        graph.node("y", "Conv3DBackpropInputV2", ["n", "w", "x"], strides=[1, 2, 2, 2, 1], padding=b"SAME")
        refused(graph.data, "do not become")


def test_every_node_that_cannot_be_imported_is_listed() -> None:
    graph = Writer().placeholder(2).node("one", "Fft", ["x"]).node("two", "Bessel", ["one"]).node("three", "Qr", ["x"])
    graph.node("y", "Add", ["two", "three"]).node("unread", "Strange").node("z", "Relu", ["x"])
    with pytest.raises(UnsupportedError) as caught:
        import_graph(graph.data, outputs=["y"])
    assert caught.value.nodes == tuple(
        f"{name} ({op}): this op is not supported" for name, op in (("one", "Fft"), ("two", "Bessel"), ("three", "Qr"))
    )
    assert len(import_graph(graph.data, outputs=["z"]).graph) == 1
