"""Recurrent layers: a literal worked by hand, ONNX Runtime's answers, threads, lengths, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from voxelrt.compile import compile
from voxelrt.errors import ShapeError, UsageError, VoxelRTError
from voxelrt.kernels import gru, lstm, rnn
from voxelrt.kernels.common import native
from voxelrt.kernels.common.kernel import compare
from voxelrt.kernels.lstm.layer import RecurrentLayer
from voxelrt.kernels.lstm.oracle import lstm as oracle

F32 = onnx.TensorProto.FLOAT


def test_one_cell_by_hand() -> None:
    """One unit, two steps of x = 1 and x = 2; weights of i, o, f, c are 1, 2, 3, 4, of the state 0.5, biases zero."""

    def sigmoid(v: float) -> float:
        return 1 / (1 + math.exp(-v))

    w = np.array([1, 2, 3, 4], np.float32).reshape(1, 4, 1)
    r = np.full((1, 4, 1), 0.5, np.float32)
    c1 = sigmoid(1) * math.tanh(4)
    h1 = sigmoid(2) * math.tanh(c1)
    c2 = sigmoid(6 + 0.5 * h1) * c1 + sigmoid(2 + 0.5 * h1) * math.tanh(8 + 0.5 * h1)
    h2 = sigmoid(4 + 0.5 * h1) * math.tanh(c2)
    y, h, c = lstm(np.array([1, 2], np.float32).reshape(2, 1, 1), w, r)
    np.testing.assert_allclose(y.ravel(), [h1, h2], rtol=2e-7)
    np.testing.assert_allclose([h.item(), c.item()], [h2, c2], rtol=2e-7)


def test_a_reversed_layer_ends_at_the_beginning() -> None:
    """Reversing a padded sequence reverses its own steps, not the padding."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(6, 2, 3)).astype(np.float32)
    w, r = (rng.normal(0, 0.4, (1, 12, n)).astype(np.float32) for n in (3, 4))
    lengths = np.array([6, 4], np.int32)
    y, h = gru(x, w, r, lengths=lengths, direction="reverse")
    alone, alone_h = gru(x[3::-1, 1:], w, r)
    np.testing.assert_array_equal(y[:4, 0, 1], alone[::-1, 0, 0])
    np.testing.assert_array_equal(h[0, 1], alone_h[0, 0])
    assert not y[4:, 0, 1].any()


@pytest.mark.parametrize(
    ("cell", "batch", "direction", "hidden"),
    [
        ("lstm", 1, "forward", 150),
        ("lstm", 1, "bidirectional", 150),
        ("gru", 1, "reverse", 200),
        ("gru", 9, "bidirectional", 150),
        ("lstm", 9, "bidirectional", 260),  # each step is cut although there are several chains
    ],
)
def test_results_do_not_depend_on_the_threads(cell: str, batch: int, direction: str, hidden: int) -> None:
    rng = np.random.default_rng(5)
    layer = RecurrentLayer(cell, hidden, direction)
    gates = rng.normal(size=(11, batch, layer.columns)).astype(np.float32)
    r = rng.normal(0, 0.1, (layer.directions, layer.gates * hidden, hidden)).astype(np.float32)
    weights = native.pack_weight("lstm", r, **layer.params())
    answers = []
    for threads in (1, 2, 3, 5):
        y = native.aligned_empty((11, layer.directions, batch, hidden), np.float32)
        pool = native.Pool(threads)
        native.run_kernel("lstm", [gates, weights], [y], pool=pool, **layer.params())
        answers.append(y)
    assert np.isfinite(answers[0]).all()
    for other in answers[1:]:
        np.testing.assert_array_equal(other, answers[0])


def test_a_row_does_not_depend_on_the_batch_it_is_in() -> None:
    rng = np.random.default_rng(6)
    x = rng.normal(size=(5, 13, 8)).astype(np.float32)
    w, r = (rng.normal(0, 0.3, (1, 80, n)).astype(np.float32) for n in (8, 20))
    y = lstm(x, w, r)[0]
    for n in (0, 7, 8, 12):
        np.testing.assert_array_equal(lstm(x[:, n : n + 1], w, r)[0][:, :, 0], y[:, :, n])


def test_nan_stays_in_its_sequence() -> None:
    rng = np.random.default_rng(7)
    x = rng.normal(size=(4, 3, 5)).astype(np.float32)
    x[2, 1, 0] = np.nan
    w, r = (rng.normal(0, 0.3, (1, 9, n)).astype(np.float32) for n in (5, 9))
    y = rnn(x, w, r)[0][:, 0]
    assert np.isnan(y[2:, 1]).all()
    assert np.isfinite(y[:2, 1]).all()
    assert np.isfinite(y[:, [0, 2]]).all()


def test_what_is_refused() -> None:
    x, w, r = np.zeros((2, 3, 4), np.float32), np.zeros((1, 20, 4), np.float32), np.zeros((1, 20, 5), np.float32)
    with pytest.raises(ShapeError, match="float64"):
        lstm(x.astype(np.float64), w, r)
    with pytest.raises(ShapeError, match=r"W has the shape \(1, 20, 4\)"):
        lstm(x, w, w)
    with pytest.raises(ShapeError, match=r"R has the shape \(1, 25, 5\)"):
        lstm(x, w, np.zeros((1, 25, 5), np.float32))
    with pytest.raises(ShapeError, match="3 features and W takes 4"):
        lstm(x[..., :3], w, r)
    with pytest.raises(VoxelRTError, match="a sequence of 3 steps in a batch of 2 steps"):
        lstm(x, w, r, lengths=np.array([1, 3, 2]))
    with pytest.raises(UsageError, match="'sideways'"):
        lstm(x, w, r, direction="sideways")
    with pytest.raises(UsageError, match="'Swish'"):
        rnn(x, w[:, :5], r[:, :5], activations=[("Swish", None, None)])
    with pytest.raises(UsageError, match="positive"):
        lstm(x, w, r, clip=-1.0)


def _model(cell: str, hidden: int, rng: np.random.Generator, layout: int, lengths: bool, **attributes: Any) -> Any:
    """A node with constant weights and all its run-time inputs and outputs; and arrays for the inputs."""
    D = 2 if attributes.get("direction") == "bidirectional" else 1
    G, steps, batch, inputs = {"LSTM": 4, "GRU": 3, "RNN": 1}[cell], 7, 3, 6
    weights = {
        "W": rng.normal(0, 0.4, (D, G * hidden, inputs)),
        "R": rng.normal(0, 0.4, (D, G * hidden, hidden)),
        "B": rng.normal(0, 0.4, (D, 2 * G * hidden)),
    }
    state = (batch, D, hidden) if layout else (D, batch, hidden)
    given = {"X": rng.normal(0, 1, (batch, steps, inputs) if layout else (steps, batch, inputs))}
    given["h"] = rng.normal(0, 1, state)
    names = ["X", "W", "R", "B", "", "h"]
    outputs = {"Y": (batch, steps, D, hidden) if layout else (steps, D, batch, hidden), "Yh": state}
    if cell == "LSTM":
        given["c"] = rng.normal(0, 1, state)
        weights["P"] = rng.normal(0, 0.4, (D, 3 * hidden))
        names += ["c", "P"]
        outputs["Yc"] = state
    arrays = {name: value.astype(np.float32) for name, value in given.items()}
    if lengths:
        names[4] = "lengths"
        arrays["lengths"] = np.array([7, 3, 5], np.int32)
    node = helper.make_node(cell, names, list(outputs), hidden_size=hidden, layout=layout, **attributes)
    graph = helper.make_graph(
        [node],
        "one layer",
        [
            helper.make_tensor_value_info(n, onnx.TensorProto.INT32 if n == "lengths" else F32, a.shape)
            for n, a in arrays.items()
        ],
        [helper.make_tensor_value_info(n, F32, shape) for n, shape in outputs.items()],
        [onnx.numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), arrays


@pytest.mark.parametrize(
    ("cell", "hidden", "attributes"),
    [
        ("LSTM", 11, {}),
        ("LSTM", 32, {"direction": "reverse"}),
        ("LSTM", 17, {"direction": "bidirectional"}),
        ("LSTM", 5, {"input_forget": 1}),
        ("LSTM", 8, {"clip": 0.5}),
        (
            "LSTM",
            5,
            {"activations": ["Sigmoid", "Softsign", "ScaledTanh"], "activation_alpha": [1.5], "activation_beta": [0.5]},
        ),
        ("GRU", 11, {}),
        ("GRU", 21, {"direction": "bidirectional", "linear_before_reset": 1}),
        ("GRU", 9, {"clip": 0.6, "direction": "reverse"}),
        (
            "GRU",
            5,
            {"activations": ["HardSigmoid", "LeakyRelu"], "activation_alpha": [0.3, 0.05], "activation_beta": [0.4]},
        ),
        ("RNN", 18, {"direction": "bidirectional"}),
        ("RNN", 3, {"activations": ["Affine"], "activation_alpha": [0.5], "activation_beta": [0.1]}),
    ],
)
@pytest.mark.parametrize("lengths", [False, True])
def test_nodes_agree_with_onnxruntime(cell: str, hidden: int, attributes: dict[str, Any], lengths: bool) -> None:
    ort = pytest.importorskip("onnxruntime")
    model, arrays = _model(cell, hidden, np.random.default_rng(hidden), 0, lengths, **attributes)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    expected = session.run(None, arrays)
    plan = compile(model.SerializeToString(), fallback="error", verify=False)
    for (name, found), reference in zip(plan.run(arrays).items(), expected, strict=True):
        assert compare(found, reference).relative < 2e-6, name


@pytest.mark.parametrize("cell", ["LSTM", "GRU", "RNN"])
def test_batch_first_is_the_same_layer(cell: str) -> None:
    """ONNX Runtime has no layout 1; the two layouts are compared with each other."""
    attributes = {"direction": "bidirectional"}
    plain, arrays = _model(cell, 13, np.random.default_rng(1), 0, True, **attributes)
    turned, _ = _model(cell, 13, np.random.default_rng(1), 1, True, **attributes)
    expected = compile(plain.SerializeToString(), fallback="error", verify=False).run(arrays)
    given = {n: a if n == "lengths" else np.ascontiguousarray(a.swapaxes(0, 1)) for n, a in arrays.items()}
    found = compile(turned.SerializeToString(), fallback="error", verify=False).run(given)
    np.testing.assert_array_equal(found["Y"], expected["Y"].transpose(2, 0, 1, 3))
    for name in set(found) - {"Y"}:
        np.testing.assert_array_equal(found[name], expected[name].swapaxes(0, 1))


def test_both_directions_are_joined_without_a_copy() -> None:
    """What torch exports behind a bidirectional layer: Transpose and Reshape. The layer writes what they would make."""
    rng = np.random.default_rng(2)
    w, r = (rng.normal(0, 0.3, (2, 80, n)).astype(np.float32) for n in (6, 20))
    nodes = [
        helper.make_node("LSTM", ["X", "W", "R"], ["Y"], hidden_size=20, direction="bidirectional"),
        helper.make_node("Transpose", ["Y"], ["turned"], perm=[0, 2, 1, 3]),
        helper.make_node("Reshape", ["turned", "shape"], ["joined"]),
        helper.make_node("Relu", ["joined"], ["out"]),
    ]
    graph = helper.make_graph(
        nodes,
        "joined",
        [helper.make_tensor_value_info("X", F32, (5, 3, 6))],
        [helper.make_tensor_value_info("out", F32, (5, 3, 40))],
        [
            onnx.numpy_helper.from_array(v, n)
            for n, v in (("W", w), ("R", r), ("shape", np.array([0, 0, -1], np.int64)))
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    plan = compile(model.SerializeToString(), fallback="error", verify=False)
    x = rng.normal(size=(5, 3, 6)).astype(np.float32)
    expected = oracle(x, w, r, direction="bidirectional")[0].transpose(0, 2, 1, 3).reshape(5, 3, 40)
    assert compare(plan.run({"X": x})["out"], np.maximum(expected, 0)).relative < 1e-6
    assert plan.variants[0][3] == 3  # the product, the layer, Relu
