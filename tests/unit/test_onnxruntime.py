"""Islands run on memory they are given; skipped by name where the extra is missing."""

from __future__ import annotations

import importlib.util
import json
import sys

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest

from tests.unit.graphs import model_of
from voxelrt.backends import onnxruntime as backend
from voxelrt.errors import MissingExtraError, ModelError, PlanError, UnsupportedError
from voxelrt.graph.passes import name_nodes
from voxelrt.graph.specialise import specialise
from voxelrt.plan.islands import make_island

needs_runtime = pytest.mark.skipif(
    importlib.util.find_spec("onnxruntime") is None,
    reason="onnxruntime is not installed (pip install 'voxelrt[onnxruntime]')",
)


def _island(body: str, which: set[str], opset: int = 20, **arrays: np.ndarray) -> tuple[bytes, list[str], list[str]]:
    model = specialise(model_of(body, opset=opset, **arrays), {})
    data, inputs, outputs = make_island(model, [n for n in model.graph if n.op_type in which])
    return data, [str(v.name) for v in inputs], [str(v.name) for v in outputs]


W = np.float32([1, 2, 3])
BODY = "(float[2,3] x) => (y, c) { a = Neg(x) b = Add(a, w) c = Exp(b) d = Mul(b, c) y = Abs(d) }"


def test_an_island_is_a_model_of_its_own() -> None:
    data, inputs, outputs = _island(BODY, {"Add", "Exp", "Mul"}, w=W)
    assert (inputs, outputs) == (["a"], ["c", "d"])
    model = ir.from_proto(onnx.ModelProto.FromString(data))
    assert [n.op_type for n in model.graph] == ["Add", "Exp", "Mul"]
    assert list(model.graph.initializers) == ["w"]


@needs_runtime
def test_outputs_are_written_in_place() -> None:
    data, _, _ = _island(BODY, {"Add", "Exp", "Mul"}, w=W)
    island = backend.Island(data, 1)
    arena = np.full(18, np.nan, np.float32)
    a, c, d = (arena[i : i + 6].reshape(2, 3) for i in (0, 6, 12))
    for seed in (0, 1):  # a second run binds anew
        a[:] = np.random.default_rng(seed).standard_normal((2, 3))
        island.run([a], [c, d])
        np.testing.assert_allclose(c, np.exp(a + W), rtol=1e-6)
        np.testing.assert_allclose(d, (a + W) * c, rtol=1e-6)


@needs_runtime
@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16", "int64", "uint8", "bool"])
def test_dtypes(dtype: str) -> None:
    kind = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    element = {"float64": "double"}.get(dtype, dtype)
    data, _, _ = _island(f"({element}[3] x) => (y) {{ y = Concat <axis = 0> (x, x) }}", {"Concat"})
    x, y = np.array([0, 1, 1]).astype(kind), np.zeros(6, kind)
    backend.Island(data, 1).run([x], [y])
    np.testing.assert_array_equal(y, np.concatenate([x, x]))
    np.testing.assert_array_equal(
        backend.Island(data, 1).call({"x": x})[0].view(kind), y
    ) if dtype != "bfloat16" else None


@needs_runtime
def test_empty_values() -> None:
    data, _, _ = _island("(float[0,3] x) => (y) { y = Transpose(x) }", {"Transpose"})
    backend.Island(data, 1).run([np.zeros((0, 3), np.float32)], [np.zeros((3, 0), np.float32)])


@needs_runtime
def test_values_of_any_kind_can_be_called() -> None:
    data, _, _ = _island("(string[2] s, string[2] t) => (y) { y = StringConcat(s, t) }", {"StringConcat"})
    texts = np.array(["a", "b"], object)
    assert backend.Island(data, 1).call({"s": texts, "t": texts})[0].tolist() == ["aa", "bb"]


@needs_runtime
def test_what_onnx_runtime_cannot_load_names_the_nodes() -> None:
    model = name_nodes.run(model_of("(int8[2] x) => (int8[2] y) { y = Sin(x) }"))
    with pytest.raises(UnsupportedError, match=r"Sin_0 \(Sin\)"):
        backend.Island(make_island(model, list(model.graph))[0], 1)


@needs_runtime
def test_failures_while_running_name_the_nodes() -> None:
    data, _, _ = _island("(float[4] x, int64[1] i) => (y) { y = Gather(x, i) }", {"Gather"})
    with pytest.raises(ModelError, match=r"Gather_0 \(Gather\).*out of data bounds"):
        backend.Island(data, 1).run([np.zeros(4, np.float32), np.array([9])], [np.zeros(1, np.float32)])


@needs_runtime
def test_a_section_of_islands() -> None:
    data, _, _ = _island(BODY, {"Exp"}, w=W)
    section = json.dumps([len(data), len(data)]).encode() + b"\n" + data * 2
    assert sorted(backend.load_islands(section, 1)) == [0, 1]
    for damaged in (section[:-1], section[1:], b"", b"[-1]\n", b'{"a": 1}\n'):
        with pytest.raises(PlanError, match="damaged"):
            backend.load_islands(damaged, 1)


def test_the_extra_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r"voxelrt\[onnxruntime\]"):
        backend.make_session(b"", 1)
