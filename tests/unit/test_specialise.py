import numpy as np
import onnx
import onnx_ir as ir
import pytest

from tests.unit.graphs import model_of, ops, same_answers
from voxelrt.errors import ModelError, UsageError
from voxelrt.graph.edit import static_shape
from voxelrt.graph.spec import verify
from voxelrt.graph.specialise import specialise

# What exporters make of x.reshape(x.size(0), -1) and of interpolation to the size of another tensor.
BODY = """(float[batch,C,D] x, float[batch,C,D] z) => (float[batch,features] y) {
    s = Shape(x)
    n = Gather <axis = 0> (s, zero)
    n1 = Unsqueeze(n, axes)
    t = Concat <axis = 0> (n1, rest)
    a = Dropout(x)
    b = Add(a, z)
    y = Reshape(b, t)
}"""
CONSTANTS = {"zero": np.array(0), "axes": np.array([0]), "rest": np.array([-1])}


def _model() -> ir.Model:
    return model_of(BODY, **CONSTANTS)


def test_every_value_gets_a_static_shape_and_the_model_is_left_alone() -> None:
    model = _model()
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    made = specialise(model, {"x": (2, 3, 4)})
    assert ops(made) == ["Add", "Reshape"]
    assert all(static_shape(v) is not None and v.dtype is not None for node in made.graph for v in node.outputs)
    assert static_shape(made.graph.outputs[0]) == (2, 12)
    assert static_shape(made.graph.inputs[1]) == (2, 3, 4)  # by the names of its dimensions
    verify(made)
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before
    rng = np.random.default_rng(0)
    same_answers(model, made, {n: rng.standard_normal((2, 3, 4)).astype(np.float32) for n in "xz"})


def test_weights_are_shared_between_copies() -> None:
    model = model_of("(float[N] x) => (y) { y = Add(x, w) }", w=np.float32([1]))
    tensors = {id(specialise(model, {"x": (n,)}).graph.initializers["w"].const_value) for n in (1, 2)}
    assert tensors == {id(model.graph.initializers["w"].const_value)}


def test_shapes_that_the_file_claims_for_inner_values_are_not_believed() -> None:
    proto = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 18]> '
        "g (float[N,2] x) => (float[1,2] y) <float[1,2] a> { a = Neg(x) y = Abs(a) }"
    )
    made = specialise(ir.from_proto(proto), {"x": (3, 2)})
    assert static_shape(made.graph.outputs[0]) == (3, 2)


def test_constants_replace_inputs() -> None:
    model = model_of("(float[2,3] x, int64[2] shape) => (y) { y = Reshape(x, shape) }")
    made = specialise(model, {}, {"shape": np.array([3, -1])})
    assert [v.name for v in made.graph.inputs] == ["x"]
    assert static_shape(made.graph.outputs[0]) == (3, 2)


def test_inputs_with_a_default_are_constants_unless_a_shape_is_given() -> None:
    model = model_of("(float[2] x, float[2] w) => (y) { y = Add(x, w) }", w=np.float32([1, 2]))
    assert [v.name for v in specialise(model, {}).graph.inputs] == ["x"]
    assert [v.name for v in specialise(model, {"w": (2,)}).graph.inputs] == ["x", "w"]


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({}, r"'x' is \(batch, C, D\), open are axis 0 \('batch'\), axis 1 \('C'\).*; 'z' is"),
        ({"x": (2, 3)}, "'x' has 3 axes"),
        ({"x": (2, 3, 4), "z": (1, 3, 4)}, "'batch' is 2 in 'x' and 1 in 'z'"),
        ({"w": (1,)}, "shapes names w; the inputs of the model are x, z"),
        ({"x": (2, -3, 4)}, "negative dimension"),
    ],
)
def test_shapes_that_cannot_be_met_are_named(shapes: dict[str, tuple[int, ...]], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        specialise(_model(), shapes)


def test_a_fixed_dimension_cannot_be_changed() -> None:
    with pytest.raises(UsageError, match=r"'x' is \(1, N\): its axis 0 cannot be 2"):
        specialise(model_of("(float[1,N] x) => (y) { y = Neg(x) }"), {"x": (2, 2)})


def test_constants_of_another_dtype_or_name_are_refused() -> None:
    model = model_of("(float[2,3] x, int64[2] shape) => (y) { y = Reshape(x, shape) }")
    with pytest.raises(UsageError, match="is int32; the model takes INT64"):
        specialise(model, {}, {"shape": np.array([3, 2], np.int32)})
    with pytest.raises(UsageError, match="constants names other"):
        specialise(model, {}, {"other": np.array([3])})


def test_a_network_that_does_not_work_at_a_shape_says_where() -> None:
    pool = "MaxPool <kernel_shape = [2], strides = [2]> (x)"
    body = f"(float[1,1,N] x) => (y) {{ a = {pool} b = Concat <axis = 0> (a, a) y = Add(b, x) }}"
    with pytest.raises(ModelError, match=r"do not fit together.*Add"):
        specialise(model_of(body), {"x": (1, 1, 5)})


def test_shapes_that_depend_on_data_stay_open() -> None:
    made = specialise(model_of("(float[4] x) => (y) { y = NonZero(x) }"), {})
    assert static_shape(made.graph.outputs[0]) is None


def test_zero_sized_shapes_are_shapes() -> None:
    made = specialise(model_of("(float[N,3] x) => (y) { y = Transpose(x) }"), {"x": (0, 3)})
    assert static_shape(made.graph.outputs[0]) == (3, 0)
