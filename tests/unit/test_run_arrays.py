"""voxelrt run on .npy arrays: networks that take no volumes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

import voxelrt as vx
from voxelrt.cli import main
from voxelrt.models.architectures.recurrent import build_hierarchical_lstm


@pytest.fixture
def network(tmp_path: Path) -> Path:
    ir.save(build_hierarchical_lstm(grid=(3, 5, 4), hidden=(6, 5), seed=3), tmp_path / "net.onnx")
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(1, 3, 5, 4)))  # float64: what NumPy writes
    return tmp_path / "net.onnx"


def run(*arguments: Any) -> int:
    with pytest.raises(SystemExit) as left:
        main(["run", *map(str, arguments)])
    return int(left.value.code or 0)


def test_every_output_is_written_by_its_name(network: Path, capsys: Any) -> None:
    x, out = network.with_name("x.npy"), network.with_name("out.npz")
    assert run(network, "--input", f"volume={x}", "-o", out) == 0
    plan = vx.compile(network, verify=False, tune="off")
    with np.load(out) as found:
        for name, expected in plan.run({"volume": np.load(x).astype(np.float32)}).items():
            np.testing.assert_allclose(found[name], expected, rtol=1e-5, atol=1e-6)
    assert "slices: 1 × 3 × 2, float32" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "out", "why"),
    [
        ("image", "out.npz", "names image"),
        ("volume", "out.npy", "2 outputs"),
        ("volume", "out.nii.gz", r"\.npz"),
        ("volume", "missing/out.npz", "cannot write"),
    ],
)
def test_mistakes_are_named_and_nothing_is_written(network: Path, capsys: Any, name: str, out: str, why: str) -> None:
    before = sorted(network.parent.iterdir())
    assert run(network, "--input", f"{name}={network.with_name('x.npy')}", "-o", network.parent / out) != 0
    assert sorted(network.parent.iterdir()) == before
    assert re.search(why, " ".join(capsys.readouterr().err.split()))


def test_images_and_arrays_are_not_mixed(network: Path, capsys: Any) -> None:
    assert run(network, "--input", "volume=x.npy", "--input", "other=head.nii.gz") != 0
    assert "not both" in capsys.readouterr().err
