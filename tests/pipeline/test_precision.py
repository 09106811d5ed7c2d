"""compile in narrow precisions: what is stored and multiplied how, parity, files, threads, and what still runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

from tests.unit.graphs import model_of, run_model
from voxelrt import quantise
from voxelrt.compile import compile
from voxelrt.errors import UsageError
from voxelrt.models.architectures import unet3d
from voxelrt.models.load import Model
from voxelrt.plan.description import memory_of
from voxelrt.plan.lowering import builder
from voxelrt.plan.parity import label_agreement
from voxelrt.plan.plan import Plan

RNG = np.random.default_rng(3)
Array = NDArray[Any]


def normal(*shape: int) -> Array:
    return RNG.standard_normal(shape).astype(np.float32)


@pytest.fixture(scope="module")
def unet() -> ir.Model:
    return unet3d.build_unet3d(features=(32, 48, 64), patch=(32, 32, 32), seed=3)


@pytest.fixture(autouse=True)
def small_volumes_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Volumes of tests would stay float32."""
    monkeypatch.setattr(builder, "SMALL_BYTES", 0)


def distance(a: Array, b: Array) -> float:
    return float(np.linalg.norm(a.astype(np.float64) - b) / np.linalg.norm(b))


def kernels_of(plan: Plan) -> list[str]:
    """The kernels of variant 0, in order."""
    lines = plan.describe().splitlines()
    return [line.split()[1] for line in lines if line[:5].strip().isdigit()]


def test_bf16_halves_the_arena_and_stays_near(unet: ir.Model, tmp_path: Path) -> None:
    x = unet3d.draw_volume((1, 1, 32, 32, 32), 4)
    exact = compile(unet, tune="off", verify=False)
    plan = compile(unet, precision="bf16", tune="off")
    assert plan.info.precision == "bf16"
    line = next(line for line in plan.parity if line.name == "plan")
    assert line.tolerance is not None
    assert 0 < (line.relative or 0) <= line.tolerance
    kernels = kernels_of(plan)
    assert {"conv3d.bf16", "conv3d.winograd", "conv_transpose3d.bf16"} <= set(kernels)
    assert "copy" not in kernels
    assert not any("bf16" in name for name in kernels_of(exact))
    assert memory_of(plan)["arena"] < 0.8 * memory_of(exact)["arena"]
    expected, found = exact(x), plan(x)
    assert 1e-4 < distance(found, expected) < 6e-2
    plan.save(tmp_path / "net.vxp")
    opened = Plan.open(tmp_path / "net.vxp", threads=3)
    assert opened.info.precision == "bf16"
    assert np.array_equal(opened(x), found)


def test_a_batch_and_taps(unet: ir.Model) -> None:
    x = unet3d.draw_volume((2, 1, 32, 32, 32), 5)
    plan = compile(unet, precision="bf16", tune="off", verify=False)
    name = plan.inputs[0].name
    tap = str(next(o.name for node in unet.graph for o in node.outputs if node.op_type == "ConvTranspose"))
    tapped = plan.run({name: x[:1]}, taps=[tap])
    assert np.isfinite(tapped[tap]).all()
    assert distance(tapped[plan.outputs[0].name], plan(x[:1])) < 6e-2


NODES = """(float[1, 3, 12, 14, 16] x) => (float[1, 4] y) {
    a = Conv<pads = [1, 1, 1, 1, 1, 1]>(x, w1)
    b = Relu(a)
    c = MaxPool<kernel_shape = [2, 2, 2], strides = [2, 2, 2]>(b)
    d = Conv<pads = [1, 1, 1, 1, 1, 1]>(c, w2)
    e = Add(d, c)
    f = Sigmoid(e)
    g = Resize<mode = "linear">(f, , scales)
    h = Concat<axis = 1>(g, b)
    i = Conv(h, w3)
    j = AveragePool<kernel_shape = [3, 3, 3], strides = [2, 2, 2]>(i)
    k = Softmax<axis = 1>(j)
    l = Conv<group = 24>(k, w4)
    m = GlobalAveragePool(l)
    n = Flatten(m)
    y = MatMul(n, w5)
}"""


def test_every_kind_of_node_runs_on_volumes_in_bfloat16() -> None:
    weights = {
        "w1": normal(24, 3, 3, 3, 3), "w2": normal(24, 24, 3, 3, 3) / 20, "w3": normal(24, 48, 1, 1, 1) / 5,
        "w4": normal(24, 1, 1, 1, 1), "w5": normal(24, 4), "scales": np.array([1, 1, 2, 2, 2], np.float32),
    }  # fmt: skip
    model = model_of(NODES, **weights)
    x = normal(1, 3, 12, 14, 16)
    exact = compile(model, tune="off", fallback="error")
    plan = compile(model, precision="bf16", tune="off", fallback="error")
    assert 1e-5 < distance(plan(x), exact(x)) < 3e-2


def test_an_unknown_precision_is_refused(unet: ir.Model) -> None:
    with pytest.raises(UsageError, match="bf16"):
        compile(unet, precision="fp8")


INTEGERS = """(float[1, 24, 9, 10, 17] x) => (float[1, 40, 9, 10, 17] y) {
    q = QuantizeLinear(x, s, z)
    d = DequantizeLinear(q, s, z)
    v = DequantizeLinear<axis = 0>(w, t)
    c = Conv<pads = [1, 1, 1, 1, 1, 1]>(d, v, b)
    y = Relu(c)
}"""


def test_a_quantised_network_runs_on_integers_in_any_precision() -> None:
    constants = {
        "s": np.array(0.03, np.float32), "z": np.array(117, np.uint8), "t": RNG.random(40).astype(np.float32) / 99,
        "w": RNG.integers(-127, 128, (40, 24, 3, 3, 3)).astype(np.int8), "b": normal(40),
    }  # fmt: skip
    model = model_of(INTEGERS, opset=19, **constants)
    x = normal(1, 24, 9, 10, 17)
    plan = compile(model, tune="off", fallback="error")
    assert kernels_of(plan).count("conv3d.int8") == 1
    assert not any("quantize" in name for name in kernels_of(plan))
    assert distance(plan(x), run_model(model, {"x": x})["y"]) < 1e-4  # a tie may round either way
    assert distance(plan.run({"x": x}, taps=["c"])["y"], plan(x)) < 1e-4


@pytest.mark.parametrize("method", ["minmax", "percentile", "mse"])
def test_int8_is_calibrated_and_measured(unet: ir.Model, method: str) -> None:
    heads = [unet3d.draw_volume((1, 1, 32, 32, 32), seed) for seed in (4, 5)]
    name = str(unet.graph.inputs[0].name)
    exact = compile(unet, tune="off", verify=False)
    given: dict[str, Any] = {"calibration": [{name: heads[0]}], "calibration_method": method}
    plan = compile(unet, precision="int8", tune="off", **given)
    assert kernels_of(plan).count("conv3d.int8") >= 8
    assert 1e-3 < distance(plan(heads[1]), exact(heads[1])) < 0.2


def test_int8_leaves_what_labels_are_too_sensitive_to(unet: ir.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Model, "is_segmentation", property(lambda self: True))
    monkeypatch.setattr(quantise, "LEAST_DICE", 0.98)  # drawn weights leave narrower margins between classes
    x = unet3d.draw_volume((1, 1, 32, 32, 32), 4)
    given: dict[str, Any] = {"precision": "int8", "tune": "off", "verify": False, "calibration": [{"input": x}]}
    plan = compile(unet, **given)
    found = plan.info.source["int8"]
    whole = len(kernels_of(compile(unet, tune="off", verify=False)))
    assert 0 < kernels_of(plan).count("conv3d.int8") < whole
    assert 0 < len(found["left in float32"]) < 10
    assert found["dice"] >= quantise.LEAST_DICE
    exact = compile(unet, tune="off", verify=False)(x).argmax(1)
    dice = label_agreement(plan(x).argmax(1), exact)["dice"]
    assert min(dice.values()) > 0.97  # storage in bfloat16 comes on top
    monkeypatch.setattr(quantise, "LEAST_DICE", 1.1)
    with pytest.raises(UsageError, match="labels kept"):
        compile(unet, **given)


def test_what_int8_refuses(unet: ir.Model) -> None:
    with pytest.raises(UsageError, match="calibrate"):
        compile(unet, precision="int8")
    x = unet3d.draw_volume((1, 1, 32, 32, 32), 4)
    with pytest.raises(UsageError, match="'best'"):
        compile(unet, precision="int8", calibration=[{"input": x}], calibration_method="best")
    with pytest.raises(UsageError, match="not finite"):
        compile(unet, precision="int8", calibration=[{"input": np.full_like(x, np.nan)}])
    with pytest.raises(UsageError, match="int8"):
        compile(unet, calibration=[{"input": x}])
