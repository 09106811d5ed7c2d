import numpy as np
import onnx_ir as ir
import pytest

from tests.unit.graphs import model_of, ops, run_model, same_answers
from voxelrt.graph.edit import constant_of
from voxelrt.graph.passes import fold_constants, infer_shapes


def _fold(model: ir.Model) -> ir.Model:
    return fold_constants.run(infer_shapes.run(model))


def test_a_chain_of_constants_becomes_one() -> None:
    def make() -> ir.Model:
        constant = "Constant <value_floats = [1.0, 2.0]> ()"
        body = f"(float[2] x) => (float[2] y) {{ k = {constant} a = Add(k, w) b = Exp(a) y = Mul(x, b) }}"
        return model_of(body, w=np.float32([0.5, 0.25]))

    after = _fold(make())
    assert ops(after) == ["Mul"]
    assert after.graph.initializers["b"].const_value is not None
    same_answers(make(), after, {"x": np.float32([3, 4])}, 1e-7)


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        ("Shape(x)", [2, 3, 5]),
        ("Shape <start = 1> (x)", [3, 5]),
        ("Shape <end = -1> (x)", [2, 3]),
        ("Shape <start = -9, end = 9> (x)", [2, 3, 5]),
        ("Size(x)", 30),
    ],
)
def test_shapes_that_are_known_are_constants(node: str, expected: object) -> None:
    after = _fold(model_of(f"(float[2,3,5] x) => (s) {{ s = {node} }}"))
    assert not ops(after)
    array = constant_of(after.graph.outputs[0])
    assert array is not None
    assert array.dtype == np.int64
    np.testing.assert_array_equal(array, expected)


def test_shapes_that_are_open_are_not() -> None:
    assert ops(_fold(model_of("(float[N,3] x) => (s) { s = Shape(x) }"))) == ["Shape"]


def test_what_is_random_or_too_large_stays() -> None:
    random = model_of("(float[2] x) => (y) { r = RandomNormal <shape = [2]> () y = Add(x, r) }")
    assert ops(_fold(random)) == ["RandomNormal", "Add"]
    large = model_of("(float[1] x) => (y) { z = ConstantOfShape(s) y = Add(x, z) }", s=np.array([1 << 15, 1 << 15]))
    assert ops(_fold(large)) == ["ConstantOfShape", "Add"]


def test_what_the_evaluator_cannot_do_stays() -> None:
    assert ops(
        _fold(
            model_of(
                "(float[2] x) => (y) { a = Reshape(w, s) y = Add(x, a) }", w=np.float32([1, 2, 3]), s=np.array([2, 2])
            )
        )
    ) == ["Reshape", "Add"]


def test_one_element_vectors_are_scalars_to_range() -> None:
    after = _fold(model_of("() => (y) { y = Range(a, b, c) }", a=np.array([1]), b=np.array([9]), c=np.array([3])))
    np.testing.assert_array_equal(constant_of(after.graph.outputs[0]), [1, 4, 7])


def test_weights_are_shared_not_copied() -> None:
    model = model_of("(float[2] x) => (y) { y = Add(x, w) }", w=np.float32([1, 2]))
    copy = model.clone()
    _fold(copy)
    assert copy.graph.initializers["w"].const_value is model.graph.initializers["w"].const_value


def test_an_output_that_is_constant_keeps_its_name() -> None:
    after = _fold(model_of("(float[2] x) => (y, z) { y = Neg(x) z = Neg(w) }", w=np.float32([1, 2])))
    assert [v.name for v in after.graph.outputs] == ["y", "z"]
    np.testing.assert_array_equal(run_model(after, {"x": np.float32([1, 1])})["z"], [-1, -2])
