"""compile and Plan: shapes, variants, batches, islands, files, taps, parity, refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

import voxelrt as vx
from voxelrt.compile import compile
from voxelrt.errors import ParityError, PlanError, ShapeError, UnsupportedError, UsageError
from voxelrt.plan import parity
from voxelrt.plan.description import tables
from voxelrt.plan.plan import Plan

RNG = np.random.default_rng(7)


def network(
    size: Any = ("z", "y", "x"), extra: list[onnx.NodeProto] | None = None, batch: Any = "n"
) -> onnx.ModelProto:
    """Conv + Relu, a skip concat, Conv 1×1×1; two channels in, three out."""
    weights = {
        "w1": RNG.standard_normal((16, 2, 3, 3, 3)).astype("f4") * 0.2,
        "w2": RNG.standard_normal((16, 16, 3, 3, 3)).astype("f4") * 0.1,
        "w3": RNG.standard_normal((3, 32, 1, 1, 1)).astype("f4"),
        "b3": RNG.standard_normal(3).astype("f4"),
    }
    nodes = [
        helper.make_node("Conv", ["image", "w1"], ["a"], pads=[1] * 6, name="first"),
        helper.make_node("Relu", ["a"], ["b"], name="relu"),
        helper.make_node("Conv", ["b", "w2"], ["c"], pads=[1] * 6, name="second"),
        helper.make_node("Concat", ["c", "b"], ["d"], axis=1, name="skip"),
        helper.make_node("Conv", ["d", "w3", "b3"], ["logits"], name="head"),
        *(extra or []),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 2, *size])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, 3, *size])],
        [numpy_helper.from_array(v, k) for k, v in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def reference(model: onnx.ModelProto, x: NDArray[Any]) -> NDArray[Any]:
    ort = pytest.importorskip("onnxruntime")
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    result: NDArray[Any] = session.run(["logits"], {"image": x})[0]
    return result


def image(*shape: int) -> NDArray[Any]:
    return RNG.standard_normal(shape).astype(np.float32)


def test_the_plan_gives_the_networks_answer_and_measures_it() -> None:
    model = network()
    plan = compile(model, shapes={"image": (1, 2, 6, 7, 9)}, fallback="error")
    x = image(1, 2, 6, 7, 9)
    np.testing.assert_allclose(plan(x), reference(model, x), rtol=1e-4, atol=1e-4)
    lines = {line.name: line for line in plan.parity}
    assert lines["plan"].status == "measured on 2 inputs"
    assert lines["plan"].relative is not None
    assert lines["plan"].relative < 5e-6
    assert lines["import"].status == "not independent"
    assert "validated" not in plan.describe()


def test_the_skip_concat_is_never_materialised() -> None:
    plan = compile(network(), shapes={"image": (1, 2, 4, 4, 4)}, fallback="error")
    text = plan.describe()
    assert "first + relu" in text
    steps = text.split("steps of variant 0:")[1].split("parity:")[0].strip().splitlines()
    assert [line.split()[1].split(".")[0] for line in steps] == ["conv3d"] * 3


def test_two_variants_share_the_weights() -> None:
    model = network()
    small, large = {"image": (1, 2, 8, 8, 4)}, {"image": (1, 2, 8, 8, 8)}
    one = compile(model, shapes=large, fallback="error", verify=False)
    plan = compile(model, shapes=[small, large], fallback="error")
    assert len(plan.variants) == 2
    weights = [len(tables(p)["weights"]) for p in (one, plan)]
    assert weights[0] == weights[1]
    for shape in ((1, 2, 8, 8, 4), (1, 2, 8, 8, 8), (1, 2, 8, 8, 4)):
        x = image(*shape)
        np.testing.assert_allclose(plan(x), reference(model, x), rtol=1e-4, atol=1e-4)


def test_the_batch_is_chosen_at_run_time_and_items_do_not_mix() -> None:
    plan = compile(network(), shapes={"image": ((1, 2, 5), 2, 4, 5, 6)}, fallback="error")
    assert plan.variants[0][2] == (1, 5)
    x = image(5, 2, 4, 5, 6)
    whole = plan(x)
    for i in range(5):
        np.testing.assert_array_equal(plan(x[i : i + 1])[0], whole[i])
    with pytest.raises(ShapeError, match="compiled for"):
        plan(image(6, 2, 4, 5, 6))


def test_other_ranges_are_compiled_on_first_use_and_kept() -> None:
    model = network()
    plan = compile(model, shapes={"image": (1, 2, (2, 4, 8), 4, 4)}, fallback="error")
    for z in (2, 7, 2):
        x = image(1, 2, z, 4, 4)
        np.testing.assert_allclose(plan(x), reference(model, x), rtol=1e-4, atol=1e-4)
    assert len(plan._others) == 2
    with pytest.raises(ShapeError):
        plan(image(1, 2, 9, 4, 4))


@pytest.mark.parametrize("packed", [True, False])
def test_a_saved_plan_gives_the_same_bytes(tmp_path: Path, packed: bool) -> None:
    plan = compile(network(), shapes={"image": ((1, 1, 2), 2, 4, 5, 6)}, fallback="error")
    plan.save(tmp_path / "net.vxp", packed=packed)
    opened = Plan.open(tmp_path / "net.vxp")
    x = image(2, 2, 4, 5, 6)
    np.testing.assert_array_equal(opened(x), plan(x))
    assert opened.parity == plan.parity
    assert opened.describe() == plan.describe()
    assert [p.name for p in tmp_path.iterdir()] == ["net.vxp"]
    with pytest.raises(ShapeError):
        opened(image(1, 2, 4, 5, 7))


def test_results_do_not_depend_on_the_threads() -> None:
    model, x = network(), image(1, 2, 9, 17, 31)
    answers = [
        compile(model, shapes={"image": x.shape}, threads=t, verify=False, fallback="error")(x) for t in (1, 2, 3, 8)
    ]
    for other in answers[1:]:
        np.testing.assert_array_equal(other, answers[0])


def test_out_is_written_in_place() -> None:
    plan = compile(network(), shapes={"image": (1, 2, 4, 4, 4)}, fallback="error", verify=False)
    x, out = image(1, 2, 4, 4, 4), np.full((1, 3, 4, 4, 4), np.nan, np.float32)
    result = plan.run({"image": x}, out={"logits": out})
    assert result["logits"] is out
    np.testing.assert_array_equal(out, plan(x))
    gaps = np.full((1, 3, 4, 4, 8), np.nan, np.float32)[..., ::2]
    plan.run({"image": np.asfortranarray(x)}, out={"logits": gaps})
    np.testing.assert_array_equal(gaps, out)


def test_taps_give_inner_values() -> None:
    plan = compile(network(), shapes={"image": (1, 2, 4, 4, 4)}, fallback="error")
    x = image(1, 2, 4, 4, 4)
    found = plan.run({"image": x}, taps=["b", "d"])
    assert set(found) == {"logits", "b", "d"}
    assert (found["b"] >= 0).all()
    np.testing.assert_array_equal(found["d"][:, 16:], found["b"])
    np.testing.assert_allclose(found["logits"], plan(x), rtol=1e-5, atol=1e-5)
    with pytest.raises(UsageError, match="no value named nowhere"):
        plan.run({"image": x}, taps=["nowhere"])


def test_nodes_without_a_kernel_are_all_named() -> None:
    extra = [
        helper.make_node("Det", ["logits"], ["det1"], name="first-det"),
        helper.make_node("Det", ["logits"], ["det2"], name="second-det"),
    ]
    model = network((4, 4, 4), extra, batch=1)
    model.graph.output.extend(
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 3, 4]) for n in ("det1", "det2")]
    )
    with pytest.raises(UnsupportedError) as error:
        compile(model, fallback="error")
    assert "first-det (Det)" in str(error.value)
    assert "second-det (Det)" in str(error.value)
    assert len(error.value.nodes) == 2


def test_islands_run_in_onnx_runtime_and_are_saved(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    extra = [helper.make_node("Det", ["logits"], ["det"], name="island")]
    model = network((4, 4, 4), extra, batch=1)
    model.graph.output.append(helper.make_tensor_value_info("det", TensorProto.FLOAT, [1, 3, 4]))
    plan = compile(model)
    assert "island (Det): onnxruntime" in plan.describe()
    x = image(1, 2, 4, 4, 4)
    plan.save(tmp_path / "p.vxp")
    for p in (plan, Plan.open(tmp_path / "p.vxp")):
        found = p.run({"image": x})
        np.testing.assert_allclose(found["det"], np.linalg.det(found["logits"]), rtol=1e-3, atol=1e-3)


def test_a_wrong_plan_does_not_compile_and_names_the_node(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    run = parity.ReferenceRunner.run

    def wrong(self: parity.ReferenceRunner, inputs: Any) -> Any:
        found = run(self, inputs)
        return {k: v * (1.5 if k in ("c", "d", "logits") else 1.0) for k, v in found.items()}

    monkeypatch.setattr(parity.ReferenceRunner, "run", wrong)
    with pytest.raises(ParityError, match=r"first node that departs is second \(Conv\)"):
        compile(network(), shapes={"image": (1, 2, 4, 4, 4)}, fallback="error")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "image"),
        ({"shapes": {"image": (1, 2, 4, 4)}}, "image"),
        ({"shapes": {"picture": (1, 2, 4, 4, 4)}}, "picture"),
        ({"shapes": {"image": (1, 2, 4, 4, 4)}, "device": "cuda"}, "sm_86"),
        ({"shapes": {"image": (1, 2, 4, 4, 4)}, "device": "tpu"}, "tpu"),
        ({"shapes": {"image": (1, 2, 4, 4, 4)}, "arch": ["sm_86"]}, "goes with"),
        ({"shapes": {"image": (1, 2, 4, 4, 4)}, "precision": "fp8"}, "fp8"),
        ({"shapes": {"image": (1, 2, 4, 4, 4)}, "fallback": "magic"}, "magic"),
    ],
)
def test_wrong_options_are_named(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        compile(network(), **arguments)


def test_wrong_inputs_are_named() -> None:
    plan = compile(network(), shapes={"image": (1, 2, 4, 4, 4)}, fallback="error", verify=False)
    with pytest.raises(UsageError, match="missing image"):
        plan.run({"picture": image(1, 2, 4, 4, 4)})
    with pytest.raises(ShapeError, match="float64"):
        plan(np.zeros((1, 2, 4, 4, 4)))
    with pytest.raises(PlanError):
        Plan.open("/nonexistent/net.vxp")
    assert vx.__name__ == "voxelrt"
