"""No command that writes says who the patient is: not in what it prints, not in pictures or their metadata, names of
files, tables or volumes; only DICOM objects do, where it belongs."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.phantoms import dicom_series, octants, save_series
from tests.pipeline.counting import LABELS, counting, save
from voxelrt.cli import main
from voxelrt.io.tfm import write_tfm

pytest.importorskip("highdicom", reason="highdicom is not installed: pip install 'voxelrt[dicom-out]'")

# Each planted in another element; none may be found outside of DICOM.
PLANTED = {
    "PatientName": "Planted^Nameless",
    "PatientID": "PLANT-ID-1",
    "OtherPatientIDs": "PLANT-ID-2",
    "PatientBirthDate": "19010203",
    "AccessionNumber": "PLANT-ACC",
    "StudyID": "PLANT-STUDY",
    "StudyDescription": "Plantstudy of Nameless",
    "SeriesDescription": "Plantseries of Nameless",
    "ReferringPhysicianName": "Planted^Doctor",
    "OperatorsName": "Planted^Operator",
    "InstitutionName": "Planted Hospital",
    "StudyDate": "19020304",
    "PatientComments": "Plantcomment",
}
SECRETS = [word for value in PLANTED.values() for word in (value, value.split("^")[-1])] + ["Plant", "PLANT"]


def call(*arguments: object) -> int:
    with pytest.raises(SystemExit) as left:
        main([str(a) for a in arguments])
    assert isinstance(left.value.code, int)
    return left.value.code


@pytest.fixture
def study(tmp_path: Path) -> Path:
    folder = tmp_path / "PLANT-FOLDER"
    return save_series(dicom_series(octants(), Modality="MR", **PLANTED), folder)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save(tmp_path, counting((6, 8, 10)), output=f'kind = "logits"\n{LABELS}')


def found_in(path: Path, uids: list[str]) -> list[str]:
    raw = path.read_bytes()
    if raw[:2] == b"\x1f\x8b":
        raw = gzip.decompress(raw)
    return [secret for secret in (*SECRETS, *uids) if secret.encode() in raw]


NAMES = ["o.nii.gz", "o.mha", "o.png", "o.gif", "o.dcm", "results", "missing/o.nii.gz", "o.txt", "file.txt/o.nii"]
COMMANDS: dict[str, Callable[[Path, Path, Path], list[Any]]] = {
    "run": lambda study, model, out: ["run", model, study, "-o", out, "--picture", out.parent / "p.png", "--table",
                                      out.parent / "t.json", "--json", out.parent / "j.json"],
    "convert": lambda study, model, out: ["convert", study, "-o", out, "--json", out.parent / "j.json"],
    "denoise": lambda study, model, out: ["denoise", study, "-o", out, "--method", "median", "--picture",
                                          out.parent / "p.png"],
    "warp": lambda study, model, out: ["warp", study, "--reference", study, "--affine", out.parents[1] / "a.tfm", "-o",
                                       out, "--picture", out.parent / "p.png"],
}  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_nothing_says_who_it_is(
    study: Path, model: Path, tmp_path: Path, command: str, capfd: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    import pydicom

    one = pydicom.dcmread(next(study.iterdir()))
    uids = [one.StudyInstanceUID, one.SeriesInstanceUID, one.SOPInstanceUID]
    write_tfm(np.eye(4), tmp_path / "a.tfm")
    monkeypatch.chdir(study.parent)
    written = 0
    for number, name in enumerate(NAMES):
        folder = tmp_path / f"out{number}"
        folder.mkdir()
        (folder / "file.txt").write_text("")
        call(*COMMANDS[command](Path(study.name), model, folder / name))
        for path in folder.rglob("*"):
            assert "PLANT" not in path.name
            if path.is_file() and path.suffix != ".dcm":
                assert found_in(path, uids) == [], path
                written += path.name != "file.txt"
    assert written >= 3
    printed = capfd.readouterr()
    said = (printed.out + printed.err).replace(study.name, "")
    assert [secret for secret in (*SECRETS, *uids) if secret in said] == []


def test_damaged_studies_say_nothing_either(study: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    files = sorted(study.iterdir())
    for cut in (200, 700, 1200):
        for file in files[:2]:
            file.write_bytes(file.read_bytes()[:cut])
        assert call("convert", study, "-o", tmp_path / "o.nii") != 0
    printed = capfd.readouterr()
    said = (printed.out + printed.err).replace(study.name, "")
    assert [secret for secret in SECRETS if secret in said] == []
