"""Commands that fill a folder with a derived DICOM series: denoise, warp, and a model that makes an image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest

from tests.phantoms import PATIENT_NAME, dicom_series, octants, save_series
from tests.pipeline.counting import identity, save
from voxelrt.cli import main
from voxelrt.io import read_image, write_nifti
from voxelrt.io.tfm import write_tfm
from voxelrt.volume import Volume


def call(*arguments: object) -> int:
    with pytest.raises(SystemExit) as left:
        main([str(a) for a in arguments])
    assert isinstance(left.value.code, int)
    return left.value.code


@pytest.fixture
def study(tmp_path: Path) -> Path:
    return save_series(dicom_series(100 * octants(), Modality="MR"), tmp_path / "study")


def test_denoise(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, same = tmp_path / "quiet", tmp_path / "quiet.nii"
    options = ("--method", "median", "--radius", "1")
    assert call("denoise", study, "-o", out, "--uids", "reproducible", *options) == 0
    assert call("denoise", study, "-o", same, *options) == 0
    image, written = read_image(study).volume, read_image(out).volume
    np.testing.assert_array_equal(written.array, read_image(same).volume.array)
    np.testing.assert_allclose(written.affine, image.affine)
    assert (written.array != image.array).any()
    file = pydicom.dcmread(out / "IM0001.dcm")
    assert (file.ImageType[-1], file.SeriesDescription) == ("DENOISED", "Denoised by median")
    printed = capsys.readouterr()
    assert PATIENT_NAME not in printed.out + printed.err


def test_denoise_picks_a_series(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_series(dicom_series(octants((4, 6, 6)), Modality="MR", SeriesNumber=9), study / "other")
    assert call("denoise", study, "-o", tmp_path / "no", "--method", "median") == 3
    assert "--series" in capsys.readouterr().err
    assert call("denoise", study, "-o", tmp_path / "nine", "--method", "median", "--series", 9) == 0
    assert len(list((tmp_path / "nine").iterdir())) == 4


def test_warp(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shift = np.eye(4)
    shift[0, 3] = 0.75  # one column
    write_tfm(shift, tmp_path / "a.tfm")
    moving = save_series(dicom_series(100 * octants(), Modality="MR", EchoTime=9), tmp_path / "prior")
    out = tmp_path / "aligned"
    arguments = ("--affine", tmp_path / "a.tfm", "--reference", study)
    assert call("warp", moving, *arguments, "-o", out) == 0
    read = read_image(out)
    np.testing.assert_array_equal(read.volume.array[0, :, :, :-1], 100 * octants()[:, :, 1:])
    assert pydicom.dcmread(out / "IM0001.dcm").EchoTime == 9
    # Half of it from NIfTI: nothing says whose it is.
    write_nifti(Volume(octants(), read.volume.affine), tmp_path / "moving.nii")
    assert call("warp", tmp_path / "moving.nii", *arguments, "-o", tmp_path / "no") == 2
    assert "not all that is given is DICOM" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()


def test_warp_picks_series(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_series(dicom_series(octants((4, 6, 6)), Modality="MR", SeriesNumber=9), study / "other")
    shift = np.eye(4)
    shift[0, 3] = 0.75  # one column
    write_tfm(shift, tmp_path / "a.tfm")
    arguments = ("warp", study, "--affine", tmp_path / "a.tfm", "--reference", study, "-o")
    assert call(*arguments, tmp_path / "no") == 3
    assert "--series" in capsys.readouterr().err
    assert call(*arguments, tmp_path / "nine", "--series", 9, "--reference-series", 9, "--repair") == 0
    read = read_image(tmp_path / "nine").volume.array[0]
    np.testing.assert_array_equal(read[:, :, :-1], octants((4, 6, 6))[:, :, 1:])
    # The other one on its grid: each is picked on its own.
    first = pydicom.dcmread(next(p for p in study.iterdir() if p.is_file())).SeriesInstanceUID
    assert call(*arguments, tmp_path / "first.nii", "--series", first, "--reference-series", 9) == 0
    assert read_image(tmp_path / "first.nii").volume.array.shape == (1, 4, 6, 6)


def test_a_model_that_makes_an_image(study: Path, tmp_path: Path) -> None:
    model = save(tmp_path, identity((6, 8, 10)), output='kind = "image"')
    assert call("run", model, study, "-o", tmp_path / "made") == 0
    np.testing.assert_array_equal(read_image(tmp_path / "made").volume.array[0], 100 * octants())
    file = pydicom.dcmread(tmp_path / "made" / "IM0003.dcm")
    assert file.ImageType[:2] == ["DERIVED", "PRIMARY"]
    assert "DerivationCodeSequence" not in file
