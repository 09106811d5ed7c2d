"""Plans run step by step: states that go from one step to the next."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

import voxelrt as vx
from voxelrt.errors import ShapeError, UsageError

F32 = onnx.TensorProto.FLOAT
STATES = {"hn0": "h0", "cn0": "c0", "hn1": "h1"}


def stacked(steps: int, opset: int = 21) -> bytes:
    """An LSTM and a GRU behind it, their states in and out; ``steps`` of a batch of two."""
    rng = np.random.default_rng(4)
    weights = {
        "w0": rng.normal(0, 0.4, (1, 4 * 19, 5)),
        "r0": rng.normal(0, 0.4, (1, 4 * 19, 19)),
        "w1": rng.normal(0, 0.4, (1, 3 * 7, 19)),
        "r1": rng.normal(0, 0.4, (1, 3 * 7, 7)),
    }
    nodes = [
        helper.make_node("LSTM", ["x", "w0", "r0", "", "", "h0", "c0"], ["y0", "hn0", "cn0"], hidden_size=19),
        helper.make_node("Squeeze", ["y0", "one"], ["s0"]),
        helper.make_node("GRU", ["s0", "w1", "r1", "", "", "h1"], ["y1", "hn1"], hidden_size=7),
        helper.make_node("Squeeze", ["y1", "one"], ["y"]),
    ]
    shapes = {"x": (steps, 2, 5), "h0": (1, 2, 19), "c0": (1, 2, 19), "h1": (1, 2, 7)}
    made = {"y": (steps, 2, 7), "hn0": (1, 2, 19), "cn0": (1, 2, 19), "hn1": (1, 2, 7)}
    graph = helper.make_graph(
        nodes,
        "stacked",
        [helper.make_tensor_value_info(n, F32, s) for n, s in shapes.items()],
        [helper.make_tensor_value_info(n, F32, s) for n, s in made.items()],
        [onnx.numpy_helper.from_array(v.astype(np.float32), n) for n, v in weights.items()]
        + [onnx.numpy_helper.from_array(np.array([1], np.int64), "one")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    return model.SerializeToString()


def plan_of(steps: int) -> vx.Plan:
    return vx.compile(stacked(steps), fallback="error", verify=False, threads=1)


def states() -> dict[str, Any]:
    rng = np.random.default_rng(9)
    return {n: rng.normal(size=(1, 2, k)).astype(np.float32) for n, k in (("h0", 19), ("c0", 19), ("h1", 7))}


@pytest.mark.parametrize("chunk", [1, 4])
def test_a_stream_is_the_whole_sequence(chunk: int) -> None:
    """Bit for bit: a chunk's numbers do not depend on how the sequence is cut."""
    x = np.random.default_rng(1).normal(size=(12, 2, 5)).astype(np.float32)
    first = states()
    whole = plan_of(12).run({"x": x, **first})
    stream = plan_of(chunk).stream(STATES, first=first)
    pieces = [stream({"x": x[t : t + chunk]}) for t in range(0, 12, chunk)]
    assert set(pieces[0]) == {"y"}
    np.testing.assert_array_equal(np.concatenate([piece["y"] for piece in pieces]), whole["y"])
    assert stream.steps == 12 // chunk
    for output, name in STATES.items():
        np.testing.assert_array_equal(stream.state[name], whole[output])


def test_streams_of_one_plan_do_not_meet_and_can_be_taken_up_again() -> None:
    x = np.random.default_rng(2).normal(size=(4, 1, 2, 5)).astype(np.float32)
    plan = plan_of(1)
    one, other = plan.stream(STATES), plan.stream(STATES)
    alone = [one({"x": step})["y"] for step in x]
    one.reset()
    again = []
    for step in x[:2]:
        again.append(one({"x": step})["y"])
        other({"x": -step})
    kept = one.state
    one({"x": -x[0]})
    one.restore(kept)
    again += [one({"x": step})["y"] for step in x[2:]]
    np.testing.assert_array_equal(np.stack(again), np.stack(alone))


def test_a_failed_step_leaves_the_state() -> None:
    stream = plan_of(1).stream(STATES)
    stream({"x": np.ones((1, 2, 5), np.float32)})
    before = stream.state
    with pytest.raises(ShapeError):
        stream({"x": np.ones((1, 2, 5), np.float64)})
    for name, array in stream.state.items():
        np.testing.assert_array_equal(array, before[name])
    assert stream.steps == 1


def test_what_is_refused() -> None:
    plan = plan_of(1)
    with pytest.raises(UsageError, match="needs states"):
        plan.stream({})
    with pytest.raises(UsageError, match="no output 'hn'"):
        plan.stream({"hn": "h0"})
    with pytest.raises(UsageError, match="no input 'h'"):
        plan.stream({"hn0": "h"})
    with pytest.raises(ShapeError, match=r"hn1 \(1, 2, 7\) cannot be the input h0"):
        plan.stream({"hn1": "h0"})
    with pytest.raises(UsageError, match="two outputs"):
        plan.stream({"hn0": "h0", "cn0": "h0"})
    with pytest.raises(ShapeError, match="float64"):
        plan.stream(STATES, first={"h0": np.zeros((1, 2, 19))})
    with pytest.raises(UsageError, match="first has arrays for x"):
        plan.stream(STATES, first={"x": np.zeros((1, 2, 5), np.float32)})
    with pytest.raises(UsageError, match="is a state of the stream"):
        plan.stream(STATES)({"x": np.zeros((1, 2, 5), np.float32), "h0": np.zeros((1, 2, 19), np.float32)})


def test_long_windows_of_a_signal_are_one_product() -> None:
    """What a short-time Fourier transform is in a graph: a Conv of one channel and many taps."""
    rng = np.random.default_rng(3)
    weight, bias = rng.normal(size=(10, 1, 200)), rng.normal(size=10)
    node = helper.make_node("Conv", ["x", "w", "b"], ["y"], strides=[50], dilations=[2])
    graph = helper.make_graph(
        [node],
        "frames",
        [helper.make_tensor_value_info("x", F32, (3, 1, 999))],
        [helper.make_tensor_value_info("y", F32, (3, 10, 13))],
        [onnx.numpy_helper.from_array(v.astype(np.float32), n) for n, v in (("w", weight), ("b", bias))],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    x = rng.normal(size=(3, 1, 999)).astype(np.float32)
    expected = np.stack([weight[:, 0] @ x[:, 0, 50 * t : 50 * t + 399 : 2].T.astype(float) for t in range(13)], -1)
    expected = expected.transpose(1, 0, 2) + bias[:, None]
    found = vx.compile(model.SerializeToString(), fallback="error", verify=False).run({"x": x})["y"]
    assert np.linalg.norm(found - expected) < 1e-6 * np.linalg.norm(expected)
