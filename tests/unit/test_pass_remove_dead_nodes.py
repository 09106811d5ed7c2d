import numpy as np

from tests.unit.graphs import model_of, ops, same_answers
from voxelrt.graph.passes import remove_dead_nodes

X = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)


def test_what_no_output_needs_goes_and_inputs_stay() -> None:
    def make() -> object:
        return model_of(
            "(float[1,1,4,4] x, float[1] unused) => (float[1,1,4,4] y) { a = Neg(x) b = Exp(a) y = Mul(x, w) }",
            w=np.float32([2]),
            v=np.float32([3]),
        )

    before, after = make(), remove_dead_nodes.run(make())
    assert ops(after) == ["Mul"]
    assert list(after.graph.initializers) == ["w"]
    assert [v.name for v in after.graph.inputs] == ["x", "unused"]
    same_answers(before, after, {"x": X, "unused": np.float32([1])})


def test_unused_optional_outputs_are_dropped_but_not_those_that_count() -> None:
    pool = "(float[1,1,4,4] x) => (y) { y, indices = MaxPool <kernel_shape = [2, 2]> (x) }"
    assert len(remove_dead_nodes.run(model_of(pool)).graph.node(0).outputs) == 1
    split = "(float[4] x) => (float[2] y) { y, rest = Split <num_outputs = 2> (x) }"
    assert len(remove_dead_nodes.run(model_of(split)).graph.node(0).outputs) == 2


def test_what_only_a_branch_reads_stays() -> None:
    model = model_of(
        """(bool c, float[2] x) => (float[2] y) {
            a = Neg(x)
            y = If (c) <then_branch = t () => (float[2] p) { p = Mul(a, w) },
                        else_branch = e () => (float[2] q) { q = Abs(x) }>
        }""",
        w=np.float32([1, 2]),
    )
    after = remove_dead_nodes.run(model)
    assert ops(after) == ["Neg", "If"]
    assert list(after.graph.initializers) == ["w"]
