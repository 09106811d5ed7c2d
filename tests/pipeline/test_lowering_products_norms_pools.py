"""How pools, norms and products become steps: the answer is that of ONNX's reference, and what fuses does."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from voxelrt.compile import compile
from voxelrt.plan.plan import Plan

Array = NDArray[Any]
Node = tuple[str, list[str], list[str], dict[str, Any]]


def _random(shape: tuple[int, ...], dtype: str = "float32", seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(0.3, 1, shape).astype(dtype)


def model(
    nodes: list[Node], inputs: dict[str, Array], constants: dict[str, Array], outputs: list[str], opset: int = 21
) -> onnx.ModelProto:
    """A graph of such nodes, its inputs typed like these arrays; the outputs are typed by ONNX."""
    graph = helper.make_graph(
        [helper.make_node(op, ins, outs, name=f"{op}_{i}", **attrs) for i, (op, ins, outs, attrs) in enumerate(nodes)],
        "net",
        [
            helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
            for n, v in inputs.items()
        ],
        [helper.make_empty_tensor_value_info(n) for n in outputs],
        [numpy_helper.from_array(v, n) for n, v in constants.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    inferred = onnx.shape_inference.infer_shapes(made)
    for value in inferred.graph.output:  # ONNX does not type all norms; theirs is the shape of the input
        if not value.type.tensor_type.HasField("shape"):
            value.CopyFrom(inferred.graph.input[0])
            value.name = outputs[0]
    return inferred


def steps_of(plan: Plan) -> list[str]:
    """The lines of a plan's steps."""
    return plan.describe().split("steps of variant 0:")[1].split("parity:")[0].strip().splitlines()


def agree(made: onnx.ModelProto, inputs: dict[str, Array], relative: float = 2e-6) -> Plan:
    """Compile natively, compare all outputs with ONNX's reference, and give the plan."""
    plan = compile(made, verify=False, fallback="error")
    expected = ReferenceEvaluator(made).run(None, {k: v.astype(v.dtype) for k, v in inputs.items()})
    found = plan.run(inputs)
    for info, reference in zip(made.graph.output, expected, strict=True):
        out = found[info.name]
        assert out.shape == reference.shape
        error = np.linalg.norm(out.astype("f8") - reference.astype("f8"))
        assert error <= relative * max(float(np.linalg.norm(reference.astype("f8"))), 1e-30), info.name
    return plan


def test_a_bias_and_an_activation_go_into_the_product() -> None:
    x = {"x": _random((2, 5, 7))}
    constants = {"w": _random((7, 9), seed=1), "b": _random((9,), seed=2)}
    nodes: list[Node] = [
        ("MatMul", ["x", "w"], ["p"], {}),
        ("Add", ["b", "p"], ["s"], {}),
        ("LeakyRelu", ["s"], ["y"], {"alpha": 0.1}),
    ]
    plan = agree(model(nodes, x, constants, ["y"]), x)
    assert len(steps_of(plan)) == 1


def test_an_add_that_widens_the_product_stays_a_step() -> None:
    x = {"x": _random((5, 7))}
    constants = {"w": _random((7, 9), seed=1), "b": _random((3, 1, 9), seed=2)}
    agree(model([("MatMul", ["x", "w"], ["p"], {}), ("Add", ["p", "b"], ["y"], {})], x, constants, ["y"]), x)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("transposed", [(0, 0), (1, 0), (0, 1), (1, 1)])
@pytest.mark.parametrize("constant", [True, False])
def test_gemm(dtype: str, transposed: tuple[int, int], constant: bool) -> None:
    a = _random((6, 5) if transposed[0] else (5, 6), dtype)
    w = _random((9, 6) if transposed[1] else (6, 9), dtype, 1)
    c = _random((5, 1), dtype, 2)
    attributes = {"transA": transposed[0], "transB": transposed[1], "alpha": 0.5, "beta": 2.0}
    nodes: list[Node] = [("Gemm", ["a", "w", "c"], ["p"], attributes), ("Relu", ["p"], ["y"], {})]
    inputs = {"a": a} if constant else {"a": a, "w": w, "c": c}
    made = model(nodes, inputs, {"w": w, "c": c} if constant else {}, ["y"])
    plan = agree(made, inputs, {"float32": 1e-6, "float64": 1e-13, "float16": 2e-3}[dtype])
    assert len(steps_of(plan)) == 1


def test_vectors_multiply_as_in_numpy() -> None:
    shapes: list[tuple[tuple[int, ...], tuple[int, ...]]] = [((7,), (7, 3)), ((2, 5, 7), (7,)), ((7,), (4, 7, 3))]
    for a, b in [*shapes, ((7,), (7,))]:
        inputs = {"a": _random(a), "b": _random(b, seed=1)}
        agree(model([("MatMul", ["a", "b"], ["y"], {})], inputs, {}, ["y"]), inputs)
        first = {"a": inputs["a"]}
        agree(model([("MatMul", ["a", "b"], ["y"], {})], first, {"b": inputs["b"]}, ["y"]), first)


def test_the_batch_of_a_product_is_a_run_time_bound() -> None:
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["p"]), helper.make_node("Add", ["p", "b"], ["y"])],
        "net",
        [helper.make_tensor_value_info("x", 1, ["n", 5, 7])],
        [helper.make_tensor_value_info("y", 1, ["n", 5, 9])],
        [numpy_helper.from_array(_random((7, 9)), "w"), numpy_helper.from_array(_random((9,)), "b")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    plan = compile(made, shapes={"x": ((1, 1, 4), 5, 7)}, verify=False, fallback="error")
    x = _random((3, 5, 7))
    np.testing.assert_allclose(
        plan.run({"x": x})["y"], ReferenceEvaluator(made).run(None, {"x": x})[0], rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64"])
@pytest.mark.parametrize("known", [True, False])
def test_instance_and_group_norms(dtype: str, known: bool) -> None:
    x = _random((2, 6, 3, 4, 5), dtype)
    gamma, beta = _random((6,), dtype, 1), _random((6,), dtype, 2)
    vectors = {"g": gamma, "b": beta}
    inputs = {"x": x} if known else {"x": x, **vectors}
    relative = {"float32": 2e-6, "float64": 1e-6, "float16": 3e-3}[dtype]  # the reference rounds epsilon to float32
    for op, attributes in (
        ("InstanceNormalization", {"epsilon": 0.125}),
        ("GroupNormalization", {"num_groups": 3, "epsilon": 0.125}),
    ):
        made = model([(op, ["x", "g", "b"], ["y"], attributes)], inputs, vectors if known else {}, ["y"])
        agree(made, inputs, relative)


def test_a_norm_pends_through_an_activation_into_a_pool() -> None:
    x = {"x": _random((1, 4, 6, 8, 10))}
    constants = {
        "w": _random((18, 4, 3, 3, 3), seed=1),
        "g": _random((18,), seed=2),
        "b": _random((18,), seed=3),
    }
    for op in ("MaxPool", "AveragePool", "GlobalAveragePool"):
        window = {} if op.startswith("Global") else {"kernel_shape": [2, 2, 2], "strides": [2, 2, 2]}
        nodes: list[Node] = [
            ("Conv", ["x", "w"], ["c"], {"pads": [1] * 6}),
            ("InstanceNormalization", ["c", "g", "b"], ["n"], {}),
            ("LeakyRelu", ["n"], ["a"], {"alpha": 0.01}),
            (op, ["a"], ["y"], window),
        ]
        plan = agree(model(nodes, x, constants, ["y"]), x)
        listed = [line for line in steps_of(plan) if "materialise" in line]
        assert not listed, steps_of(plan)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("known", [True, False])
def test_batch_norm(dtype: str, known: bool) -> None:
    if dtype == "float16" and not known:
        pytest.skip("the fold of unknown vectors is float32 or float64")
    x = _random((2, 3, 4, 5), dtype)
    vectors = {k: np.abs(_random((3,), dtype, i)) for i, k in enumerate("gbmv")}
    inputs = {"x": x} if known else {"x": x, **vectors}
    made = model([("BatchNormalization", ["x", *"gbmv"], ["y"], {})], inputs, vectors if known else {}, ["y"])
    agree(made, inputs, {"float32": 2e-6, "float64": 1e-6, "float16": 3e-3}[dtype])


def test_norms_over_axes() -> None:
    x = {"x": _random((2, 6, 5, 4))}
    constants = {"g": _random((5, 4), seed=1), "b": _random((4,), seed=2)}
    rows: list[tuple[Node, list[str]]] = [
        (("LayerNormalization", ["x", "g", "b"], ["y", "m", "i"], {"axis": 2}), ["y", "m", "i"]),
        (("LayerNormalization", ["x", "g"], ["y", "", "i"], {"axis": -2}), ["y", "i"]),
        (("LpNormalization", ["x"], ["y"], {"axis": 1, "p": 2}), ["y"]),
        (("MeanVarianceNormalization", ["x"], ["y"], {}), ["y"]),
    ]
    for node, outputs in rows:
        agree(model([node], x, constants, outputs, opset=17), x, 3e-6)


def test_pools_of_linear_values() -> None:
    x = {"x": _random((2, 3, 9, 10))}
    for op, attributes in (
        ("MaxPool", {"kernel_shape": [3, 2], "strides": [2, 3], "pads": [1, 0, 1, 1], "ceil_mode": 1}),
        ("MaxPool", {"kernel_shape": [3, 2], "auto_pad": "SAME_UPPER", "strides": [2, 2]}),
        ("AveragePool", {"kernel_shape": [3, 2], "pads": [1, 0, 1, 1], "count_include_pad": 1}),
        ("AveragePool", {"kernel_shape": [2, 2], "dilations": [2, 3]}),
        ("LpPool", {"kernel_shape": [2, 2], "p": 3}),
    ):
        agree(model([(op, ["x"], ["y"], attributes)], x, {}, ["y"]), x)
    for op in ("GlobalMaxPool", "GlobalAveragePool"):
        agree(model([(op, ["x"], ["y"], {})], x, {}, ["y"]), x)


def test_the_places_of_maxima() -> None:
    x = {"x": _random((2, 3, 7, 8))}
    attributes = {"kernel_shape": [3, 2], "strides": [2, 2], "storage_order": 1}
    agree(model([("MaxPool", ["x"], ["y", "i"], attributes)], x, {}, ["y", "i"]), x, 0.0)


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("ij,jk->ik", [(3, 4), (4, 5)]),
        ("bij , bjk", [(2, 3, 4), (2, 4, 5)]),
        ("...ij,...jk->...ik", [(2, 1, 3, 4), (1, 6, 4, 5)]),
        ("ii->i", [(4, 4)]),
        ("iij->j", [(4, 4, 3)]),
        ("ij->", [(3, 4)]),
        ("ij", [(3, 4)]),
        ("ba", [(3, 4)]),
        ("i,j->ji", [(3,), (4,)]),
        ("i,i", [(3,), (3,)]),
        ("bhid,bhjd->bhij", [(2, 3, 4, 5), (2, 3, 6, 5)]),
        ("abc,cd,def->feb", [(2, 3, 4), (4, 5), (5, 6, 7)]),
        ("ij,kl->il", [(3, 4), (5, 6)]),
    ],
)
def test_einsum(equation: str, shapes: list[tuple[int, ...]]) -> None:
    inputs = {f"x{i}": _random(shape, seed=i) for i, shape in enumerate(shapes)}
    made = model([("Einsum", list(inputs), ["y"], {"equation": equation})], inputs, {}, ["y"])
    found = compile(made, verify=False, fallback="error").run(inputs)["y"]
    expected = np.einsum(equation.replace(" ", ""), *(v.astype("f8") for v in inputs.values()))
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_quantisation_by_axis_and_block() -> None:
    x = {"x": _random((4, 6, 8))}
    scale, zero = np.abs(_random((6,), seed=1)) + np.float32(0.1), np.arange(6, dtype=np.int8)
    blocks = np.abs(_random((4, 6, 2), seed=2)) + np.float32(0.1)
    nodes: list[Node] = [
        ("QuantizeLinear", ["x", "s", "z"], ["q"], {"axis": 1}),
        ("DequantizeLinear", ["q", "s", "z"], ["y"], {"axis": 1}),
        ("QuantizeLinear", ["x", "t"], ["r"], {"axis": 2, "block_size": 4, "output_dtype": onnx.TensorProto.INT8}),
    ]
    made = model(nodes, x, {"s": scale, "z": zero, "t": blocks}, ["q", "y", "r"])
    found = compile(made, verify=False, fallback="error").run(x)
    q = np.clip(np.rint(x["x"] / scale[:, None]) + zero[:, None], -128, 127)
    assert np.array_equal(found["q"], q)
    np.testing.assert_allclose(found["y"], (q - zero[:, None]) * scale[:, None], rtol=1e-6)
    assert np.array_equal(found["r"], np.clip(np.rint(x["x"] / np.repeat(blocks, 4, axis=2)), -128, 127))
