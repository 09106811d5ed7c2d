"""Warp and IntegrateVelocity in plans: whole registration networks run natively, and have a form in plain ONNX."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

import voxelrt as vx
from voxelrt.errors import ModelError, UnsupportedError
from voxelrt.graph.passes import spell_domain
from voxelrt.graph.specialise import specialise
from voxelrt.kernels import integrate, warp3d
from voxelrt.kernels.common.kernel import compare
from voxelrt.kernels.warp3d.oracle import warp3d as warp_oracle
from voxelrt.models.architectures.volumes import build_deformable_registration
from voxelrt.plan.oracle_run import reference_evaluator

Array = NDArray[Any]
SMALL: dict[str, Any] = {"encoder": (4, 8), "decoder": (8, 8), "final": (8, 4), "grid": (16, 12, 20), "gain": 8.0}


def _model(op: str, shapes: dict[str, tuple[int, ...]], opset: int = 20, **attributes: Any) -> ir.Model:
    names = [name if shape else "" for name, shape in shapes.items()]
    node = onnx.helper.make_node(op, names, ["out"], "node", domain="voxelrt", **attributes)
    inputs = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, s) for n, s in shapes.items() if s]
    output = onnx.helper.make_tensor_value_info("out", onnx.TensorProto.FLOAT, None)
    graph = onnx.helper.make_graph([node], "one", inputs, [output])
    opsets = [onnx.helper.make_opsetid("", opset), onnx.helper.make_opsetid("voxelrt", 1)]
    return ir.from_proto(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10))


def _random(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    made = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items() if shape}
    for name, array in made.items():
        if name == "affine":
            array *= 0.1
            array[..., : array.shape[-2]] += np.eye(array.shape[-2], dtype=np.float32)
    return made


def test_a_registration_network_is_one_native_plan() -> None:
    model = build_deformable_registration(**SMALL)
    plan = vx.compile(model, fallback="error", tune="off")
    rng = np.random.default_rng(3)
    inputs = {name: rng.random((1, 1, 16, 12, 20), np.float32) for name in ("moving", "fixed")}
    answer = plan.run(inputs)
    assert 0.5 < np.abs(answer["displacement"]).max() < 20, "a displacement worth comparing"
    again = warp3d(inputs["moving"], answer["displacement"], padding="border")
    np.testing.assert_array_equal(answer["moved"], again)
    oracles = reference_evaluator(ir.to_proto(specialise(model, {})))(inputs)
    for found, expected in zip(plan.run(inputs).values(), oracles, strict=True):
        assert compare(found, expected).relative <= 5e-5


@pytest.mark.parametrize("padding", ["zeros", "border", "reflect"])
@pytest.mark.parametrize("mode", ["linear", "nearest", "bspline"])
@pytest.mark.parametrize("parts", ["field", "affine", "both"])
def test_warp_in_a_plan(parts: str, mode: str, padding: str) -> None:
    shapes: dict[str, tuple[int, ...]] = {
        "volume": (2, 3, 6, 7, 9),
        "field": (2, 3, 5, 8, 9) if parts != "affine" else (),
        "affine": (1, 3, 4) if parts != "field" else (),
    }
    attributes = {"shape": [5, 8, 9]} if parts == "affine" else {}
    inputs = _random(shapes)
    plan = vx.compile(_model("Warp", shapes, mode=mode, padding=padding, **attributes), fallback="error", verify=False)
    found = plan.run(inputs)["out"]
    options: dict[str, Any] = {"affine": inputs.get("affine"), "padding": padding, "shape": (5, 8, 9)}
    order = {"nearest": 0, "linear": 1, "bspline": 3}[mode]
    expected = warp3d(inputs["volume"], inputs.get("field"), order=order, **options)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("padding", ["zeros", "border", "reflect"])
@pytest.mark.parametrize(
    "shapes",
    [
        {"volume": (2, 3, 6, 7, 9), "field": (1, 3, 5, 8, 9)},
        {"volume": (2, 1, 6, 7, 9), "field": (), "affine": (2, 3, 4)},
        {"volume": (1, 2, 7, 9), "field": (1, 2, 5, 8), "affine": (1, 2, 3)},
    ],
)
def test_warp_spelled_in_plain_onnx(shapes: dict[str, tuple[int, ...]], padding: str) -> None:
    plain = spell_domain.run(specialise(_model("Warp", shapes, padding=padding), {}))
    assert not any(node.domain for node in plain.graph)
    inputs = _random(shapes)
    onnx.checker.check_model(ir.to_proto(plain), full_check=True)
    expected = warp_oracle(inputs["volume"], inputs.get("field"), affine=inputs.get("affine"), padding=padding)
    for run in _executors(plain):
        np.testing.assert_allclose(run(inputs), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(2, 3, 6, 7, 9), (1, 2, 8, 9)])
def test_integration_in_a_plan_and_in_plain_onnx(shape: tuple[int, ...]) -> None:
    model = _model("IntegrateVelocity", {"velocity": shape}, steps=4, padding="border")
    inputs = _random({"velocity": shape})
    found = vx.compile(model, fallback="error").run(inputs)["out"]
    np.testing.assert_array_equal(found, integrate(inputs["velocity"], steps=4, padding="border"))
    plain = spell_domain.run(specialise(model, {}))
    onnx.checker.check_model(ir.to_proto(plain), full_check=True)
    for run in _executors(plain):
        np.testing.assert_allclose(run(inputs), found, rtol=1e-4, atol=2e-5)


def _executors(model: ir.Model) -> list[Any]:
    """ONNX Runtime, and the reference evaluator with our float64 oracles."""
    proto = ir.to_proto(model)
    runs: list[Any] = [lambda inputs: reference_evaluator(proto)(inputs)[0]]
    onnxruntime = pytest.importorskip("onnxruntime", reason="ONNX Runtime runs the plain form")
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])

    def by_session(inputs: dict[str, Array]) -> NDArray[Any]:
        answer: NDArray[Any] = session.run(None, inputs)[0]
        return answer

    return [*runs, by_session]


def test_refused() -> None:
    volume = (1, 1, 6, 7, 9)
    for shapes in (
        {"volume": volume, "field": (1, 2, 6, 7, 9)},
        {"volume": volume, "field": (3, 3, 6, 7, 9)},
        {"volume": volume, "field": (), "affine": (1, 4, 4)},
        {"volume": (6, 7, 9)},
    ):
        with pytest.raises(ModelError, match="Warp"):
            vx.compile(_model("Warp", shapes), fallback="error")
    with pytest.raises(ModelError, match="velocity"):
        vx.compile(_model("IntegrateVelocity", {"velocity": (1, 1, 6, 7, 9)}), fallback="error")
    with pytest.raises(UnsupportedError, match="wrap"):
        vx.compile(_model("Warp", {"volume": volume}, padding="wrap"), fallback="error", verify=False)
    with pytest.raises(UnsupportedError, match="bspline"):
        spell_domain.run(specialise(_model("Warp", {"volume": volume}, mode="bspline"), {}))
    with pytest.raises(UnsupportedError, match="20"):
        spell_domain.run(specialise(_model("Warp", {"volume": volume}, opset=17), {}))
