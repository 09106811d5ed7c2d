"""The importer of frozen TensorFlow graphs against what TensorFlow itself answered (``make_tensorflow_ops.py``)."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator

from tests.models.tensorflow_cases import cases
from voxelrt.errors import UnsupportedError, UsageError
from voxelrt.models.formats.tensorflow import import_graph


def by_reference(model: ir.Model, value: Any) -> Any:
    return ReferenceEvaluator(ir.to_proto(model)).run(None, {"x": value})[0]


def by_onnxruntime(model: ir.Model, value: Any) -> Any:
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    session = runtime.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": value})[0]


def check_close(got: Any, wanted: Any) -> None:
    assert got.shape == wanted.shape
    error = np.abs(got.astype(np.float64) - wanted)
    worst = np.unravel_index(error.argmax(), error.shape)
    assert error.max() <= 2e-5 * max(1.0, np.abs(wanted).max()), f"{error.max():.2e} at {worst}"


# onnx.reference 1.23 drops the padding of a MaxPool with three spatial axes; ONNX Runtime covers these.
NOT_IN_REFERENCE = {"pool3d_MAX_SAME_k2_s1", "pool3d_MAX_SAME_k3_s1", "channels_first"}


@pytest.mark.parametrize("name", sorted(cases()))
@pytest.mark.parametrize("run", [by_onnxruntime, by_reference])
def test_op_answers_as_tensorflow(name: str, run: Any) -> None:
    if run is by_reference and name in NOT_IN_REFERENCE:
        pytest.skip("onnx.reference gives a padded 3-D MaxPool the wrong shape")
    case = cases()[name]
    model = import_graph(case["graph"].tobytes(), outputs=["y"])
    check_close(run(model, case["in|x"]), case["out|y"])


@pytest.mark.parametrize("name", sorted(cases()))
def test_the_result_is_the_default_output(name: str) -> None:
    model = import_graph(cases()[name]["graph"].tobytes())
    assert [v.name for v in model.graph.inputs] == ["x"]
    assert [v.name for v in model.graph.outputs] == ["y"]


def test_no_transpose_between_channels_last_ops() -> None:
    model = import_graph(cases()["deconv3d_by_shape"]["graph"].tobytes())
    kinds = [node.op_type for node in model.graph]
    assert kinds == ["Transpose", "ConvTranspose", "Transpose"]


def test_a_bias_joins_its_convolution_unless_that_is_read_twice() -> None:
    alone = import_graph(cases()["bias"]["graph"].tobytes())
    twice = import_graph(cases()["bias_on_a_value_read_twice"]["graph"].tobytes())
    assert [len(n.inputs) for n in alone.graph if n.op_type == "Conv"] == [3]
    assert [len(n.inputs) for n in twice.graph if n.op_type == "Conv"] == [2]


def test_dropout_is_folded_away_and_the_model_says_so() -> None:
    data = cases()["dropout"]["graph"].tobytes()
    model = import_graph(data)
    assert "training was folded to False" in model.metadata_props["voxelrt.notes"]
    assert [n.op_type for n in model.graph] == ["Add"]
    told = import_graph(data, constants={"training": False})
    assert "voxelrt.notes" not in told.metadata_props
    with pytest.raises(UnsupportedError, match="RandomUniform"):
        import_graph(data, constants={"training": True})


def test_an_input_may_be_any_node_and_takes_a_shape() -> None:
    data = cases()["flatten_dense"]["graph"].tobytes()
    model = import_graph(data, inputs={"x": (2, None, None, None)})
    assert model.graph.inputs[0].shape == (2, 4, 5, 3)
    with pytest.raises(UsageError, match="has the shape"):
        import_graph(data, inputs={"x": (2, 4, 5, 9)})
    with pytest.raises(UsageError, match="near it"):
        import_graph(data, outputs=["yy"])
    with pytest.raises(UsageError, match="not of the placeholder's type"):
        import_graph(data, constants={"x": "abc"})


def test_the_same_file_gives_the_same_model() -> None:
    data = cases()["reshape_by_shape"]["graph"].tobytes()
    first, second = (ir.to_proto(import_graph(data)).SerializeToString(deterministic=True) for _ in range(2))
    assert first == second
