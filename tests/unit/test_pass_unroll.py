"""Loops and scans of known length become their iterations; the answers stay; all others stay as they are."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

import voxelrt as vx
from tests.unit.graphs import Array, model_of, ops, run_model, same_answers
from voxelrt.graph.spec import verify
from voxelrt.graph.specialise import specialise

LOOP = """(float[2] x) => (float[2] y, float[k, 2] rows) {{
    trips = Constant <value_int = {trips}> ()
    y, rows = Loop (trips, start, x) <body = b (int64 i, bool go, float[2] s) =>
        (bool more, float[2] t, float[2] row) {{
            n = Cast <to = 1> (i)
            p = Add(s, n)
            t = Mul(p, w)
            row = Neg(t)
            {condition}
        }}>
}}"""

SCAN = """(float[3, 4] x, float[2, 3] z) => (float[3] last, float[{rows}] rows) {{
    start = Constant <value_floats = [1.0, 2.0, 3.0]> ()
    last, rows = Scan (start, x, z) <num_scan_inputs = 2, scan_input_axes = [1, {axis}],
        scan_input_directions = [0, {back}], scan_output_axes = [{out_axis}], scan_output_directions = [{out_back}],
        body = b (float[3] s, float[3] a, float[3] c) => (float[3] t, float[3] row) {{
            p = Mul(s, a)
            t = Add(p, c)
            row = Tanh(t)
        }}>
}}"""


def _loop(condition: str = "more = Identity(go)", trips: int = 3, start: bool = True) -> ir.Model:
    return model_of(
        LOOP.format(condition=condition, trips=trips), start=np.array(start), w=np.float32([0.5, -2]), two=np.array(2)
    )


def _unrolled(model: ir.Model, shapes: dict[str, tuple[int, ...]] | None = None) -> ir.Model:
    after = specialise(model, shapes or {})
    verify(after)
    return after


@pytest.mark.parametrize(
    ("condition", "trips"),
    [
        ("more = Identity(go)", 3),
        ("more = Identity(start)", 4),
        ("more = Less(i, two)", 9),  # three iterations: 0, 1 and 2, behind which it ends
        ("always = Constant <value_int = 1> () more = Cast <to = 9> (always)", 1),
    ],
)
def test_a_loop_becomes_its_iterations(condition: str, trips: int) -> None:
    after = _unrolled(_loop(condition, trips))
    assert "Loop" not in ops(after)
    assert ops(after).count("Mul") == (3 if "Less" in condition else trips)
    same_answers(_loop(condition, trips), after, {"x": np.float32([5, 7])})


def test_a_state_that_is_known_ends_a_loop() -> None:
    body = """(float[2] x) => (float[2] y) {
        zero = Constant <value_int = 0> ()
        y, n = Loop (trips, start, x, zero) <body = b (int64 i, bool go, float[2] s, int64 m) =>
            (bool more, float[2] t, int64 p) { t = Add(s, s) p = Add(m, two) more = Less(p, seven) }>
    }"""
    constants = {"trips": np.array(99), "start": np.array(True), "two": np.array(2), "seven": np.array(7)}
    after = _unrolled(model_of(body, **constants))
    assert ops(after) == ["Add"] * 4
    same_answers(model_of(body, **constants), after, {"x": np.float32([1, 3])})


@pytest.mark.parametrize(
    "model",
    [
        _loop("sum = ReduceSum <keepdims = 0> (t) zero = Constant <value_float = 0.0> () more = Greater(sum, zero)"),
        _loop(trips=1 << 60),
        _loop(trips=0),
        _loop(start=False),
    ],
    ids=["data", "too many", "none", "never"],
)
def test_a_loop_whose_length_is_not_known_or_without_bound_stays(model: ir.Model) -> None:
    assert "Loop" in ops(specialise(model, {}))


def test_a_loop_that_never_runs_hands_its_states_on() -> None:
    body = """(float[2] x) => (float[2] y) {
        y = Loop (none, , x) <body = b (int64 i, bool go, float[2] s) => (bool more, float[2] t) {
            t = Neg(s) more = Identity(go) }>
    }"""
    after = _unrolled(model_of(body, none=np.array(0)))
    assert ops(after) == ["Identity"]
    same_answers(model_of(body, none=np.array(0)), after, {"x": np.float32([1, 3])})


def test_states_may_grow_and_loops_may_nest() -> None:
    body = """(float[n] x) => (float[m] y) {
        y = Loop (three, , x) <body = b (int64 i, bool go, float[k] s) => (bool more, float[l] t) {
            u = Loop (two, , s) <body = c (int64 j, bool on, float[k] p) => (bool still, float[k] q) {
                q = Mul(p, p) still = Identity(on) }>
            t = Concat <axis = 0> (s, u)
            more = Identity(go) }>
    }"""
    constants = {"three": np.array(3), "two": np.array(2)}
    after = _unrolled(model_of(body, **constants), {"x": (2,)})
    assert sorted(set(ops(after))) == ["Concat", "Mul"]
    found = run_model(after, {"x": np.float32([0.5, -1.5])})["y"]
    expected = np.float32([0.5, -1.5])
    for _ in range(3):
        expected = np.concatenate([expected, (expected**2) ** 2])
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("back", [0, 1])
@pytest.mark.parametrize("out_axis", [0, 1, -1])
def test_a_scan_becomes_its_iterations(back: int, out_axis: int) -> None:
    rows = "2, 3" if out_axis == 0 else "3, 2"
    text = SCAN.format(axis=0, back=back, out_axis=out_axis, out_back=1 - back, rows=rows)
    rng = np.random.default_rng(3)
    x, z = rng.standard_normal((3, 2), np.float32), rng.standard_normal((2, 3), np.float32)
    text = text.replace("float[3, 4] x", "float[3, 2] x")
    after = _unrolled(model_of(text))
    assert "Scan" not in ops(after)
    assert ops(after).count("Tanh") == 2
    found = run_model(after, {"x": x, "z": z})
    state, made = np.float32([1, 2, 3]), []
    for step in range(2):
        state = state * x[:, step] + z[1 - step if back else step]
        made.append(np.tanh(state))
    expected = np.stack(made if back else made[::-1], out_axis)
    np.testing.assert_allclose(found["last"], state, rtol=1e-6)
    np.testing.assert_allclose(found["rows"], expected, rtol=1e-6)


def test_a_scan_over_an_open_or_endless_axis_stays_where_it_is() -> None:
    text = "(float[3] s, float[n] x) => (float[3] t) { t = Scan (s, x) <num_scan_inputs = 1, body = b "
    text += "(float[3] p, float a) => (float[3] q) { q = Mul(p, a) }> }"
    assert "Scan" in ops(specialise(model_of(text), {"x": (100_000,)}))
    assert "Scan" not in ops(specialise(model_of(text), {"x": (10,)}))


def test_unrolled_loops_and_scans_run_natively() -> None:
    for model, inputs in (
        (_loop(), {"x": np.float32([5, 7])}),
        (
            model_of(SCAN.format(axis=0, back=1, out_axis=0, out_back=0, rows="2, 3").replace("3, 4", "3, 2")),
            {"x": np.float32([[1, 2], [3, 4], [5, 6]]), "z": np.float32([[1, 0, 1], [0.5, 2, -1]])},
        ),
    ):
        plan = vx.compile(model, fallback="error", verify=False)
        expected: dict[str, Array] = run_model(specialise(model, {}), inputs)
        for name, answer in plan.run(inputs).items():
            np.testing.assert_allclose(answer, expected[name], rtol=1e-6)
