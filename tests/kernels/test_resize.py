"""resize: against ONNX's reference, on blocked volumes, and what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from tests.kernels.blocked import answer, blocked, output
from voxelrt.errors import ShapeError, UsageError
from voxelrt.kernels.common import native
from voxelrt.kernels.common.kernel import Array
from voxelrt.kernels.resize import resize
from voxelrt.kernels.resize.codes import COORDINATES, MODES, ROUNDINGS


def _reference(x: Array, scales: list[float], options: dict[str, Any]) -> Array:
    names = {"coordinate": "coordinate_transformation_mode", "rounding": "nearest_mode", "cubic": "cubic_coeff_a"}
    attributes = {names.get(key, key): int(v) if isinstance(v, bool) else v for key, v in options.items()}
    node = onnx.helper.make_node("Resize", ["x", "", "scales"], ["y"], **attributes)
    graph = onnx.helper.make_graph(
        [node],
        "resize",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, x.shape)],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(np.array(scales, np.float32), "scales")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 19)])
    result: Array = ReferenceEvaluator(model).run(None, {"x": x})[0]
    return result


@pytest.mark.parametrize("scales", [[2.0, 0.6], [0.45, 1.3], [1.0, 3.0]])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("coordinate", COORDINATES[:-1])
def test_onnx_reference(mode: str, coordinate: str, scales: list[float]) -> None:
    x = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)
    variants: list[dict[str, Any]] = [{}]
    if mode == "nearest":
        variants = [{"rounding": r} for r in ROUNDINGS]
    elif coordinate == "half_pixel":
        variants = [{}, {"antialias": True}, {"exclude_outside": True}]
    scales = [float(np.float32(s)) for s in scales]
    for variant in variants:
        options = {"mode": mode, "coordinate": coordinate, **variant}
        np.testing.assert_allclose(resize(x, scales, **options), _reference(x, scales, options), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("channels", [16, 19])
def test_blocked_volumes(mode: str, channels: int) -> None:
    x = np.random.default_rng(1).normal(size=(2, channels, 3, 4, 5)).astype(np.float32)
    scales = [1.0, 1.0, 2.0, 1.5, 0.6]
    expected = resize(x, scales, mode=mode)
    out = output(expected.shape)
    native.run_kernel(
        "resize",
        [blocked(x)],
        [out],
        mode=MODES.index(mode),
        coordinate=0,
        rounding=0,
        antialias=0,
        exclude_outside=0,
        cubic=-0.75,
        extrapolation=0,
        scale=[*scales, 1, 1, 1],
        roi=[0] * 16,
    )
    np.testing.assert_allclose(answer(out), expected, rtol=1e-5, atol=1e-6)


def test_refusals() -> None:
    x = np.ones((3, 4), np.float32)
    for scale in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(ShapeError, match="scale"):
            resize(x, (scale, 1.0), (3, 4))
    with pytest.raises(ShapeError, match="empty"):
        resize(x[:0], (2.0, 1.0), (4, 4))
    with pytest.raises(ShapeError, match="taps"):
        resize(x, (1e-8, 1.0), (3, 4), mode="linear", antialias=True)
    with pytest.raises(UsageError):
        resize(x, (2.0, 1.0), mode="quintic")
