"""Reports and structure sets: the same findings when others read them, and nothing made up."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest

from tests.dicom_readers import errors_of, labels_of_structures, program
from tests.phantoms import PATIENT_NAME, dicom_series, octants, save_series
from tests.unit.test_dicom_pictures import radiograph
from tests.unit.test_dicom_segmentation import (
    ALGORITHM,
    OBLIQUE,
    SEGMENTS,
    enhanced,
    labels_like,
    tilted,
)
from voxelrt.errors import GeometryError, UsageError
from voxelrt.io import DicomSource, Image, read_image
from voxelrt.io.dicom.report import write_report
from voxelrt.io.dicom.scores_report import write_scores
from voxelrt.io.dicom.segmentation import write_segmentation
from voxelrt.io.dicom.structure_set import write_structure_set
from voxelrt.postprocess.measurements import Measured, measure
from voxelrt.volume import Volume

highdicom = pytest.importorskip("highdicom", reason="highdicom is not installed: pip install 'voxelrt[dicom-out]'")

NAMES = {segment.value: segment.name for segment in SEGMENTS}


def opened(study: Path) -> tuple[Image, DicomSource, Volume]:
    image = read_image(study)
    assert isinstance(image.source, DicomSource)
    return image, image.source, image.volume.with_array(labels_like(image.volume), NAMES)


def reported(study: Path, folder: Path, *, beside: bool = True) -> tuple[list[Measured], Volume]:
    image, source, labels = opened(study)
    made = write_segmentation(labels, folder / "seg.dcm", source, SEGMENTS, ALGORITHM) if beside else None
    measured = measure(labels, image.volume)
    write_report(measured, image.volume, folder / "sr.dcm", source, SEGMENTS, ALGORITHM, segmentation=made)
    return measured, labels


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_others_read_the_measurements(tmp_path: Path, modality: str) -> None:
    rng = np.random.default_rng(5)
    pixels = rng.integers(0, 900, (6, 8, 10)).astype(np.int16)
    study = save_series(dicom_series(pixels, orientation=OBLIQUE, Modality=modality), tmp_path / "a")
    measured, labels = reported(study, tmp_path)
    assert errors_of(tmp_path / "sr.dcm") == []
    groups = highdicom.sr.srread(tmp_path / "sr.dcm").content.get_volumetric_roi_measurement_groups()
    segmentation = pydicom.dcmread(tmp_path / "seg.dcm")
    assert len(groups) == len(measured) == 4
    for group, one in zip(groups, measured, strict=True):
        values = {m.name.meaning: (m.value, m.unit.value) for m in group.get_measurements()}
        mask = labels.array[0] == one.value
        assert values["Volume"] == (pytest.approx(mask.sum() * 0.5 * 0.75 * 2 / 1000), "ml")
        if mask.any():
            what, unit = {"CT": ("Attenuation Coefficient", "[hnsf'U]"), "MR": ("MR signal intensity", "1")}[modality]
            assert values[what] == (pytest.approx(pixels[mask].mean()), unit)
            assert values["Diameter"][0] == pytest.approx(one.diameter_mm)
        else:
            assert set(values) == {"Volume"}
        assert group.tracking_identifier == one.name.replace("\\", " ")
        assert group.referenced_segment.referenced_sop_instance_uid == segmentation.SOPInstanceUID
    assert [g.finding_type.meaning for g in groups] == ["Brain", "Tissue", "Neoplasm, Primary", "Tissue"]


def test_scores_of_a_radiograph_are_reported(tmp_path: Path) -> None:
    """It has no frame of reference: the report refers to the image as a whole."""
    image = read_image(save_series([radiograph(StudyInstanceUID="1.2.9", Modality="DX")], tmp_path / "a"))
    assert isinstance(image.source, DicomSource)
    kept = [tmp_path / f"{name}.dcm" for name in "bc"]
    for path in kept:
        write_scores({"ill": 0.25}, path, image.source, {}, ALGORITHM, probabilities=False, uids="reproducible")
    assert kept[0].read_bytes() == kept[1].read_bytes()
    assert errors_of(kept[0]) == []
    (group,) = highdicom.sr.srread(kept[0]).content.get_image_measurement_groups()
    (one,) = group.get_measurements()
    assert (one.value, one.unit.value, group.finding_type) == (0.25, "1", None)
    with pytest.raises(UsageError, match="no scores"):
        write_scores({}, kept[0], image.source, {}, ALGORITHM)


def test_dcmqi_reads_the_report(tmp_path: Path) -> None:
    reader = program("tid1500reader", "dcmqi")
    measured, _ = reported(save_series(dicom_series(octants()), tmp_path / "a"), tmp_path)
    said = [reader, "--inputDICOM", str(tmp_path / "sr.dcm"), "--outputMetadata", str(tmp_path / "out.json")]
    subprocess.run(said, check=True, capture_output=True)
    read = json.loads((tmp_path / "out.json").read_text())["Measurements"]
    for group, one in zip(read, measured, strict=True):
        values = {item["quantity"]["CodeMeaning"]: float(item["value"]) for item in group["measurementItems"]}
        assert values["Volume"] == pytest.approx(one.volume_ml)
        assert values.get("Diameter") == pytest.approx(one.diameter_mm)


def test_a_report_alone_refers_to_the_slices(tmp_path: Path) -> None:
    study = save_series([enhanced(octants(), [3, 0, 5, 1, 4, 2])], tmp_path / "a", order=[0])
    reported(study, tmp_path, beside=False)
    assert errors_of(tmp_path / "sr.dcm") == []
    groups = highdicom.sr.srread(tmp_path / "sr.dcm").content.get_image_measurement_groups()
    assert len(groups) == len(SEGMENTS)
    file = pydicom.dcmread(tmp_path / "sr.dcm")
    assert file.PatientName == PATIENT_NAME
    assert "ab" * 32 in file.ContributingEquipmentSequence[0].ContributionDescription


@pytest.mark.parametrize("kind", ["oblique", "tilted", "enhanced"])
def test_structures_load_back_as_the_same_labels(tmp_path: Path, kind: str) -> None:
    series = {
        "oblique": lambda: dicom_series(octants(), orientation=OBLIQUE, StudyID="7"),
        "tilted": tilted,
        "enhanced": lambda: [enhanced(octants(), [3, 0, 5, 1, 4, 2])],
    }[kind]()
    image, source, labels = opened(save_series(series, tmp_path / "a", order=[0] if kind == "enhanced" else None))
    # Noise: holes in holes, corners that touch, every region of one pixel.
    noise = np.random.default_rng(4).choice([0, 2, 5], labels.array.shape).astype(np.uint8)
    for array in (labels.array, noise):
        made = labels.with_array(array, NAMES)
        write_structure_set(made, tmp_path / "rt.dcm", source, SEGMENTS, ALGORITHM)
        file = pydicom.dcmread(tmp_path / "rt.dcm")
        for non_zero in (False, True):
            read = labels_of_structures(file, array.shape[1:], image.volume.affine, non_zero=non_zero)
            np.testing.assert_array_equal(read, array[0])
    assert errors_of(tmp_path / "rt.dcm") == []
    assert [roi.ROIName for roi in file.StructureSetROISequence] == [n.replace("\\", " ") for n in NAMES.values()]
    codes = [item.get("RTROIIdentificationCodeSequence") for item in file.RTROIObservationsSequence]
    assert [code and code[0].CodeMeaning for code in codes] == ["Brain", None, "Neoplasm, Primary", None]
    known = {image.SOPInstanceUID for image in series}
    referred = {c.ContourImageSequence[0].ReferencedSOPInstanceUID for c in file.ROIContourSequence[0].ContourSequence}
    assert referred <= known
    assert file.FrameOfReferenceUID == series[0].FrameOfReferenceUID


@pytest.mark.parametrize("what", ["seg", "sr", "rt"])
def test_reproducible_files_are_the_same_bytes_and_others_are_new(tmp_path: Path, what: str) -> None:
    image, source, labels = opened(save_series(dicom_series(octants(), StudyDate="20200102"), tmp_path / "a"))

    def write(out: Path, labels: Volume, **options: str) -> bytes:
        if what == "seg":
            write_segmentation(labels, out, source, SEGMENTS, ALGORITHM, **options)  # type: ignore[arg-type]
        elif what == "sr":
            write_report(measure(labels, image.volume), image.volume, out, source, SEGMENTS, ALGORITHM, **options)  # type: ignore[arg-type]
        else:
            write_structure_set(labels, out, source, SEGMENTS, ALGORITHM, **options)  # type: ignore[arg-type]
        return out.read_bytes()

    out, other = tmp_path / "out.dcm", labels.array.copy()
    other[0, 0, 0, 0] = 5
    same = [write(out, labels, uids="reproducible") for _ in range(2)]
    assert same[0] == same[1]
    uid = pydicom.dcmread(out).SOPInstanceUID
    write(out, labels.with_array(other, NAMES), uids="reproducible")
    assert pydicom.dcmread(out).SOPInstanceUID != uid
    fresh = {pydicom.dcmread(out).SOPInstanceUID for _ in range(2) if write(out, labels)}
    assert len(fresh) == 2
    with pytest.raises(UsageError, match="reproducible"):
        write(out, labels, uids="old")


def test_what_cannot_be_reported_is_refused(tmp_path: Path) -> None:
    image, source, labels = opened(save_series(dicom_series(octants()), tmp_path / "a"))
    with pytest.raises(UsageError, match="nothing to report"):
        write_report([], image.volume, tmp_path / "sr.dcm", source, [], ALGORITHM)
    with pytest.raises(GeometryError):
        write_structure_set(
            Volume(labels.array[:, 1:], labels.affine), tmp_path / "rt.dcm", source, SEGMENTS, ALGORITHM
        )
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
