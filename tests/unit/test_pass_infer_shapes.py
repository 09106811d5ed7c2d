import numpy as np
import pytest

from tests.unit.graphs import model_of
from voxelrt.errors import ModelError
from voxelrt.graph.edit import static_shape
from voxelrt.graph.passes import infer_shapes


def test_shapes_and_dtypes_follow_the_inputs() -> None:
    model = model_of("(float[2,3] x) => (y) { a = Transpose(x) y = Cast <to = 7> (a) }")
    infer_shapes.run(model)
    a, y = (node.outputs[0] for node in model.graph)
    assert static_shape(a) == static_shape(y) == (3, 2)
    assert str(y.dtype) == "INT64"


def test_shapes_that_are_computed_are_propagated_as_data() -> None:
    model = model_of(
        "(float[2,3,4] x) => (y) { s = Shape(x) t = Gather(s, i) y = Expand(w, t) }",
        i=np.array([2, 0]),
        w=np.zeros((1, 1), np.float32),
    )
    infer_shapes.run(model)
    assert static_shape(model.graph.outputs[0]) == (4, 2)


def test_functions_without_a_rule_have_the_shape_of_their_input() -> None:
    model = model_of(
        "(float[1,4,5] x, float[4] s, float[4] b) => (y) { y = GroupNormalization <num_groups = 2> (x, s, b) }",
        opset=21,
    )
    infer_shapes.run(model)
    assert static_shape(model.graph.outputs[0]) == (1, 4, 5)


def test_shapes_that_do_not_fit_are_told() -> None:
    model = model_of("(float[2,3] x, float[4,5] z) => (y) { y = MatMul(x, z) }")
    infer_shapes.run(model)
    with pytest.raises(ModelError, match=r"do not fit together.*MatMul"):
        infer_shapes.check(model)
