"""Small graphs for tests of passes: written as ONNX text, run in the reference evaluator, compared before and after."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

Array = NDArray[Any]


def model_of(body: str, *, opset: int = 18, **initializers: Array) -> ir.Model:
    """A model of an ONNX text ``(inputs) => (outputs) { nodes }``; arrays become initializers."""
    proto = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : {opset}]> g {body}')
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(a, name) for name, a in initializers.items())
    return ir.from_proto(proto)


def run_model(model: ir.Model, inputs: dict[str, Array]) -> dict[str, Array]:
    """The outputs by name in the ONNX reference evaluator."""
    names = [str(v.name) for v in model.graph.outputs]
    wanted = {str(v.name) for v in model.graph.inputs}
    results = ReferenceEvaluator(ir.to_proto(model)).run(None, {n: a for n, a in inputs.items() if n in wanted})
    return dict(zip(names, results, strict=True))


def ops(model: ir.Model) -> list[str]:
    """The operators of the main graph in order."""
    return [node.op_type for node in model.graph]


def same_answers(before: ir.Model, after: ir.Model, inputs: dict[str, Array], tolerance: float = 0.0) -> None:
    """Assert that two models give the same outputs, of the same names, to ‖e‖/‖ref‖ ≤ tolerance."""
    expected, answer = run_model(before, inputs), run_model(after, inputs)
    assert list(answer) == list(expected)
    for name, reference in expected.items():
        assert answer[name].dtype == reference.dtype
        assert answer[name].shape == reference.shape
        if tolerance == 0:
            np.testing.assert_array_equal(answer[name], reference)
        else:
            error = np.linalg.norm((answer[name] - reference).astype(np.float64))
            assert error <= tolerance * np.linalg.norm(reference.astype(np.float64))
