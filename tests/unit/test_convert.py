"""voxelrt convert: DICOM to NIfTI on the series' own grid, with its report, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from tests.phantoms import PATIENT_ID, PATIENT_NAME, dicom_series, octants, rotation, save_series
from voxelrt.cli import main
from voxelrt.io import read_image

OBLIQUE = tuple(float(v) for v in rotation()[:, :2].T.reshape(-1))


def call(*arguments: object) -> int:
    with pytest.raises(SystemExit) as left:
        main(["convert", *(str(a) for a in arguments)])
    assert isinstance(left.value.code, int)
    return left.value.code


def test_a_zip_becomes_nifti_on_its_grid(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    series = dicom_series(octants(), orientation=OBLIQUE, RescaleSlope=1, RescaleIntercept=-9)
    folder = save_series(series, tmp_path / "a")
    study = Path(shutil.make_archive(str(tmp_path / "study"), "zip", folder))
    out = tmp_path / "out.nii.gz"
    assert call(study, "-o", out, "--json", "-") == 0
    said: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert (said["shape_zyx"], said["modality"]) == ([6, 8, 10], "CT")
    assert said["geometry"]["slices"] == 6
    written = nibabel.load(out)
    assert (octants() - 9 == written.get_fdata().T).all()
    np.testing.assert_allclose(np.diag([-1, -1, 1, 1]) @ written.affine, read_image(folder).volume.affine, atol=1e-4)


def test_the_patient_is_named_nowhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.nii"
    assert call(save_series(dicom_series(octants()), tmp_path / "a"), "-o", out) == 0
    printed = capsys.readouterr()
    assert "6 slices, an even grid" in printed.out
    for name in (PATIENT_NAME, PATIENT_ID):
        assert name not in printed.out + printed.err
        assert name.encode() not in out.read_bytes()


def test_a_gap_is_refused_and_mended_on_request(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    series = dicom_series(octants())
    folder, out = save_series(series[:2] + series[3:], tmp_path / "a"), tmp_path / "out.nii.gz"
    assert call(folder, "-o", out) == 3
    assert not out.exists()
    capsys.readouterr()
    assert call(folder, "-o", out, "--repair", "--json", "-") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["geometry"]["done"]
    assert (nibabel.load(out).get_fdata().T[:2] == octants()[:2]).all()


def test_series_and_volume_are_picked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_series(dicom_series(octants()), tmp_path / "a" / "one")
    both = [
        image
        for time in (1, 2)
        for image in dicom_series(octants() * time, SeriesNumber=5, TemporalPositionIdentifier=time)
    ]
    for image in both:
        for name in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
            setattr(image, name, getattr(both[0], name))
    save_series(both, tmp_path / "a" / "two")
    out = tmp_path / "out.nii"
    assert call(tmp_path / "a", "-o", out) == 3
    assert "--series" in capsys.readouterr().err
    assert call(tmp_path / "a", "-o", out, "--series", 5, "--volume", 2) == 0
    assert (2 * octants() == nibabel.load(out).get_fdata().T).all()
    assert call(tmp_path / "a", "-o", out, "--series", 5, "--volume", "all") == 0
    assert nibabel.load(out).shape == (10, 8, 6, 2)


@pytest.mark.parametrize(
    ("out", "code", "reason"),
    [
        ("image.dcm", 2, "does not say the patient"),
        ("image.txt", 2, "must end in .nii"),
        ("missing/image.nii", 3, "there is no folder"),
        ("in.nii", 2, "never overwritten"),
    ],
)
def test_what_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], out: str, code: int, reason: str) -> None:
    folder = save_series(dicom_series(octants()), tmp_path / "a")
    assert call(folder, "-o", tmp_path / "in.nii") == 0
    before = (tmp_path / "in.nii").read_bytes()
    assert call(tmp_path / "in.nii", "-o", tmp_path / out) == code
    assert reason in capsys.readouterr().err
    assert (tmp_path / "in.nii").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "in.nii"]
