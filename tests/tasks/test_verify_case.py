"""voxelrt verify MODEL CASE: agreement is what it says, and a missing reference is named."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest

from tests.pipeline.counting import counting, save
from tests.pipeline.test_nnunet_run import FOLDERS
from voxelrt.cli import main
from voxelrt.io import write_nifti
from voxelrt.reference.agreement import agree, draw_agreement
from voxelrt.volume import Volume

AFFINE = np.diag([2.0, 1.0, 1.5, 1.0])


def _run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["verify", *map(str, arguments)])
    return int(ended.value.code or 0)


def test_agreement_by_hand() -> None:
    ours, other = np.zeros((2, 3, 4), np.uint8), np.zeros((2, 3, 4), np.uint8)
    ours[0, 0], other[0, 0, :3] = 1, 1
    ours[1, 1, :2], other[1, 1, :2] = 2, (2, 1)
    found = agree(Volume(ours, AFFINE, {1: "one", 2: "two"}), Volume(other.astype(np.float32), AFFINE))
    assert (found.differing, found.union) == (2, 6)
    assert found.equal == pytest.approx(4 / 6)
    one, two = found.classes
    assert (one.name, one.dice) == ("one", pytest.approx(2 * 3 / (4 + 4)))
    assert (two.name, two.dice) == ("two", pytest.approx(2 * 1 / (2 + 1)))
    assert one.ours_ml == pytest.approx(4 * 3 / 1000)
    empty = Volume(np.zeros((2, 3, 4), np.uint8), AFFINE)
    assert agree(empty, empty).equal == 1
    picture = draw_agreement(Volume(ours.astype(np.float32), AFFINE), Volume(ours, AFFINE), empty, "t", "c")
    assert picture.size[0] == 1400


def test_onnxruntime_as_the_reference_of_a_recipe(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="ONNX Runtime, the reference of this test, is not installed")
    window = 'window = "sliding"\nsliding = { roi_zyx = [4, 4, 4], overlap = [0.5] }'
    path = save(tmp_path, counting(), input=window)
    image = np.random.default_rng(0).integers(0, 9, (6, 7, 9)).astype(np.float32)
    write_nifti(Volume(image, AFFINE), tmp_path / "case.nii.gz")
    told = tmp_path / "told.json"
    code = _run(path, tmp_path / "case.nii.gz", "--json", told, "--picture", tmp_path / "differ.png")
    assert code == 0
    answer = json.loads(told.read_text())
    assert answer["agreement"]["differing"] == 0
    assert answer["ours"]["peak_bytes"] > 2**20
    assert (tmp_path / "differ.png").stat().st_size > 1000


def test_a_missing_reference_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = save(tmp_path, counting())
    write_nifti(Volume(np.zeros((4, 5, 6), np.float32), AFFINE), tmp_path / "case.nii.gz")
    case = tmp_path / "case.nii.gz"
    empty = tmp_path / "python"
    empty.write_text('#!/bin/sh\nexec "$(dirname "$0")/real" -S "$@"\n')
    empty.chmod(0o755)
    import sys

    (tmp_path / "real").symlink_to(sys._base_executable)
    assert _run(path, case, "--against", "monai", "--python", empty) == 7
    said = capsys.readouterr().err
    assert "pip install" in said
    assert "--python" in said
    assert _run(path, case, "--against", "nnunetv2") == 4
    assert _run(path, case, "--against", "torch") == 2
    assert _run(path, "--against", "monai") == 2
    assert _run(path, case, "--against", "monai", "--python", tmp_path / "none") == 2
    with tarfile.open(FOLDERS) as archive:
        archive.extractall(tmp_path, filter="data")
    assert _run(tmp_path / "Dataset801_Plain", case, "--against", "monai") == 4
