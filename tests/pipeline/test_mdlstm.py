"""MDLSTM of our own domain in plans: native, within tolerance of the float64 oracle, and refused where it cannot be."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

import voxelrt as vx
from voxelrt.errors import ModelError, UnsupportedError
from voxelrt.kernels import mdlstm
from voxelrt.kernels.common.kernel import compare
from voxelrt.kernels.mdlstm.oracle import mdlstm as oracle

Array = NDArray[Any]


def _weights(axes: int, inputs: int, hidden: int, seed: int = 0) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    rows = (2**axes, (axes + 3) * hidden)
    shapes = {"w": (*rows, inputs), "r": (*rows, axes * hidden), "b": rows}
    return {name: rng.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}


def _model(x: tuple[int, ...], weights: dict[str, Array], behind: bool = False) -> ir.Model:
    """One layer; ``behind``: its directions are joined, as networks do."""
    made = onnx.helper.make_node("MDLSTM", ["x", *weights], ["y"], "layer", domain="voxelrt")
    nodes, initializers = [made], [onnx.numpy_helper.from_array(a, n) for n, a in weights.items()]
    if behind:
        axes = len(x) - 2
        hidden = weights["r"].shape[2] // axes
        joined = np.array([*x[:-1], 2**axes * hidden])
        initializers.append(onnx.numpy_helper.from_array(joined, "shape"))
        order = [*range(axes), axes + 1, axes, axes + 2]
        nodes.append(onnx.helper.make_node("Transpose", ["y"], ["turned"], "turn", perm=order))
        nodes.append(onnx.helper.make_node("Reshape", ["turned", "shape"], ["joined"], "join"))
    graph = onnx.helper.make_graph(
        nodes,
        "one",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, x)],
        [onnx.helper.make_tensor_value_info("joined" if behind else "y", onnx.TensorProto.FLOAT, None)],
        initializers,
    )
    opsets = [onnx.helper.make_opsetid("", 20), onnx.helper.make_opsetid("voxelrt", 1)]
    return ir.from_proto(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("x", [(7, 3, 5), (5, 6, 2, 3), (1, 1, 1, 4), (3, 4, 2, 2, 3)])
def test_a_layer_in_a_plan(x: tuple[int, ...], bias: bool) -> None:
    weights = _weights(len(x) - 2, x[-1], 19)
    if not bias:
        del weights["b"]
    plan = vx.compile(_model(x, weights), fallback="error", tune="off")
    given = np.random.default_rng(1).standard_normal(x, np.float32)
    found = plan.run({"x": given})["y"]
    np.testing.assert_array_equal(found, mdlstm(given, **weights))
    assert compare(found, oracle(given, **weights)).relative <= 2e-6


def test_joining_the_directions_costs_no_copy() -> None:
    x, weights = (5, 6, 2, 3), _weights(2, 3, 19)
    plan = vx.compile(_model(x, weights, behind=True), fallback="error", tune="off")
    given = np.random.default_rng(1).standard_normal(x, np.float32)
    expected = np.moveaxis(mdlstm(given, **weights), 2, 3).reshape(5, 6, 2, 4 * 19)
    np.testing.assert_array_equal(plan.run({"x": given})["joined"], expected)


def test_parity_is_measured_against_the_oracle() -> None:
    plan = vx.compile(_model((5, 6, 2, 3), _weights(2, 3, 19), behind=True), fallback="error", tune="off", verify=True)
    line = next(line for line in plan.parity if line.name == "plan")
    assert line.against == "float64 oracles"
    assert line.relative is not None
    assert 0 < line.relative <= 2e-6


def test_refused() -> None:
    weights = _weights(2, 3, 5)
    with pytest.raises(ModelError, match="one to three axes"):
        vx.compile(_model((2, 3), weights), fallback="error")
    with pytest.raises(ModelError, match=r"W for a grid of 2 axes is \(4, 25, 4\), not \(4, 25, 3\)"):
        vx.compile(_model((4, 4, 1, 4), weights), fallback="error")
    with pytest.raises(ModelError, match="B for a grid"):
        vx.compile(_model((4, 4, 1, 3), {**weights, "b": weights["b"][:, :5]}), fallback="error")
    with pytest.raises(ModelError, match="R for a grid"):
        vx.compile(_model((4, 4, 1, 3), {**weights, "r": weights["r"][0]}), fallback="error")
    with pytest.raises(UnsupportedError, match="MDLSTM"):
        vx.compile(_model((4, 4, 1, 3), {n: a.astype(np.float64) for n, a in weights.items()}), fallback="error")
