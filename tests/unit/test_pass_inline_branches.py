import numpy as np
import onnx_ir as ir
import pytest

from tests.unit.graphs import model_of, ops, same_answers
from voxelrt.graph.passes import inline_branches, name_nodes
from voxelrt.graph.spec import verify

BODY = """(float[2] x) => (float[2] y, float[2] z) {
    a = Neg(x)
    y, z = If (c) <
        then_branch = t () => (float[2] p, float[2] q) {
            k = Constant <value_floats = [1.0, 2.0]> () p = Add(a, k) q = Mul(p, w)
        },
        else_branch = e () => (float[2] p, float[2] q) { p = Sub(a, x) q = Identity(p) }
    >
}"""


def _model(condition: bool) -> ir.Model:
    return model_of(BODY, c=np.array(condition), w=np.float32([3, 4]))


@pytest.mark.parametrize(
    ("condition", "expected"), [(True, ["Neg", "Constant", "Add", "Mul"]), (False, ["Neg", "Sub", "Identity"])]
)
def test_the_branch_taken_moves_into_the_graph(condition: bool, expected: list[str]) -> None:
    after = name_nodes.run(inline_branches.run(_model(condition)))
    assert ops(after) == expected
    verify(after)
    same_answers(_model(condition), after, {"x": np.float32([5, 7])})


def test_an_if_whose_condition_is_not_known_stays() -> None:
    model = model_of(BODY.replace("(float[2] x)", "(bool c, float[2] x)", 1), w=np.float32([3, 4]))
    assert ops(inline_branches.run(model)) == ["Neg", "If"]


def test_nested_branches_and_names_that_clash() -> None:
    body = """(float[2] x) => (float[2] y) {
        p = Neg(x)
        o = If (c) <
            then_branch = t () => (float[2] r) {
                r = If (c) <then_branch = tt () => (float[2] s) { s = Exp(p) },
                            else_branch = te () => (float[2] s) { s = Abs(p) }>
            },
            else_branch = e () => (float[2] r) { r = Abs(x) }
        >
        s = Add(o, p)
        y = Mul(s, s)
    }"""
    before = model_of(body, c=np.array(True))
    after = name_nodes.run(inline_branches.run(model_of(body, c=np.array(True))))
    assert ops(after) == ["Neg", "Exp", "Add", "Mul"]
    verify(after)
    same_answers(before, after, {"x": np.float32([0.5, -1])})


def test_one_result_that_is_two_outputs() -> None:
    body = """(float[2] x) => (float[2] y, float[2] z) {
        y, z = If (c) <then_branch = t () => (float[2] p, float[2] p) { p = Neg(x) },
                       else_branch = e () => (float[2] p, float[2] q) { p = Abs(x) q = Exp(x) }>
    }"""
    after = name_nodes.run(inline_branches.run(model_of(body, c=np.array(True))))
    assert ops(after) == ["Neg", "Identity"]
    assert [v.name for v in after.graph.outputs] == ["y", "z"]
