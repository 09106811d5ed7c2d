"""If at run time: both branches in one graph, only the one that is taken runs, and the answer is that of the If."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

import voxelrt as vx
from voxelrt.errors import VoxelRTError
from voxelrt.graph.specialise import specialise

HEAD = '<ir_version: 10, opset_import: ["" : 20]>\n'
TWO = (
    HEAD
    + """two (float[2, 16, 5, 6] x, int64 which, int64[1] row) => (float[2, 16, 5, 6] y, float[2, 16] z) {
  limit = Constant<value = int64 {1}>()
  flag = Equal(which, limit)
  before = Relu(x)
  y, z = If(flag) <
    then_branch = left () => (float[2, 16, 5, 6] a, float[2, 16] b) {
      scale = Constant<value = float {2.0}>()
      a = Mul(before, scale)
      pooled = GlobalAveragePool(a)
      to = Constant<value = int64[2] {2, 16}>()
      b = Reshape(pooled, to)
    },
    else_branch = right () => (float[2, 16, 5, 6] c, float[2, 16] d) {
      moved = Sin(before)
      c = Sqrt(moved)
      rows = Gather<axis = 2>(c, row)
      one = Constant<value = int64[1] {2}>()
      flat = ReduceMean<keepdims = 0>(rows, one)
      last = Constant<value = int64[1] {2}>()
      d = ReduceMax<keepdims = 0>(flat, last)
    }
  >
}"""
)


def _model(text: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(text)


def _inputs(which: int, row: int = 3) -> dict[str, NDArray[Any]]:
    x = np.random.default_rng(3).normal(size=(2, 16, 5, 6)).astype(np.float32) ** 2
    return {"x": x, "which": np.array(which, np.int64), "row": np.array([row], np.int64)}


def test_branches_become_selections_and_the_answer_is_the_same() -> None:
    model = _model(TWO)
    flat = specialise(ir.from_proto(model), {})
    ops = Counter(node.op_type for node in flat.graph)
    assert ops["If"] == 0
    assert ops["Where"] == 2
    for which in (0, 1, 7):
        given = _inputs(which)
        expected = ReferenceEvaluator(model).run(None, given)
        for found, wanted in zip(ReferenceEvaluator(ir.to_proto(flat)).run(None, given), expected, strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_only_the_branch_that_is_taken_runs() -> None:
    """A row that is not there stops the run in the branch that reads it, and nowhere else."""
    plan = vx.compile(ir.from_proto(_model(TWO)), fallback="error", tune="off")
    assert plan.parity[1].status.startswith("measured")
    for which, row in ((1, 3), (0, 3), (1, 400)):
        given = _inputs(which, row)
        expected = ReferenceEvaluator(_model(TWO)).run(None, given)
        for found, wanted in zip(plan.run(given).values(), expected, strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-5)
    with pytest.raises(VoxelRTError, match="gather"):
        plan.run(_inputs(0, 400))


def test_a_branch_in_a_branch() -> None:
    inner = """If(deep) <
        then_branch = one () => (float[4] p) { p = Exp(m) },
        else_branch = two () => (float[4] q) { q = Gather(m, places) }
      >"""
    text = (
        HEAD
        + f"""nested (float[4] x, bool[1] outer, bool deep, int64[4] places) => (float[4] y) {{
      y = If(outer) <
        then_branch = a () => (float[4] r) {{ m = Neg(x) r = {inner} }},
        else_branch = b () => (float[4] s) {{ s = Abs(x) }}
      >
    }}"""
    )
    model = _model(text)
    plan = vx.compile(ir.from_proto(model), fallback="error", tune="off", verify=False)
    x = np.array([1, -2, 3, -4], np.float32)
    for outer in (False, True):
        for deep in (False, True):
            wrong = outer and not deep
            places = np.array([3, 2, 1, 0] if wrong else [9, 9, 9, 9], np.int64)
            given = {"x": x, "outer": np.array([outer]), "deep": np.array(deep), "places": places}
            (expected,) = ReferenceEvaluator(model).run(None, given)
            np.testing.assert_allclose(plan.run(given)["y"], expected, rtol=1e-6)


def test_a_copy_that_one_branch_made_is_not_read_in_another() -> None:
    """Both branches and the rest read the same blocked volume in another layout."""
    text = (
        HEAD
        + """shared (float[1, 16, 4, 4] x, bool flag) => (float[1, 16, 4, 4] y, float[1, 256] z) {
      h = MaxPool<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(x)
      y = If(flag) <
        then_branch = a () => (float[1, 16, 4, 4] r) { r = Softmax<axis = 3>(h) },
        else_branch = b () => (float[1, 16, 4, 4] s) { s = Softmax<axis = 2>(h) }
      >
      z = Flatten(h)
    }"""
    )
    model = _model(text)
    plan = vx.compile(ir.from_proto(model), fallback="error", tune="off", verify=False)
    x = np.random.default_rng(1).normal(size=(1, 16, 4, 4)).astype(np.float32)
    for flag in (True, False, True):
        given = {"x": x, "flag": np.array(flag)}
        for found, wanted in zip(plan.run(given).values(), ReferenceEvaluator(model).run(None, given), strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_a_branch_that_cannot_run_on_the_shapes_is_an_error_when_it_is_asked_for() -> None:
    text = (
        HEAD
        + """odd (float[2, n] x, int64 which) => (float[2, m] y) {
      limit = Constant<value = int64 {1}>()
      flag = Equal(which, limit)
      y = If(flag) <
        then_branch = a () => (float[2, k] r) {
          four = Constant<value = float[1, 4] {1.0, 2.0, 3.0, 4.0}>()
          r = Add(x, four)
        },
        else_branch = b () => (float[2, l] s) {
          three = Constant<value = float[1, 3] {1.0, 2.0, 3.0}>()
          s = Add(x, three)
        }
      >
    }"""
    )
    plan = vx.compile(ir.from_proto(_model(text)), shapes={"x": (2, 4)}, fallback="error", tune="off")
    assert plan.parity[1].status.startswith("measured"), "the inputs made up for it take the branch that can run"
    x = np.ones((2, 4), np.float32)
    np.testing.assert_array_equal(
        plan.run({"x": x, "which": np.array(1, np.int64)})["y"], x + np.arange(1, 5, dtype=np.float32)
    )
    with pytest.raises(VoxelRTError, match="condition is false, which cannot run on inputs of these shapes"):
        plan.run({"x": x, "which": np.array(2, np.int64)})


def test_branches_of_other_shapes_stay() -> None:
    text = (
        HEAD
        + """sizes (float[2, 4] x, bool flag) => (float[n, m] y) {
      y = If(flag) <
        then_branch = a () => (float[2, 4] r) { r = Neg(x) },
        else_branch = b () => (float[4, 2] s) { s = Transpose<perm = [1, 0]>(x) }
      >
    }"""
    )
    flat = specialise(ir.from_proto(_model(text)), {})
    assert [node.op_type for node in flat.graph] == ["If"]
