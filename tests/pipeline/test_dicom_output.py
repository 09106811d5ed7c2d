"""A mask as DICOM and a table of volumes, from a study and a model by one command."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from tests.phantoms import PATIENT_ID, PATIENT_NAME, dicom_series, octants, save_series
from tests.pipeline.counting import LABELS, counting, identity, save
from voxelrt.cli import main
from voxelrt.finding import algorithm_of
from voxelrt.io import read_image, write_nifti
from voxelrt.plan.plan import Plan
from voxelrt.volume import Volume

pytest.importorskip("highdicom", reason="highdicom is not installed: pip install 'voxelrt[dicom-out]'")

CODED = LABELS.replace(
    'name = "octant 1"', 'name = "octant 1"\ncode = { scheme = "SCT", value = "12738006", meaning = "Brain" }', 1
)


def call(*arguments: object) -> int:
    with pytest.raises(SystemExit) as left:
        main(["run", *(str(a) for a in arguments)])
    assert isinstance(left.value.code, int)
    return left.value.code


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save(tmp_path, counting((6, 8, 10)), output=f'kind = "logits"\n{CODED}')


@pytest.fixture
def series(tmp_path: Path) -> Path:
    return save_series(dicom_series(octants(), Modality="MR"), tmp_path / "series")


def labels_of(path: Path, study: Path) -> Any:
    """The labels in the file, by the instances that its frames refer to."""
    source = read_image(study).source
    file = pydicom.dcmread(path)
    planes = {uid: z for z, uid in enumerate(source.sop_instance_uids)}  # type: ignore[union-attr]
    made = np.zeros((6, 8, 10), int)
    for frame, item in zip(file.pixel_array, file.PerFrameFunctionalGroupsSequence, strict=True):
        (reference,) = item.DerivationImageSequence[0].SourceImageSequence
        value = 1
        if file.SegmentationType == "BINARY":
            number = item.SegmentIdentificationSequence[0].ReferencedSegmentNumber
            value = int(file.SegmentSequence[number - 1].SegmentDescription.split()[1])
        made[planes[reference.ReferencedSOPInstanceUID]] += frame.astype(int) * value
    return made


@pytest.mark.parametrize("kind", [[], ["--format", "seg"], ["--seg", "labelmap"]])
def test_a_study_becomes_a_segmentation(
    model: Path, series: Path, tmp_path: Path, kind: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "mask.dcm"
    assert call(model, series, "-o", out, *kind, "--json", "-") == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["out"] == str(out)
    assert PATIENT_NAME not in printed.out + printed.err
    np.testing.assert_array_equal(labels_of(out, series), octants())
    file = pydicom.dcmread(out)
    assert file.PatientID == PATIENT_ID
    described = {s.SegmentLabel: s for s in file.SegmentSequence}
    assert described["octant 1"].SegmentedPropertyTypeCodeSequence[0].CodeValue == "12738006"
    assert described["octant 2"].SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Tissue"


def test_the_plan_is_named_by_its_hash(model: Path, series: Path, tmp_path: Path, own_cache: Path) -> None:
    assert call(model, series, "-o", tmp_path / "mask.dcm", "--table", tmp_path / "volumes.json") == 0
    (kept,) = (own_cache / "plans").iterdir()
    plan = algorithm_of(Plan.open(kept)).plan_sha256
    said = pydicom.dcmread(tmp_path / "mask.dcm").SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0]
    assert said.AlgorithmName == "counting"
    assert plan in said.AlgorithmParameters
    assert json.loads((tmp_path / "volumes.json").read_text())["plan_sha256"] == plan


def test_a_table_of_volumes(model: Path, tmp_path: Path) -> None:
    write_nifti(Volume(octants(), np.diag([1.0, 2.0, 3.0, 1.0])), tmp_path / "in.nii")
    assert call(model, tmp_path / "in.nii", "--table", tmp_path / "volumes.csv") == 0
    rows = list(csv.DictReader((tmp_path / "volumes.csv").open(newline="")))
    assert [row["name"] for row in rows] == [f"octant {k}" for k in range(1, 9)]
    for row in rows:
        count = int((octants() == int(row["value"])).sum())
        assert (int(row["voxels"]), float(row["volume_ml"])) == (count, pytest.approx(count * 6 / 1000))


def test_a_folder_gets_mask_and_report_that_belong_together(model: Path, series: Path, tmp_path: Path) -> None:
    out = tmp_path / "results"
    assert call(model, series, "-o", out, "--uids", "reproducible") == 0
    assert sorted(path.name for path in out.iterdir()) == ["report.dcm", "segmentation.dcm"]
    np.testing.assert_array_equal(labels_of(out / "segmentation.dcm", series), octants())
    mask = pydicom.dcmread(out / "segmentation.dcm")
    import highdicom

    groups = highdicom.sr.srread(out / "report.dcm").content.get_volumetric_roi_measurement_groups()
    assert [g.tracking_identifier for g in groups] == [f"octant {k}" for k in range(1, 9)]
    assert {g.referenced_segment.referenced_sop_instance_uid for g in groups} == {mask.SOPInstanceUID}
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert call(model, series, "-o", out) == 3
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    (tmp_path / "again").mkdir()
    assert call(model, series, "-o", tmp_path / "again", "--uids", "reproducible") == 0
    assert {path.name: path.read_bytes() for path in (tmp_path / "again").iterdir()} == before


@pytest.mark.parametrize(("wanted", "modality"), [("sr", "SR"), ("rtstruct", "RTSTRUCT"), ("capture", "OT")])
def test_other_objects_on_request(model: Path, series: Path, tmp_path: Path, wanted: str, modality: str) -> None:
    assert call(model, series, "-o", tmp_path / "out.dcm", "--format", wanted) == 0
    assert pydicom.dcmread(tmp_path / "out.dcm").Modality == modality


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["-o", "mask.dcm", "--format", "nifti"], "must end in .nii"),
        (["-o", "mask.nii", "--format", "seg"], "must end in .dcm"),
        (["-o", "mask.nii", "--seg", "binary"], "ends in .dcm"),
        (["-o", "mask.dcm", "--format", "rtstruct", "--seg", "binary"], "ends in .dcm"),
        (["--format", "seg"], "needs -o"),
        (["-o", "mask.txt"], ".dcm"),
        (["-o", "mask.nii", "--table", "volumes.xlsx"], ".csv"),
    ],
)
def test_contradictions_are_refused(
    model: Path, series: Path, tmp_path: Path, options: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    named = [str(tmp_path / part) if "." in part else part for part in options]
    assert call(model, series, *named) == 2
    assert reason in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} <= {"series", "counting.onnx", "counting.toml"}


def test_what_has_no_series_or_no_labels_is_refused(
    model: Path, series: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "mask.dcm"
    write_nifti(Volume(octants(), np.eye(4)), tmp_path / "in.nii")
    assert call(model, tmp_path / "in.nii", "-o", out) == 2
    assert "slices of a DICOM series" in capsys.readouterr().err
    picture = save(tmp_path, identity((6, 8, 10)), output='kind = "image"')
    assert call(picture, series, "-o", out) == 2
    assert "no labels" in capsys.readouterr().err
    assert not out.exists()
