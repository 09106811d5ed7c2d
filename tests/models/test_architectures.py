"""The seeded networks: each runs natively, without another executor, and gives ONNX Runtime's answer."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import voxelrt as vx
from voxelrt.errors import UsageError
from voxelrt.models.architectures import classifiers, dense, recurrent, volumes
from voxelrt.plan.oracle_run import reference_evaluator

TOLERANCE = 5e-5
SMALL_STAGES = ((1, 8, 1, 1, 3), (6, 12, 2, 2, 5), (6, 20, 2, 2, 3))

NETWORKS: dict[str, Callable[[], ir.Model]] = {
    "mlp": lambda: dense.build_mlp(batch=5),
    "autoencoder": lambda: dense.build_autoencoder((50, 20, 7), batch=3),
    "patch_denoiser": lambda: dense.build_patch_denoiser(7, (40, 30), batch=9),
    "attention_pooling": lambda: dense.build_attention_pooling(17, 24, batch=2, hidden=16),
    "attention_pooling, not gated": lambda: dense.build_attention_pooling(17, 24, batch=2, hidden=16, gated=False),
    "resnet18": lambda: classifiers.build_resnet(18, (65, 48), batch=2, width=8),
    "resnet50": lambda: classifiers.build_resnet(50, (64, 49), width=8),
    "densenet": lambda: classifiers.build_densenet((2, 3), (64, 48), growth=8),
    "efficientnet": lambda: classifiers.build_efficientnet(SMALL_STAGES, (50, 64), batch=2, stem=8, head=40),
    "convnext": lambda: classifiers.build_convnext((1, 2), (12, 24), (48, 64), batch=2),
    "dncnn3d": lambda: volumes.build_dncnn3d(5, 12, (9, 12, 17)),
    "registration": lambda: volumes.build_registration((4, 8), (8, 8), (8, 4), (16, 12, 20)),
    "conv_lstm": lambda: recurrent.build_conv_lstm((9, 14), 5, (6, 4), batch=2),
    "conv_lstm, volumes": lambda: recurrent.build_conv_lstm((5, 9, 7), 3, (6,)),
    "conv_lstm, one step": lambda: recurrent.build_conv_lstm((9, 14), 1, (6,)),
    "hierarchical_lstm": lambda: recurrent.build_hierarchical_lstm((5, 12, 17), (19, 9), batch=2),
    "hierarchical_lstm, one slice": lambda: recurrent.build_hierarchical_lstm((1, 12, 17), (16, 5)),
    "window_attention": lambda: volumes.build_window_attention((8, 8, 12), 4, 24, 3),
}

# Those with operators of our own, which no other executor has.
OUR_NETWORKS: dict[str, Callable[[], ir.Model]] = {
    "mdlstm": lambda: recurrent.build_mdlstm((10, 14), (9, 17), batch=2, window=2),
    "mdlstm, volumes": lambda: recurrent.build_mdlstm((4, 9, 6), (7,), channels=2, window=1),
    "mdlstm, one window": lambda: recurrent.build_mdlstm((3, 3), (5,), window=3),
}


def _inputs(model: ir.Model, seed: int) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    rng = np.random.default_rng(seed)
    dims = {str(v.name): tuple(int(d) for d in v.shape or ()) for v in model.graph.inputs}  # type: ignore[arg-type]
    return {name: rng.standard_normal(shape, np.float32) for name, shape in dims.items()}


@pytest.mark.parametrize("name", list(NETWORKS))
def test_runs_natively_with_the_answer_of_onnx_runtime(name: str) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="ONNX Runtime gives the answer to compare with")
    model = NETWORKS[name]()
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    inputs = _inputs(model, 7)
    plan = vx.compile(model, fallback="error", verify=False, tune="off")
    answers = plan.run(inputs)
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    for label, expected in zip(answers, session.run(list(answers), inputs), strict=True):
        error = np.linalg.norm(answers[label].astype(np.float64) - expected) / np.linalg.norm(expected)
        assert error <= TOLERANCE, (label, error)
        assert 1e-3 < expected.std() < 1e3, "an answer worth comparing"


@pytest.mark.parametrize("name", list(OUR_NETWORKS))
def test_runs_natively_with_the_answer_of_the_oracles(name: str) -> None:
    model = OUR_NETWORKS[name]()
    inputs = _inputs(model, 7)
    answers = vx.compile(model, fallback="error", verify=False, tune="off").run(inputs)
    reference = reference_evaluator(ir.to_proto(model))(inputs)
    for (label, answer), expected in zip(answers.items(), reference, strict=True):
        error = np.linalg.norm(answer.astype(np.float64) - expected) / np.linalg.norm(expected)
        assert error <= TOLERANCE, (label, error)
        assert 1e-3 < expected.std() < 1e3, "an answer worth comparing"


@pytest.mark.parametrize("name", [*NETWORKS, *OUR_NETWORKS])
def test_the_same_seed_gives_the_same_bytes(name: str) -> None:
    build = {**NETWORKS, **OUR_NETWORKS}[name]
    assert ir.to_proto(build()).SerializeToString() == ir.to_proto(build()).SerializeToString()


def test_the_sizes_of_the_papers() -> None:
    def parameters(model: ir.Model) -> int:
        floats = [v.const_value for v in model.graph.initializers.values() if v.dtype == ir.DataType.FLOAT]
        return sum(int(w.size) for w in floats if w is not None)

    # As torchvision's networks of 1,000 classes, with the running statistics of their norms.
    assert parameters(classifiers.build_resnet(18, classes=1000)) == 11_689_512 + 9_600
    assert parameters(classifiers.build_resnet(50, classes=1000)) == 25_557_032 + 53_120
    assert parameters(classifiers.build_densenet(classes=1000)) == 7_978_856 + 83_648
    assert parameters(classifiers.build_efficientnet(classes=1000)) == 5_288_548 + 42_016
    assert parameters(classifiers.build_convnext(classes=1000)) == 28_589_128


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: dense.build_mlp((3,)),
        lambda: dense.build_mlp(activation="Relo"),
        lambda: classifiers.build_resnet(19),
        lambda: classifiers.build_resnet(18, (0, 8)),
        lambda: volumes.build_dncnn3d(2),
        lambda: volumes.build_registration(grid=(20, 16, 16)),
        lambda: volumes.build_window_attention(grid=(10, 8, 8)),
        lambda: recurrent.build_mdlstm((8,)),
        lambda: recurrent.build_mdlstm((8, 7), window=2),
        lambda: recurrent.build_mdlstm(hidden=()),
        lambda: recurrent.build_hierarchical_lstm((8, 8)),
        lambda: recurrent.build_hierarchical_lstm((8, 8, 8), (4, 0)),
        lambda: recurrent.build_conv_lstm(kernel=2),
        lambda: recurrent.build_conv_lstm(steps=0),
    ],
)
def test_refused(wrong: Callable[[], ir.Model]) -> None:
    with pytest.raises(UsageError):
        wrong()
