"""A float32 graph in a lower type: another executor gives the source's answer within the type's tolerance."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

from tests.unit.graphs import model_of
from voxelrt.errors import UnsupportedError
from voxelrt.graph.passes import infer_shapes, lower_precision
from voxelrt.graph.specialise import specialise
from voxelrt.models.architectures.named import ARCHITECTURES
from voxelrt.models.architectures.unet3d import FEATURES_SMALL, build_unet3d

SMALL: dict[str, dict[str, Any]] = {
    "mlp": {},
    "autoencoder": {},
    "dncnn3d": {},
    "registration": {},
    "window_attention": {},
    "resnet": {},
}


def _bytes(model: ir.Model) -> bytes:
    return bytes(ir.serde.serialize_model(model).SerializeToString())


def _answer(data: bytes, feeds: dict[str, NDArray[Any]]) -> NDArray[Any]:
    ort = pytest.importorskip("onnxruntime", reason="ONNX Runtime, the executor of this test, is not installed")
    options = ort.SessionOptions()
    options.log_severity_level = 3
    made: NDArray[Any] = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"]).run(None, feeds)[0]
    return made


def _shapes(model: ir.Model, size: int) -> dict[str, tuple[int, ...]]:
    return {
        str(v.name): tuple(d if isinstance(d, int) else 1 if i == 0 else size for i, d in enumerate(v.shape or ()))
        for v in model.graph.inputs
    }


@pytest.mark.parametrize("name", SMALL)
def test_float16_gives_the_answer(name: str) -> None:
    shapes = _shapes(ARCHITECTURES[name](), 16)
    rng = np.random.default_rng(5)
    feeds = {n: rng.standard_normal(s).astype(np.float32) for n, s in shapes.items()}
    source = specialise(ARCHITECTURES[name](), shapes, {})
    expected = _answer(_bytes(source), feeds)
    low = lower_precision.run(specialise(ARCHITECTURES[name](), shapes, {}), "fp16")
    out = _answer(_bytes(low), feeds)
    assert out.dtype == np.float32
    error = float(np.linalg.norm(out - expected) / np.linalg.norm(expected))
    assert 1e-7 < error < 5e-3


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_products_are_low_and_sums_of_norms_are_not(precision: str) -> None:
    model = build_unet3d(FEATURES_SMALL, (16, 16, 16))
    low = lower_precision.run(specialise(model, {str(model.graph.inputs[0].name): (1, 1, 16, 16, 16)}, {}), precision)
    wanted = lower_precision.LOW[precision]
    kinds: dict[str, set[ir.DataType]] = {}
    for node in low.graph:
        for value in node.inputs[:2]:
            if value is not None and value.dtype is not None:
                kinds.setdefault(node.op_type, set()).add(value.dtype)
    assert kinds["Conv"] == {wanted}
    assert kinds["InstanceNormalization"] == {ir.DataType.FLOAT}
    assert kinds["ConvTranspose"] == {ir.DataType.FLOAT if precision == "bf16" else wanted}
    for value in (*low.graph.inputs, *low.graph.outputs):
        assert value.dtype == ir.DataType.FLOAT


def test_an_input_that_is_an_output_of_a_norm_alone_stays_whole() -> None:
    text = "(float[1,2,8] x) => (y) { a = Conv(x, w) b = Softmax <axis = 1> (a) c = Relu(b) y = Add(c, c) }"
    weights = {"w": np.random.default_rng(2).standard_normal((2, 2, 3)).astype(np.float32)}
    x = np.random.default_rng(3).standard_normal((1, 2, 8)).astype(np.float32)
    expected = _answer(_bytes(infer_shapes.run(model_of(text, **weights))), {"x": x})
    out = _answer(_bytes(lower_precision.run(infer_shapes.run(model_of(text, **weights)), "fp16")), {"x": x})
    assert np.abs(out - expected).max() < 3e-3


def test_weights_past_the_largest_value_are_named() -> None:
    model = infer_shapes.run(model_of("(float[2] x) => (y) { y = Mul(x, w) }", w=np.array([1.0, 7e4], np.float32)))
    with pytest.raises(UnsupportedError, match=r"w: largest value 7e\+04"):
        lower_precision.run(model, "fp16")
