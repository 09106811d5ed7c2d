import numpy as np
import onnx_ir as ir
import pytest

from tests.unit.graphs import Array, model_of, ops, same_answers
from voxelrt.backends.onnxruntime import reference_session
from voxelrt.graph.passes import fold_batch_norm

PARTS = "scale, shift, mean, variance"
RNG = np.random.default_rng(1)


def _norm(channels: int) -> dict[str, Array]:
    values = {n: RNG.standard_normal(channels).astype(np.float32) for n in ("scale", "shift", "mean")}
    return {**values, "variance": RNG.uniform(0.5, 2, channels).astype(np.float32)}


def _weight(*shape: int) -> Array:
    return RNG.standard_normal(shape).astype(np.float32)


LAYERS = {
    "conv": ("Conv(x, w)", (2, 4, 5, 6), {"w": _weight(6, 4, 3, 3)}, 6),
    "conv-bias-groups": ("Conv <group = 2> (x, w, b)", (2, 4, 5, 6), {"w": _weight(6, 2, 3, 3), "b": _weight(6)}, 6),
    "transposed": ("ConvTranspose(x, w)", (1, 4, 3, 3), {"w": _weight(4, 5, 2, 2)}, 5),
    "transposed-groups": (
        "ConvTranspose <group = 2> (x, w, b)",
        (1, 4, 3, 3),
        {"w": _weight(4, 3, 2, 2), "b": _weight(6)},
        6,
    ),
    "gemm": ("Gemm(x, w)", (3, 4), {"w": _weight(4, 5)}, 5),
    "gemm-all": (
        "Gemm <alpha = 0.5, beta = 2.0, transB = 1> (x, w, b)",
        (3, 4),
        {"w": _weight(5, 4), "b": _weight(1, 5)},
        5,
    ),
}


def _model(name: str, outputs: str = "(y)") -> tuple[ir.Model, dict[str, Array]]:
    layer, shape, weights, _ = LAYERS[name]
    dims = ",".join(map(str, shape))
    body = f"(float[{dims}] x) => {outputs} {{ a = {layer} y = BatchNormalization(a, {PARTS}) }}"
    rng = np.random.default_rng(2)
    return model_of(body, **weights, **NORMS[name]), {"x": rng.standard_normal(shape).astype(np.float32)}


NORMS = {name: _norm(channels) for name, (_, _, _, channels) in LAYERS.items()}


@pytest.mark.parametrize("name", LAYERS)
def test_a_norm_goes_into_the_layer_before(name: str) -> None:
    before, inputs = _model(name)
    after = fold_batch_norm.run(_model(name)[0])
    assert ops(after) == [LAYERS[name][0].partition("(")[0].partition(" ")[0]]
    if name == "transposed-groups":  # the reference evaluator does not do groups of transposed convolutions
        pytest.importorskip("onnxruntime")
        expected, answer = (
            reference_session(ir.to_proto(m).SerializeToString(), 1)(inputs)[0] for m in (before, after)
        )
        np.testing.assert_allclose(answer, expected, rtol=0, atol=1e-5)
    else:
        same_answers(before, after, inputs, 1e-6)


def test_a_layer_whose_plain_result_is_an_output_keeps_its_norm() -> None:
    assert len(ops(fold_batch_norm.run(_model("conv", "(y, a)")[0]))) == 2


def test_training_and_unknown_weights_stay() -> None:
    norm = _norm(2)
    training = (
        f"(float[1,2,3] x) => (y) {{ a = Conv(x, w) y, m, v = BatchNormalization <training_mode = 1> (a, {PARTS}) }}"
    )
    assert len(ops(fold_batch_norm.run(model_of(training, w=_weight(2, 2, 1), **norm)))) == 2
    unknown = f"(float[1,2,3] x, float[2,2,1] w) => (y) {{ a = Conv(x, w) y = BatchNormalization(a, {PARTS}) }}"
    assert len(ops(fold_batch_norm.run(model_of(unknown, **norm)))) == 2


def test_a_variance_that_makes_infinities_stays() -> None:
    norm = {**_norm(2), "variance": np.float32([-1, 1])}
    body = f"(float[1,2,3] x) => (y) {{ a = Conv(x, w) y = BatchNormalization(a, {PARTS}) }}"
    assert len(ops(fold_batch_norm.run(model_of(body, w=_weight(2, 2, 1), **norm)))) == 2


def test_weights_that_others_use_are_left_alone() -> None:
    body = f"(float[1,2,3] x) => (y, z) {{ a = Conv(x, w) y = BatchNormalization(a, {PARTS}) z = Conv(x, w) }}"
    weights = {"w": _weight(2, 2, 1), **_norm(2)}
    after = fold_batch_norm.run(model_of(body, **weights))
    assert ops(after) == ["Conv", "Conv"]
    same_answers(model_of(body, **weights), after, {"x": RNG.standard_normal((1, 2, 3)).astype(np.float32)}, 1e-6)
