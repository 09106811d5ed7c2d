from tests.unit.graphs import model_of
from voxelrt.graph.passes import name_nodes


def test_nodes_get_names_of_their_own() -> None:
    model = model_of(
        "(float[2] x) => (float[2] y) { a = Relu(x) b = Relu(a) c = Neg(b) [Relu_0] d = Abs(c) [Relu_0] y = Exp(d) }"
    )
    names = [node.name for node in name_nodes.run(model).graph]
    assert names == ["Relu_1", "Relu_2", "Neg_0", "Relu_0", "Relu_0_2"]


def test_names_reach_into_branches() -> None:
    model = model_of(
        """(bool c, float[2] x) => (float[2] y) {
            y = If (c) <then_branch = t () => (float[2] a) { a = Relu(x) },
                        else_branch = e () => (float[2] b) { b = Relu(x) }>
        }"""
    )
    names = [node.name for node in name_nodes.run(model).graph.all_nodes()]
    assert sorted(map(str, names)) == ["If_0", "Relu_0", "Relu_1"]
