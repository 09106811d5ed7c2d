"""The norms of the executor that plans are measured against."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from voxelrt.plan.reference_norms import spell_norms

ort = pytest.importorskip("onnxruntime", reason="the spelled norm is run by ONNX Runtime, which is not installed")


@pytest.mark.parametrize("opset", [17, 18])
def test_a_large_norm_is_good_to_rounding_though_its_mean_is_large(opset: int) -> None:
    shape = (1, 2, 60, 61, 62)
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : {opset}]> g'
        f" (float[{','.join(map(str, shape))}] x, float[2] g, float[2] b)"
        " => (float[N, C, Z, Y, X] y) { y = InstanceNormalization<epsilon: float = 1e-5>(x, g, b) }"
    )
    rng = np.random.default_rng(0)
    x = (10 + rng.standard_normal(shape)).astype(np.float32)
    g, b = np.array([2, 0.5], np.float32), np.array([1, -1], np.float32)
    spell_norms(model, {"x": shape})
    assert "InstanceNormalization" not in {node.op_type for node in model.graph.node}
    session = ort.InferenceSession(model.SerializeToString())
    (answer,) = session.run(None, {"x": x, "g": g, "b": b})
    wide = x.astype(np.float64)
    mean, variance = wide.mean((2, 3, 4), keepdims=True), wide.var((2, 3, 4), keepdims=True)
    expected = (wide - mean) / np.sqrt(variance + 1e-5) * g[:, None, None, None] + b[:, None, None, None]
    assert np.linalg.norm(answer - expected) / np.linalg.norm(expected) < 3e-6


def test_a_small_norm_stays_as_it_is() -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 18]> g (float[1,2,8,8,8] x, float[2] g, float[2] b)'
        " => (float[1,2,8,8,8] y) { y = InstanceNormalization(x, g, b) }"
    )
    spell_norms(model, {"x": (1, 2, 8, 8, 8)})
    assert [node.op_type for node in model.graph.node] == ["InstanceNormalization"]
