"""What a run holds at most, as the operating system measures it in a child process: never over its budget by 5 %."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

import voxelrt as vx
from voxelrt.case import prepare_case
from voxelrt.errors import OutputError
from voxelrt.io import write_nifti
from voxelrt.models.load import load
from voxelrt.models.nnunet_settings import Label, settings_from_json

FOLDERS = Path(__file__).parents[1] / "models" / "data" / "nnunet_folders.tar.xz"
PATCH = (32, 64, 64)
OVER = 1.05


def _plan(folder: Path, classes: int) -> Path:
    """A plan with nnU-Net's settings whose network is one convolution, so that memory is the pipeline's own."""
    with tarfile.open(FOLDERS) as archive:
        archive.extractall(folder, filter="data")
    loaded = load(folder / "Dataset801_Plain")
    assert loaded.settings is not None
    labels = tuple(Label(f"structure {k}", (k,)) for k in range(1, classes))
    settings = replace(loaded.settings, patch_size=PATCH, labels=labels, spacing_mm=(1.0, 1.0, 1.0), folds=("0",))
    weights = np.random.default_rng(classes).normal(size=(classes, 1, 1, 1, 1)).astype(np.float32)
    node = helper.make_node("Conv", ["image", "w"], ["logits"], kernel_shape=[1, 1, 1], name="conv")
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, n, *PATCH])
        for name, n in (("image", 1), ("logits", classes))
    ]
    graph = helper.make_graph([node], "one", ends[:1], ends[1:], [numpy_helper.from_array(weights, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    vx.compile(replace(loaded, graph=ir.from_proto(model), settings=settings), verify=False, tune="off").save(
        folder / "net.vxp"
    )
    return folder / "net.vxp"


def _case(folder: Path, size: tuple[int, int, int]) -> Path:
    scan = np.random.default_rng(1).normal(0, 100, size).astype(np.int16)
    write_nifti(vx.Volume(scan, np.diag([1.1, 1.1, 1.1, 1])), folder / "case.nii.gz")
    return folder / "case.nii.gz"


def _run(plan: Path, case: Path, budget_mib: int = 0) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.pipeline.memory_child", str(plan), str(case), str(budget_mib)]
    found: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return found


def _mib(text: str) -> float:
    found = re.search(r"expecting to hold ([\d.]+) (MiB|GiB)", text)
    assert found, text
    return float(found[1]) * {"MiB": 1, "GiB": 1024}[found[2]]


def _check(folder: Path, size: tuple[int, int, int], classes: int) -> list[tuple[int, float]]:
    """Without a budget, and with ever smaller ones until one is refused; each run's budget and peak in MiB."""
    plan, case = _plan(folder, classes), _case(folder, size)
    whole = _run(plan, case)
    expected = _mib(whole["said"])
    rows = [(0, whole["peak"] / 2**20)]
    assert whole["peak"] <= OVER * expected * 2**20, (whole["peak"] / 2**20, expected)
    budget = int(expected)
    while True:
        budget = int(budget * 0.8)
        tight = _run(plan, case, budget)
        rows.append((budget, tight["peak"] / 2**20))
        if "refused" in tight:
            assert "less than this case needs" in tight["refused"]
            return rows
        assert tight["peak"] <= OVER * budget * 2**20, rows
        assert tight["labels"] == whole["labels"]


def test_a_run_keeps_to_its_budget(tmp_path: Path) -> None:
    rows = _check(tmp_path, (72, 120, 120), 25)
    assert len(rows) > 2  # at least one budget was kept


@pytest.mark.parametrize("spacing_z", [0.7, 1.3, 8.0], ids=["finer", "coarser", "slices apart"])
def test_data_in_a_scratch_file_are_the_same_bits(
    tmp_path: Path, spacing_z: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_from_json(vx.Plan.open(_plan(tmp_path, 3)).info.model_settings)
    scan = np.random.default_rng(2).normal(0, 100, (41, 50, 37)).astype(np.int16)
    volume = vx.Volume(scan, np.diag([0.9, 1.2, spacing_z, 1]))
    plain, spilled = prepare_case(volume, settings), prepare_case(volume, settings, memory=100_000)
    assert plain.scratch is None
    assert spilled.scratch is not None
    assert spilled.scratch.nbytes == spilled.data.nbytes + scan.nbytes
    spilled.let_go()
    np.testing.assert_array_equal(spilled.data, plain.data)
    np.testing.assert_array_equal(spilled.volume.array, volume.array)

    def full(*given: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("voxelrt.runtime.scratch.os.posix_fallocate", full)
    with pytest.raises(OutputError, match=r"scratch file of .* No space left"):
        prepare_case(volume, settings, memory=100_000)


@pytest.mark.slow
@pytest.mark.parametrize("classes", [5, 25, 118])
@pytest.mark.parametrize("size", [(64, 96, 96), (96, 180, 180), (200, 256, 256)], ids=["small", "middle", "large"])
def test_budgets_are_kept_for_all_sizes_and_classes(tmp_path: Path, size: tuple[int, int, int], classes: int) -> None:
    for budget, peak in _check(tmp_path, size, classes):
        print(f"{'×'.join(map(str, size))}, {classes} classes: budget {budget or 'none'} MiB, peak {peak:.0f} MiB")
