"""ONNX files in: sound ones of many kinds, and hostile ones, each an error with a clear text in under a second."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from tests.effort import at_most_a_second_of_work
from voxelrt.errors import ModelError, UnsupportedError, VoxelRTError
from voxelrt.graph.spec import NEWEST_OPSET, verify
from voxelrt.models.formats.onnx import load_onnx

Change = Callable[[onnx.ModelProto], None]


def network(opset: int = 18) -> onnx.ModelProto:
    """x (1, N, 4) → MatMul with w (4, 2) → Relu → y."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, "N", 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, "N", 2])
    nodes = [helper.make_node("MatMul", ["x", "w"], ["a"]), helper.make_node("Relu", ["a"], ["y"], name="last")]
    w = numpy_helper.from_array(np.arange(8, dtype=np.float32).reshape(4, 2), "w")
    graph = helper.make_graph(nodes, "net", [x], [y], [w])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


@contextmanager
def refused(message: str, kind: type[VoxelRTError] = ModelError) -> Iterator[None]:
    with at_most_a_second_of_work(), pytest.raises(kind, match=message):
        yield


def test_a_file_is_loaded_verified_and_its_nodes_named(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(network(), path)
    model = load_onnx(path)
    assert [node.name for node in model.graph] == ["MatMul_0", "last"]
    assert model.graph.initializers["w"].const_value.numpy().sum() == 28
    verify(model)


@pytest.mark.parametrize("opset", [7, 9, 11, 12, 13, 17, 21, 24, NEWEST_OPSET])
def test_operator_sets(opset: int) -> None:
    model = load_onnx(network(opset).SerializeToString())
    assert model.opset_imports[""] == max(opset, 13)
    assert "w" in model.graph.initializers


def test_an_old_model_keeps_its_large_weights_and_gets_the_new_form() -> None:
    proto = network(11)
    axes = helper.make_node("ReduceSum", ["y"], ["z"], axes=[1], keepdims=0)
    big = numpy_helper.from_array(np.ones((4, 2000), np.float32), "w")
    proto.graph.node.append(axes)
    proto.graph.initializer[0].CopyFrom(big)
    for output in proto.graph.output:
        output.CopyFrom(helper.make_tensor_value_info("z", TensorProto.FLOAT, [1, 2000]))
    model = load_onnx(proto.SerializeToString())
    assert len(model.graph.node("last").outputs[0].uses()) == 1
    reduce = next(node for node in model.graph if node.op_type == "ReduceSum")
    assert len(reduce.inputs) == 2  # axes are an input since 13
    assert model.graph.initializers["w"].const_value.numpy().shape == (4, 2000)
    assert [v.name for v in model.graph.inputs] == ["x"]


def test_functions_are_inlined() -> None:
    proto = network()
    body = [helper.make_node("Neg", ["p"], ["q"]), helper.make_node("Relu", ["q"], ["r"])]
    imports = [helper.make_opsetid("", 18)]
    proto.functions.append(helper.make_function("mine", "NegRelu", ["p"], ["r"], body, imports))
    proto.functions.append(helper.make_function("mine", "Same", ["p"], ["p"], [], imports))
    proto.opset_import.append(helper.make_opsetid("mine", 1))
    proto.graph.node[1].CopyFrom(helper.make_node("NegRelu", ["a"], ["b"], domain="mine"))
    proto.graph.node.append(helper.make_node("Same", ["b"], ["y"], domain="mine"))
    model = load_onnx(proto.SerializeToString())
    assert [node.op_type for node in model.graph] == ["MatMul", "Neg", "Relu", "Identity"]
    assert [v.name for v in model.graph.outputs] == ["y"]
    assert [v.name for v in model.graph.inputs] == ["x"]


def test_nodes_out_of_order_are_sorted() -> None:
    proto = network()
    nodes = list(proto.graph.node)
    del proto.graph.node[:]
    proto.graph.node.extend(reversed(nodes))
    assert [node.op_type for node in load_onnx(proto.SerializeToString()).graph] == ["MatMul", "Relu"]


def test_external_weights_are_read_from_the_models_folder(tmp_path: Path) -> None:
    onnx.save(network(), tmp_path / "net.onnx", save_as_external_data=True, location="net.data", size_threshold=0)
    model = load_onnx(tmp_path / "net.onnx")
    assert model.graph.initializers["w"].const_value.numpy().sum() == 28


def _unknown_operators(proto: onnx.ModelProto) -> None:
    proto.graph.node[0].domain = "com.example"
    proto.graph.node.append(helper.make_node("Fancy", ["y"], ["z"], name="fancy", domain="org.other"))


def test_a_shape_that_the_exporter_left_out_of_an_output_is_inferred() -> None:
    proto = network()
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    shape = load_onnx(proto.SerializeToString()).graph.outputs[0].shape
    assert shape is not None
    assert [str(size) for size in shape] == ["1", "N", "2"]


def test_operators_of_unknown_domains_are_listed_all_at_once() -> None:
    proto = network()
    _unknown_operators(proto)
    with pytest.raises(UnsupportedError) as caught:
        load_onnx(proto.SerializeToString())
    assert [line.partition(":")[0] for line in caught.value.nodes] == ["number 0 (MatMul)", "'fancy' (Fancy)"]


def test_operators_that_do_not_exist_are_listed() -> None:
    proto = network()
    proto.graph.node[0].op_type = "MatMull"
    with refused(r"MatMull_0 \(MatMull\): there is no such operator in version 18", UnsupportedError):
        load_onnx(proto.SerializeToString())


def _w(proto: onnx.ModelProto) -> TensorProto:
    return proto.graph.initializer[0]


def _short(p: onnx.ModelProto) -> None:
    _w(p).raw_data = _w(p).raw_data[:-4]


def _long(p: onnx.ModelProto) -> None:
    _w(p).raw_data += b"abcd"


def _huge(p: onnx.ModelProto) -> None:
    _w(p).dims[:] = [1 << 33, 1 << 33]


def _negative(p: onnx.ModelProto) -> None:
    _w(p).dims[:] = [-4, -2]


def _dtype(p: onnx.ModelProto) -> None:
    _w(p).data_type = 77


def _wrong_field(p: onnx.ModelProto) -> None:
    _w(p).ClearField("raw_data")
    _w(p).int64_data.extend(range(8))


def _segment(p: onnx.ModelProto) -> None:
    _w(p).segment.begin = 1


def _cycle(p: onnx.ModelProto) -> None:
    p.graph.node[0].input[0] = "y"


def _self_cycle(p: onnx.ModelProto) -> None:
    p.graph.node[1].input[0] = "y"


def _missing_value(p: onnx.ModelProto) -> None:
    p.graph.node[1].input[0] = "nowhere"


def _missing_node(p: onnx.ModelProto) -> None:
    del p.graph.node[1]


def _twice(p: onnx.ModelProto) -> None:
    p.graph.node.append(helper.make_node("Neg", ["x"], ["a"]))


def _no_opset(p: onnx.ModelProto) -> None:
    del p.opset_import[:]


def _ir_version(p: onnx.ModelProto) -> None:
    p.ir_version = 4711


def _no_graph(p: onnx.ModelProto) -> None:
    p.ClearField("graph")


def _two_inputs(p: onnx.ModelProto) -> None:
    p.graph.input.append(p.graph.input[0])


def _contradiction(p: onnx.ModelProto) -> None:
    _w(p).dims[:] = [2, 4]


def _attribute(p: onnx.ModelProto) -> None:
    p.graph.node[1].CopyFrom(helper.make_node("Softmax", ["a"], ["y"], axis="one"))


def _recursive_function(p: onnx.ModelProto) -> None:
    body = [helper.make_node("F", ["p"], ["q"], domain="mine")]
    p.functions.append(helper.make_function("mine", "F", ["p"], ["q"], body, [helper.make_opsetid("mine", 1)]))


def _bomb(p: onnx.ModelProto) -> None:
    """Functions that call the next one twice: 2⁴⁰ nodes once expanded."""
    imports = [helper.make_opsetid("", 18), helper.make_opsetid("mine", 1)]
    for level in range(40):
        call = f"F{level + 1}" if level < 39 else "Neg"
        domain = "mine" if level < 39 else ""
        body = [
            helper.make_node(call, ["p"], ["q"], domain=domain),
            helper.make_node(call, ["q"], ["r"], domain=domain),
        ]
        p.functions.append(helper.make_function("mine", f"F{level}", ["p"], ["r"], body, imports))
    p.graph.node.append(helper.make_node("F0", ["y"], ["z"], domain="mine"))


def _deep(p: onnx.ModelProto) -> None:
    """Branches within branches; protobuf itself ends at 100 messages within each other."""
    out = [helper.make_value_info("o", onnx.TypeProto())]
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["o"])], "g", [], out)
    for _ in range(20):
        graph = helper.make_graph([helper.make_node("If", ["x"], ["o"], then_branch=graph)], "g", [], out)
    p.graph.node.append(helper.make_node("If", ["x"], ["z"], then_branch=graph))


def _shapeless_input(p: onnx.ModelProto) -> None:
    p.graph.input[0].type.tensor_type.ClearField("shape")


def _shapeless_output(p: onnx.ModelProto) -> None:
    """Its rank is that of a value that is known only at run time."""
    p.graph.output[0].type.tensor_type.ClearField("shape")
    p.graph.input.append(helper.make_tensor_value_info("s", TensorProto.INT64, ["R"]))
    p.graph.node[1].CopyFrom(helper.make_node("Reshape", ["a", "s"], ["y"]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_short, r"the tensor 'w' \[4, 2\] needs 32 bytes and has 28"),
        (_long, "needs 32 bytes and has 36"),
        (_huge, "too large"),
        (_negative, "negative dimension"),
        (_dtype, "unknown data type 77"),
        (_wrong_field, "needs 8 values and has 0"),
        (_segment, "segments"),
        (_cycle, r"cycle; among these nodes: number 0 \(MatMul\), 'last' \(Relu\)"),
        (_self_cycle, "cycle"),
        (_missing_value, r"node 'last' \(Relu\) reads 'nowhere', which nothing defines"),
        (_missing_node, "nothing in the graph makes its output 'y'"),
        (_twice, "'a' is defined twice"),
        (_no_opset, "does not say which operator set"),
        (_ir_version, "IR version 4711"),
        (_no_graph, "it has no graph"),
        (_two_inputs, "'x' of the graph is unnamed or named twice"),
        (_contradiction, "not valid ONNX.*MatMul"),
        (_attribute, "not valid ONNX"),
        (_shapeless_input, "the input 'x' has no shape"),
        (_shapeless_output, "the output 'y' has no shape, and none can be inferred"),
        (_recursive_function, "call themselves.*F"),
        (_bomb, "at most 1000000"),
        (_deep, "nested more than 16"),
    ],
)
def test_hostile_models(change: Change, message: str) -> None:
    proto = network()
    change(proto)
    data = proto.SerializeToString()
    with refused(message):
        load_onnx(data)


@pytest.mark.parametrize("version", [0, -3, NEWEST_OPSET + 1, 1 << 40])
def test_operator_sets_that_do_not_exist(version: int) -> None:
    with refused("version .* of the ONNX operator set"):
        load_onnx(network(version).SerializeToString())


@pytest.mark.parametrize("data", [b"", b"\0" * 64, b"\x08\x01\x12", b"PK\3\4" + b"\0" * 100, os.urandom(4096)])
def test_what_is_no_model(data: bytes) -> None:
    with refused("not an ONNX model"):
        load_onnx(data)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with refused("no such file"):
        load_onnx(tmp_path / "none.onnx")
    with refused("no such file"):
        load_onnx(tmp_path)
    (tmp_path / "empty.onnx").touch()
    with refused("has 0 bytes"):
        load_onnx(tmp_path / "empty.onnx")


def _external(folder: Path, **place: object) -> Path:
    proto = network()
    tensor = _w(proto)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in place.items():
        tensor.external_data.add(key=key, value=str(value))
    home = folder / "model"
    home.mkdir()
    (home / "data").write_bytes(np.arange(8, dtype=np.float32).tobytes())
    (folder / "secret").write_bytes(bytes(32))
    (home / "link").symlink_to(folder / "secret")
    (home / "loop").symlink_to(home / "loop")
    (home / "inner").symlink_to(home / "data")
    (home / "folder").mkdir()
    path = home / "net.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


@pytest.mark.parametrize(
    "location", ["../secret", "/etc/passwd", "folder/../../secret", "", "..", "a\0b", "..\\secret"]
)
def test_external_data_outside_the_folder(tmp_path: Path, location: str) -> None:
    path = _external(tmp_path, location=location)
    with refused("only files inside the model's folder"):
        load_onnx(path)


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ({"location": "link"}, "link that leaves"),
        ({"location": "folder"}, "link that leaves|not followed"),
        ({"location": "loop"}, "missing"),
        ({"location": "none"}, "missing"),
        ({"location": "data", "offset": 4}, "needs bytes 4 to 36 of 'data', which has 32"),
        ({"location": "data", "offset": -1}, "needs bytes -1"),
        ({"location": "data", "offset": 1 << 70}, "needs bytes"),
        ({"location": "data", "offset": "x"}, "not a number"),
        ({"location": "data", "length": 31}, "needs 32 bytes, not 31"),
    ],
)
def test_external_data_out_of_bounds(tmp_path: Path, place: dict[str, object], message: str) -> None:
    path = _external(tmp_path, **place)
    with refused(message):
        load_onnx(path)


def test_links_inside_the_folder_are_followed_and_bytes_have_no_folder(tmp_path: Path) -> None:
    path = _external(tmp_path, location="inner")
    assert load_onnx(path).graph.initializers["w"].const_value.numpy().sum() == 28
    with refused("was not read from a file"):
        load_onnx(path.read_bytes())


SOUND = network().SerializeToString()


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, len(SOUND) - 1), st.integers(0, 255)), min_size=1, max_size=6), st.integers(0, 40)
)
def test_damaged_bytes_are_an_error_of_ours_or_a_sound_model(changes: list[tuple[int, int]], cut: int) -> None:
    data = bytearray(SOUND[: len(SOUND) - cut])
    for place, byte in changes:
        data[place % len(data)] = byte
    with suppress(ModelError):
        verify(load_onnx(bytes(data)))


def test_old_operators_that_would_change_their_meaning_are_refused_by_name() -> None:
    proto = network(6)
    proto.graph.node[1].CopyFrom(helper.make_node("PRelu", ["a", "w"], ["y"], name="slopes"))
    with refused(r"'slopes' \(PRelu\): its slopes belong to the channels", UnsupportedError):
        load_onnx(proto.SerializeToString())


def test_sizes_that_exporters_write_as_minus_one_or_a_question_mark_are_open() -> None:
    text = '<ir_version: 8, opset_import: ["" : 17]> g (float[n, "?", "?"] x) => (float[n, a, b] y) { y = Relu(x) }'
    proto = onnx.parser.parse_model(text.replace('"?"', "q"))
    dims = proto.graph.input[0].type.tensor_type.shape.dim
    dims[0].dim_value = -1
    dims[1].dim_param = dims[2].dim_param = "?"
    model = load_onnx(proto.SerializeToString())
    assert [getattr(d, "value", d) for d in model.graph.inputs[0].shape or ()] == [None, None, None]
