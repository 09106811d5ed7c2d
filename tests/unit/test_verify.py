"""voxelrt verify: rows, labels, exit codes; and the comparison behind it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from tests.unit.test_cli import call
from voxelrt.models.architectures import dense, unet3d
from voxelrt.plan.verification import verify


@pytest.fixture
def model(tmp_path: Path) -> Path:
    ir.save(unet3d.build_unet3d((4, 8), (8, 8, 8), 3), tmp_path / "net.onnx")
    return tmp_path / "net.onnx"


class Shifted:
    """A plan that answers the peer's answer and a bit more."""

    def __init__(self, offset: Any) -> None:
        self.offset = offset

    def run(self, inputs: Any) -> Any:
        return {"y": inputs["x"] + self.offset}


def rows(offset: Any, x: Any, **options: Any) -> Any:
    return verify(Shifted(offset), lambda inputs: {"y": inputs["x"]}, {"a": {"x": x}}, **options)  # type: ignore[arg-type]


def test_the_worst_place_and_the_relative_difference() -> None:
    offset = np.zeros((2, 3), np.float32)
    offset[1, 2] = 3
    (row,) = rows(offset, np.full((2, 3), 4, np.float32))
    assert (row.maximum, row.worst) == (3.0, (1, 2))
    assert row.relative == pytest.approx(3 / np.sqrt(6 * 16))
    assert not row.passes(0.1)
    assert row.passes(0.31)


def test_nan_on_one_side_never_passes_and_on_both_sides_does() -> None:
    x = np.float32([1, np.nan, np.inf])
    assert rows(0.0, x)[0].passes(0.0)
    assert not rows(np.float32([np.nan, 0, 0]), x)[0].passes(1e9)


def test_labels_are_compared_where_it_is_a_segmentation() -> None:
    x = np.float32(np.random.default_rng(0).random((1, 2, 50, 50)))
    flip = np.zeros_like(x)
    flip[0, 0, 0] = 2.0
    (row,) = rows(flip, x, segmentation=(None, 1))
    assert row.agreement is not None
    assert row.agreement < 0.99
    assert not row.passes(1e9)


def test_a_plan_within_tolerance(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxruntime", reason="the peer of this test")
    assert call("verify", model) == 0
    text = capsys.readouterr().out
    assert "phantom" in text
    assert "noise" in text
    assert call("verify", model, "--json", "-") == 0
    data = json.loads(capsys.readouterr().out)
    assert data["passed"]
    assert all(row["relative"] < 5e-5 for row in data["rows"])
    plan = tmp_path / "net.vxp"
    assert call("compile", model, "-o", plan, "--no-verify", "-q") == 0
    np.save(tmp_path / "x.npy", np.random.default_rng(1).random((1, 1, 8, 8, 8)))
    assert call("verify", plan, "--input", f"input={tmp_path / 'x.npy'}") == 0
    assert "given" in capsys.readouterr().out


def test_past_the_tolerance_the_exit_code_is_that_of_parity(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxruntime", reason="the peer of this test")
    assert call("verify", model, "--tolerance", "0") == 6
    captured = capsys.readouterr()
    assert "past the tolerance" in captured.out
    assert "departs from onnxruntime: relative" in captured.err
    assert call("verify", model, "--tolerance", "0", "--json", "-") == 6
    assert not json.loads(capsys.readouterr().out)["passed"]


def test_what_is_missing_is_named(model: Path, tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    np.save(tmp_path / "o.npy", np.array([{}]), allow_pickle=True)
    (tmp_path / "t.npy").write_bytes(b"\x93NUMPY\x01\x00")
    for arguments, code, word in (
        (("--input", f"input={tmp_path / 'no.npy'}"), 3, "there is no file 'no.npy'"),
        (("--input", f"input={tmp_path / 'o.npy'}"), 3, "no NumPy array"),
        (("--input", f"input={tmp_path / 't.npy'}"), 3, "no NumPy array"),
        (("--against", "torch"), 2, "is no network of torch"),
        (("--against", "keras"), 2, "keras"),
    ):
        assert call("verify", model, *arguments) == code
        assert word in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert call("verify", model) == 7
    assert "pip install 'voxelrt[onnxruntime]'" in capsys.readouterr().err


def test_several_inputs_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxruntime", reason="the peer of this test")
    ir.save(dense.build_attention_pooling(6, 5), tmp_path / "net.onnx")
    assert call("verify", tmp_path / "net.onnx", "--json", "-") == 0
    found = {row["output"] for row in json.loads(capsys.readouterr().out)["rows"]}
    assert found == {"logits", "attention"}


def test_info_tells_memory_flops_and_places(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("info", model, "--json", "-") == 0
    data = json.loads(capsys.readouterr().out)
    layers = list(unet3d.convolutions((4, 8), (8, 8, 8), 3))
    weights = sum(a.nbytes for a in unet3d.draw_parameters(layers, 0).values())
    at = data["at_shape"]
    assert data["parameters"] == weights // 4
    assert at["flops"] == pytest.approx(sum(layer.flops for layer in layers), rel=0.2)
    assert at["memory_bytes"]["weights"] >= weights
    assert at["memory_bytes"]["arena"] > 0
    assert at["operators"]["Conv"] == {"native": 7}
    assert at["outputs"] == {"logits": [1, 3, 8, 8, 8]}
    assert call("info", model) == 0
    assert "memory: arena" in capsys.readouterr().out


def test_weights_that_are_not_numbers_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net = dense.build_mlp((3, 4, 2))
    tensor = net.graph.initializers["linear_1.weight"].const_value
    assert tensor is not None
    array = np.array(tensor.numpy())
    array[1, 2] = np.nan
    net.graph.initializers["linear_1.weight"].const_value = ir.tensor(array, name="linear_1.weight")
    ir.save(net, tmp_path / "net.onnx")
    assert call("info", tmp_path / "net.onnx") == 0
    assert "note: the weight 'linear_1.weight' holds 1 NaN or infinite values" in capsys.readouterr().out
