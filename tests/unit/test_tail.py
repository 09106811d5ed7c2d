"""Plans whose outputs have shapes that depend on data, or take and give values that are no tensors."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import voxelrt as vx
from tests.unit.graphs import model_of
from voxelrt.errors import ModelError, PlanError, UnsupportedError, UsageError
from voxelrt.plan.tail import read_tails

pytest.importorskip("onnxruntime")

# A detector in small: scores natively, then the places over a threshold.
DETECTOR = """(float[1,1,N] x) => (float[1,1,N] s, int64[3,found] places) {
    s = Sigmoid(x)
    m = Greater(s, half)
    places = NonZero(m)
}"""


def _detector(**options: object) -> vx.Plan:
    shapes = options.pop("shapes", {"x": (1, 1, 8)})
    model = model_of(DETECTOR, half=np.float32(0.5))
    return vx.compile(model, shapes=shapes, threads=1, **options)  # type: ignore[arg-type]


def test_outputs_whose_shape_depends_on_data() -> None:
    plan = _detector()
    assert [line.status for line in plan.parity if line.name == "plan"] == ["measured on 2 inputs"]
    rng = np.random.default_rng(0)
    for _ in range(3):
        x = rng.standard_normal((1, 1, 8)).astype(np.float32)
        answer = plan.run({"x": x})
        assert list(answer) == ["s", "places"]
        np.testing.assert_allclose(answer["s"], 1 / (1 + np.exp(-x)), rtol=1e-5)
        np.testing.assert_array_equal(answer["places"], np.nonzero(x > 0))
    assert "NonZero_0 (NonZero): onnxruntime: the shape of 'places'" in plan.describe()


def test_saved_opened_and_for_several_shapes(tmp_path: Path) -> None:
    plan = vx.Plan.open(_detector(shapes=[{"x": (1, 1, 8)}, {"x": (1, 1, 5)}]).save(tmp_path / "plan.vxp"), threads=1)
    for size in (5, 8):
        x = np.linspace(-1, 2, size, dtype=np.float32).reshape(1, 1, size)
        np.testing.assert_array_equal(plan.run({"x": x})["places"], np.nonzero(x > 0))


def test_threads_do_not_meet() -> None:
    plan = _detector(verify=False)
    inputs = [np.random.default_rng(i).standard_normal((1, 1, 8)).astype(np.float32) for i in range(40)]
    with ThreadPoolExecutor(4) as pool:
        for x, answer in zip(inputs, pool.map(lambda x: plan.run({"x": x}), inputs), strict=True):
            np.testing.assert_array_equal(answer["places"], np.nonzero(x > 0))


def test_taps_beside_a_tail() -> None:
    x = np.linspace(-1, 1, 8, dtype=np.float32).reshape(1, 1, 8)
    answer = _detector(verify=False).run({"x": x}, taps=["m"])
    np.testing.assert_array_equal(answer["m"], x > 0)
    np.testing.assert_array_equal(answer["places"], np.nonzero(x > 0))


def test_such_outputs_cannot_be_written_into_given_arrays() -> None:
    with pytest.raises(UsageError, match="depend on data"):
        _detector(verify=False).run({"x": np.zeros((1, 1, 8), np.float32)}, out={"s": np.zeros((1, 1, 8), np.float32)})


def test_without_the_fallback_the_nodes_are_named() -> None:
    with pytest.raises(UnsupportedError, match=r"NonZero_0 \(NonZero\): the shape of 'places' is not known"):
        _detector(fallback="error")


def test_strings_in_and_out() -> None:
    model = model_of("(string[2] s, string[2] t) => (string[2] u) { u = StringConcat(s, t) }", opset=20)
    plan = vx.compile(model, threads=1)
    assert next(line.status for line in plan.parity if line.name == "plan").startswith("not applicable")
    s, t = np.array(["a", "b"], object), np.array(["c", "d"], object)
    assert plan.run({"s": s, "t": t})["u"].tolist() == ["ac", "bd"]
    with pytest.raises(UsageError, match="takes the inputs s, t: missing t"):
        plan.run({"s": s})
    with pytest.raises(ModelError, match="StringConcat_0"):
        plan.run({"s": s, "t": np.zeros(2, np.float32)})


def test_sequences_out() -> None:
    model = model_of(
        "(float[4] x) => (seq(float[N]) y, float[4] z) { z = Neg(x) y = SplitToSequence(z, two) }", two=np.array(2)
    )
    answer = vx.compile(model, threads=1, verify=False).run({"x": np.float32([1, 2, 3, 4])})
    assert [part.tolist() for part in answer["y"]] == [[-1, -2], [-3, -4]]
    assert answer["z"].tolist() == [-1, -2, -3, -4]


@pytest.mark.parametrize("stored", [[{}], [{"island": 0}], [3], ["x"], 5])
def test_a_damaged_description_is_an_error(stored: object) -> None:
    with pytest.raises(PlanError, match="tails"):
        read_tails(stored)
