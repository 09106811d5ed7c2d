import numpy as np
import onnx_ir as ir
import pytest

from tests.unit.graphs import model_of, ops, same_answers
from voxelrt.graph.passes import infer_shapes, remove_identities

X = np.random.default_rng(0).standard_normal((2, 3, 4)).astype(np.float32)
CONSTANTS = {
    "same": np.array([2, 3, 4]),
    "zeros": np.zeros(6, np.int64),
    "ones": np.ones(3, np.int64),
    "start": np.array([0]),
    "end": np.array([9]),
    "axis": np.array([1]),
    "backwards": np.array([-1]),
    "half": np.float32(0.5),
    "off": np.array(False),
    "on": np.array(True),
}
NEUTRAL = [
    "Identity(a)",
    "Dropout(a)",
    "Dropout(a, half, off)",
    "Cast <to = 1> (a)",
    "CastLike(a, x)",
    "Transpose <perm = [0, 1, 2]> (a)",
    "Reshape(a, same)",
    "Expand(a, ones)",
    "Tile(a, ones)",
    "Slice(a, start, end, axis)",
    "Pad(a, zeros)",
    "Concat <axis = 1> (a)",
    "Sum(a)",
    "Max(a)",
]
NOT_NEUTRAL = [
    "Cast <to = 11> (a)",
    "Transpose(a)",
    "Slice(a, backwards, nothing, axis, backwards)",
    "Dropout(a, half, on)",
    "Concat <axis = 1> (a, a)",
]


def _model(node: str) -> ir.Model:
    body = f"(float[2,3,4] x) => (y) {{ a = Neg(x) b = {node} y = Abs(b) }}"
    used = {n: v for n, v in {**CONSTANTS, "nothing": np.array([-9])}.items() if n in node}
    return infer_shapes.run(model_of(body, **used))


@pytest.mark.parametrize("node", NEUTRAL)
def test_neutral_nodes_go(node: str) -> None:
    after = remove_identities.run(_model(node))
    assert ops(after) == ["Neg", "Abs"]
    same_answers(_model(node), after, {"x": X})


@pytest.mark.parametrize("node", NOT_NEUTRAL)
def test_others_stay(node: str) -> None:
    assert len(ops(remove_identities.run(_model(node)))) == 3


def test_an_output_keeps_its_name() -> None:
    def make() -> ir.Model:
        return model_of("(float[2,3,4] x) => (float[2,3,4] y) { a = Neg(x) y = Identity(a) }")

    after = remove_identities.run(make())
    assert ops(after) == ["Neg"]
    same_answers(make(), after, {"x": X})


def test_between_an_input_and_an_output_a_node_stays() -> None:
    after = remove_identities.run(
        model_of("(float[2] x) => (float[2] y, float[2] z) { y = Dropout(x) z = Identity(y) }")
    )
    assert ops(after) == ["Identity", "Identity"]
    assert [v.name for v in after.graph.outputs] == ["y", "z"]


def test_the_mask_of_a_dropout_is_a_constant() -> None:
    body = "(float[2] x) => (float[2] y, bool[2] m) { a = Neg(x) b, m = Dropout(a) y = Abs(b) }"
    after = remove_identities.run(infer_shapes.run(model_of(body)))
    assert ops(after) == ["Neg", "Abs"]
    assert after.graph.initializers["m"].const_value.numpy().all()
