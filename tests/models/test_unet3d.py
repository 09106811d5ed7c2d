"""The seeded nnU-Net-class network: its size, its validity as ONNX, and that its answer is worth comparing."""

from __future__ import annotations

import math

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from voxelrt.errors import UsageError
from voxelrt.models.architectures import unet3d

SMALL = (16, 16, 24)


def small(seed: int = 0, **options: object) -> ir.Model:
    return unet3d.build_unet3d(unet3d.FEATURES_SMALL, SMALL, seed=seed, **options)  # type: ignore[arg-type]


def test_size_of_the_full_network() -> None:
    layers = list(unet3d.convolutions())
    assert len([x for x in layers if x.kind == "conv"]) == 22
    assert sum(x.flops for x in layers) == pytest.approx(955e9, rel=1e-3)


def test_valid_onnx() -> None:
    model = ir.to_proto(small(channels=2, classes=7))
    onnx.checker.check_model(model, full_check=True)
    assert [d.dim_value for d in model.graph.output[0].type.tensor_type.shape.dim] == [1, 7, *SMALL]
    assert len(model.graph.node) == 3 * 10 + 2 * 2 + 1


def test_same_seed_same_weights() -> None:
    layers = list(unet3d.convolutions(unet3d.FEATURES_SMALL, SMALL))
    one, again, other = (unet3d.draw_parameters(layers, seed) for seed in (5, 5, 6))
    assert all(np.array_equal(one[name], again[name]) for name in one)
    assert not np.array_equal(one["head.weight"], other["head.weight"])


@pytest.mark.parametrize("seed", range(4))
def test_every_class_appears_and_nothing_explodes(seed: int) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="ONNX Runtime runs the network here")
    session = onnxruntime.InferenceSession(
        ir.to_proto(small(seed)).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (logits,) = session.run(["logits"], {"input": unet3d.draw_volume((1, 1, *SMALL), seed)})
    share = np.bincount(logits.argmax(1).ravel(), minlength=5) / math.prod(SMALL)
    assert share.min() >= 0.01, share
    assert 0.5 < logits.std() < 5.0
    assert np.abs(logits).max() < 50.0


def test_volume_is_standardised_and_seeded() -> None:
    volume = unet3d.draw_volume((1, 2, 9, 17, 33), 3)
    assert volume.shape == (1, 2, 9, 17, 33)
    assert volume.dtype == np.float32
    assert abs(float(volume.mean())) < 1e-4
    assert float(volume.std()) == pytest.approx(1.0, abs=1e-3)
    assert np.array_equal(volume, unet3d.draw_volume((1, 2, 9, 17, 33), 3))


@pytest.mark.parametrize("wrong", [{"patch": (16, 16, 18)}, {"features": (8,)}, {"classes": 0}, {"patch": (16, 16)}])
def test_refused(wrong: dict[str, object]) -> None:
    options: dict[str, object] = {"features": unet3d.FEATURES_SMALL, "patch": SMALL, **wrong}
    with pytest.raises(UsageError):
        unet3d.build_unet3d(**options)  # type: ignore[arg-type]
