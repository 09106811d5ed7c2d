"""Lowering of what comes after a convolution: blocked volumes stay blocked through elementwise functions, reductions,
paddings, cuts and resizing, whatever their number of spatial axes, and the answers are the graph's."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import voxelrt as vx
from tests.unit.graphs import Array, model_of, run_model
from voxelrt.graph.specialise import specialise
from voxelrt.plan.lowering.builder import Builder, WeightTable

SPACE = {1: (9,), 2: (7, 9), 3: (5, 7, 9)}
KEPT = 2  # the input becomes blocked, the output linear
TO_LINEAR = 1  # only the first


def _kernels(model: ir.Model, shape: tuple[int, ...]) -> list[str]:
    graph = specialise(model, {"x": shape}).graph
    builder = Builder(graph, WeightTable())
    for node in graph:
        builder.lower(node)
    return [step.kernel for step in builder.finish().steps]


def _check(body: str, channels: int, axes: int, copies: int, **constants: Array) -> list[str]:
    """Compile ``x -> Conv -> c -> body -> y``, compare with the reference and count the schedule's copies."""
    rng = np.random.default_rng(channels + axes)
    shape = (2, 16, *SPACE[axes])
    model = model_of(
        f"(float[{','.join(map(str, shape))}] x) => (y) "
        f"{{ c = Conv<pads=[{','.join(['1'] * 2 * axes)}]>(x, kernel) {body} }}",
        kernel=rng.normal(0, 0.2, (channels, 16, *[3] * axes)).astype(np.float32),
        **constants,
    )
    x = rng.normal(size=shape).astype(np.float32)
    expected = run_model(model, {"x": x})["y"]
    typed = onnx.shape_inference.infer_shapes(ir.to_proto(model))
    answer = vx.compile(typed, verify=False, fallback="error").run({"x": x})["y"]
    assert answer.dtype == expected.dtype
    np.testing.assert_allclose(answer, expected, rtol=2e-4, atol=1e-4)
    kernels = _kernels(model, shape)
    assert kernels.count("copy") == copies, kernels
    return kernels


@pytest.mark.parametrize("channels", [16, 19])
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_elementwise(axes: int, channels: int) -> None:
    vector = np.linspace(-1, 1, channels, dtype=np.float32).reshape(channels, *[1] * axes)
    scalar = np.float32(0.5)
    for body in (
        "y = Mul(c, scalar)",
        "y = Sub(scalar, c)",
        "y = Add(c, vector)",
        "y = PRelu(c, vector)",
        "s = Sigmoid(c) y = Mul(c, s)",
        "a = Mul(c, vector) t = Tanh(a) y = Max(t, c, a)",
    ):
        _check(body, channels, axes, KEPT, vector=vector, scalar=scalar)


@pytest.mark.parametrize("channels", [16, 19])
def test_a_value_times_its_own_sigmoid_joins_the_convolution(channels: int) -> None:
    for body in ("s = Sigmoid(c) y = Mul(c, s)", "s = Sigmoid(c) y = Mul(s, c)"):
        kernels = _check(body, channels, 2, KEPT)
        assert not any(kernel.startswith("elementwise") for kernel in kernels)
    for body in (  # the sum, the gate, or both are read by others
        "s = Sigmoid(c) p = Mul(c, s) y = Add(p, s)",
        "s = Sigmoid(c) p = Mul(c, s) y = Add(p, c)",
        "s = Sigmoid(c) y = Mul(s, s)",
        "s = Sigmoid(c) t = Tanh(c) y = Mul(s, t)",
    ):
        assert any(kernel.startswith("elementwise") for kernel in _check(body, channels, 2, KEPT))


@pytest.mark.parametrize("channels", [16, 19])
def test_a_function_behind_a_binary_one_joins_it(channels: int) -> None:
    for function in ("Relu", "LeakyRelu<alpha=0.2>", "Sigmoid", "Elu"):
        kernels = _check(f"a = Abs(c) s = Add(a, c) y = {function}(s)", channels, 3, KEPT)
        assert kernels.count("elementwise.unary") == 1
    kernels = _check("a = Abs(c) s = Add(a, c) r = Relu(s) y = Mul(r, s)", channels, 3, KEPT)
    assert kernels.count("elementwise.unary") == 2  # the sum is read twice


@pytest.mark.parametrize("channels", [16, 19])
def test_a_residual_block_reads_its_norms_on_load(channels: int) -> None:
    ones = np.linspace(0.5, 1.5, channels, dtype=np.float32)
    body = "n = InstanceNormalization(c, ones, ones) a = Abs(c) s = Add(n, a) y = Relu(s)"
    assert "elementwise.binary" in _check(body, channels, 3, KEPT, ones=ones)
    vector = ones.reshape(-1, 1, 1, 1)
    body = "n = InstanceNormalization(c, ones, ones) y = Mul(n, vector)"
    _check(body, channels, 3, KEPT + (channels % 16 != 0), ones=ones, vector=vector)


@pytest.mark.parametrize("channels", [16, 19])
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_gates_and_reductions(axes: int, channels: int) -> None:
    space = np.arange(2, 2 + axes)
    _check("m = ReduceMean(c, space) g = Sigmoid(m) y = Mul(c, g)", channels, axes, KEPT, space=space)
    _check("y = ReduceMax<keepdims=0>(c, space)", channels, axes, KEPT, space=space)
    _check("y = ReduceSum(c, channel)", channels, axes, TO_LINEAR, channel=np.array([1]))
    _check("y = ReduceL2<keepdims=0>(c, both)", channels, axes, TO_LINEAR, both=np.array([1, 2]))
    _check("y = ArgMax<axis=1>(c)", channels, axes, TO_LINEAR)
    _check("y = ArgMax<axis=1, keepdims=0>(c)", channels, axes, TO_LINEAR)
    _check("y = Softmax<axis=1>(c)", channels, axes, KEPT)


@pytest.mark.parametrize("channels", [16, 19])
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_paddings_and_cuts(axes: int, channels: int) -> None:
    widths = np.array([0, 0, *range(axes), 0, 0, *[2] * axes])
    for mode in ("constant", "reflect", "edge"):
        _check(f'y = Pad<mode="{mode}">(c, widths)', channels, axes, KEPT, widths=widths)
    _check("y = Pad(c, widths, value)", channels, axes, KEPT, widths=widths, value=np.float32(3))
    ends, steps = {"start": np.array([1]), "end": np.array([6]), "axis": np.array([2])}, {"step": np.array([2])}
    _check("y = Slice(c, start, end, axis, step)", channels, axes, KEPT + 1, **ends, **steps)
    last = {"start": np.array([16]), "end": np.array([99]), "axis": np.array([1])}
    _check("y = Slice(c, start, end, axis)", channels + 8, axes, KEPT + 1, **last)
    backwards = {"start": np.array([-1]), "end": np.array([-99]), "axis": np.array([2]), "step": np.array([-1])}
    _check("y = Slice(c, start, end, axis, step)", channels, axes, KEPT, **backwards)
    _check("a, d = Split<axis=2, num_outputs=2>(c) y = Concat<axis=2>(a, d)", channels, axes, KEPT + 4)


def test_negative_paddings_take_away_before_anything_is_added() -> None:
    x = np.arange(30, dtype=np.float32).reshape(5, 6)
    for mode in ("constant", "reflect", "edge", "wrap"):
        body = f'(float[5,6] x) => (float[5,7] y) {{ y = Pad<mode="{mode}">(x, widths) }}'
        model = model_of(body, opset=19, widths=np.array([-1, 2, 1, -1]))
        answer = vx.compile(ir.to_proto(model), verify=False, fallback="error").run({"x": x})["y"]
        np.testing.assert_array_equal(answer, np.pad(x[1:, :-1], ((0, 1), (2, 0)), mode=mode))  # type: ignore[call-overload]


@pytest.mark.parametrize("channels", [16, 19])
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_resizing(axes: int, channels: int) -> None:
    scales = np.array([1, 1, 2, 1.5, 0.5][: 2 + axes], np.float32)
    for mode in ("nearest", "linear"):
        kernels = _check(f'y = Resize<mode="{mode}">(c, , scales)', channels, axes, KEPT, scales=scales)
        assert kernels.count("resize") == 1
