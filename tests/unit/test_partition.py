"""Partitions are checked by running them: every segment alone, in order, with what the ones before it made."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator

from tests.unit.graphs import Array, model_of, run_model
from voxelrt.errors import UnsupportedError
from voxelrt.graph.passes import name_nodes
from voxelrt.graph.specialise import specialise
from voxelrt.plan.partition import BETWEEN, FOLLOWS, ISLAND, NATIVE, Segment, partition

REASON = "no kernel"


def _split(model: ir.Model, islanders: set[str]) -> list[Segment]:
    segments, rows = partition(model, lambda node: REASON if node.op_type in islanders else None)
    assert [row.node for row in rows] == [node.name for node in model.graph]
    assert all((row.backend == NATIVE) == (row.why == "") for row in rows)
    return segments


def _run(model: ir.Model, segments: list[Segment], inputs: dict[str, Array]) -> dict[str, Array]:
    values = dict(inputs)
    for segment in segments:
        evaluator = ReferenceEvaluator(segment.onnx_bytes())
        assert evaluator.input_names == [v.name for v in segment.inputs]
        given_values = {name: values[name] for name in evaluator.input_names}  # each is there already
        values.update(zip(evaluator.output_names, evaluator.run(None, given_values), strict=True))
    return {str(v.name): values[str(v.name)] for v in model.graph.outputs}


def _shape(segments: list[Segment]) -> list[tuple[str, list[str]]]:
    return [(s.backend, [n.op_type for n in s.nodes]) for s in segments]


def test_one_island_where_nothing_lies_between() -> None:
    model = specialise(
        model_of("(float[2] x) => (y) { a = Neg(x) b = Exp(a) c = Sin(b) d = Cos(b) e = Add(c, d) y = Abs(e) }"), {}
    )
    segments = _split(model, {"Exp", "Sin", "Cos", "Add"})
    assert _shape(segments) == [(NATIVE, ["Neg"]), (ISLAND, ["Exp", "Sin", "Cos", "Add"]), (NATIVE, ["Abs"])]


def test_an_island_never_waits_for_itself() -> None:
    model = specialise(model_of("(float[2] x) => (y) { a = Exp(x) b = Neg(a) y = Add(a, b) }"), {})
    assert _shape(_split(model, {"Exp", "Add"})) == [(ISLAND, ["Exp"]), (NATIVE, ["Neg"]), (ISLAND, ["Add"])]


def test_an_island_grows_over_levels_where_it_can() -> None:
    body = "(float[2] x, float[2] z) => (y) { n = Neg(x) u = Exp(z) v = Add(u, n) y = Abs(v) }"
    segments = _split(specialise(model_of(body), {}), {"Exp", "Add"})
    assert _shape(segments) == [(NATIVE, ["Neg"]), (ISLAND, ["Exp", "Add"]), (NATIVE, ["Abs"])]


def test_two_islands_that_would_wait_for_each_other_stay_two() -> None:
    body = """(float[2] x, float[2] z) => (y, w) {
        a = Exp(x) b = Sin(z) m = Neg(a) n = Neg(b) c = Add(a, n) d = Mul(b, m) y = Abs(c) w = Abs(d)
    }"""
    model = specialise(model_of(body), {})
    inputs = {"x": np.float32([1, 2]), "z": np.float32([3, 4])}
    answer = _run(model, _split(model, {"Exp", "Sin", "Add", "Mul"}), inputs)
    for name, expected in run_model(model, inputs).items():
        np.testing.assert_array_equal(answer[name], expected)


def test_what_a_body_captures_is_an_input_of_its_island() -> None:
    body = """(int64 m, bool c, float[2] x) => (y) {
        a = Neg(x)
        b = Loop (m, c, x) <body = g (int64 i, bool k, float[2] s) => (bool go, float[2] r) {
            go = Identity(k) p = Mul(a, w) r = Add(s, p) }>
        y = Exp(b)
    }"""
    model = specialise(model_of(body, w=np.float32([3, 4])), {})
    segments = _split(model, {"Loop"})
    assert sorted(str(v.name) for v in segments[1].inputs) == ["a", "c", "m", "x"]
    inputs = {"m": np.array(2), "c": np.array(True), "x": np.float32([1, -0.5])}
    np.testing.assert_allclose(_run(model, segments, inputs)["y"], np.exp(np.float32([-5, 3.5])), rtol=1e-6)


def test_values_that_no_schedule_holds_stay_inside_an_island() -> None:
    body = """(float[4] x) => (y) {
        a = Neg(x) i = NonZero(a) j = Cast <to = 1> (i) k = ReduceSum <keepdims = 0> (j) y = Abs(k)
    }"""
    segments, rows = partition(specialise(model_of(body), {}), lambda node: None)
    assert _shape(segments) == [(NATIVE, ["Neg"]), (ISLAND, ["NonZero", "Cast", "ReduceSum"]), (NATIVE, ["Abs"])]
    assert "'i' is not known" in rows[1].why


def test_nodes_between_two_that_exchange_such_a_value_come_along() -> None:
    body = """(float[4] x) => (y) {
        i = NonZero(x) j = Cast <to = 1> (i) m = ReduceMax <keepdims = 0> (j) n = Neg(m) k = Sub(j, n)
        y = ReduceSum <keepdims = 0> (k)
    }"""
    segments, rows = partition(specialise(model_of(body), {}), lambda node: None)
    assert [len(s.nodes) for s in segments] == [6]
    assert {row.op: row.why for row in rows}["Neg"] == BETWEEN


def test_the_tail_is_what_follows_from_values_at_the_plans_edge() -> None:
    body = "(float[4] x) => (y, z) { a = Neg(x) y = NonZero(a) z = Abs(a) }"
    segments, _ = partition(specialise(model_of(body), {}), lambda node: None)
    assert [(s.tail, [n.op_type for n in s.nodes]) for s in segments] == [(False, ["Neg", "Abs"]), (True, ["NonZero"])]
    body = """(string[2] s, string[2] t, float[2] x) => (y) {
        e = Equal(s, t) c = Cast <to = 1> (e) a = Neg(x) y = Add(a, c)
    }"""
    segments, rows = partition(specialise(model_of(body, opset=19), {}), lambda node: None)
    assert [(s.tail, [n.op_type for n in s.nodes]) for s in segments] == [
        (False, ["Neg"]),
        (True, ["Equal", "Cast", "Add"]),
    ]
    assert [row.why for row in rows][-1] == FOLLOWS


UNARY, BINARY = ("Neg", "Abs", "Sin", "Cos"), ("Add", "Sub", "Mul", "Max")


@st.composite
def _graphs(draw: st.DrawFn) -> tuple[ir.Model, set[str]]:
    names, lines = ["x", "z"], []
    for number in range(draw(st.integers(2, 14))):
        op = draw(st.sampled_from(UNARY + BINARY))
        sources = [draw(st.sampled_from(names)) for _ in range(1 if op in UNARY else 2)]
        names.append(f"v{number}")
        lines.append(f"v{number} = {op}({', '.join(sources)})")
    body = f"(float[3] x, float[3] z) => (float[3] {', float[3] '.join(names[2:])}) {{ {' '.join(lines)} }}"
    model = name_nodes.run(model_of(body))
    outputs = draw(st.sets(st.sampled_from(names[2:]), min_size=1))
    kept = [v for v in model.graph.outputs if v.name in outputs]
    model.graph.outputs.clear()
    model.graph.outputs.extend(kept)
    return specialise(model, {}), draw(st.sets(st.sampled_from(UNARY + BINARY)))


@settings(max_examples=80, deadline=None)
@given(_graphs())
def test_any_partition_of_any_graph_gives_its_answer(case: tuple[ir.Model, set[str]]) -> None:
    model, islanders = case
    segments = _split(model, islanders)
    assert sorted(str(n.name) for s in segments for n in s.nodes) == sorted(str(n.name) for n in model.graph)
    inputs = {"x": np.float32([1, -2, 3]), "z": np.float32([0.5, 4, -1])}
    answer = _run(model, segments, inputs)
    for name, expected in run_model(model, inputs).items():
        np.testing.assert_array_equal(answer[name], expected)


def test_a_long_chain_is_one_island_quickly() -> None:
    lines = "".join(f" v{i + 1} = {'Exp' if i % 2 else 'Sin'}(v{i})" for i in range(2000))
    model = specialise(model_of(f"(float[1] v0) => (v2000) {{{lines} }}"), {})
    assert len(_split(model, {"Exp", "Sin"})) == 1


@pytest.mark.parametrize("islanders", [set(), {"Neg", "Abs"}])
def test_a_graph_of_one_kind_is_one_segment(islanders: set[str]) -> None:
    model = specialise(model_of("(float[2] x) => (y) { a = Neg(x) y = Abs(a) }"), {})
    assert len(_split(model, islanders)) == 1


def test_an_input_that_nothing_can_hold_and_nothing_reads_is_refused_by_name() -> None:
    model = specialise(model_of("(float[2] x, string[2] s) => (y) { y = Neg(x) }"), {})
    with pytest.raises(UnsupportedError, match="s: the dtype STRING"):
        partition(model, lambda node: None)
