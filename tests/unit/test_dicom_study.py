"""DICOM studies: folders and zips with several series, chosen, listed, split into volumes, and mended on request."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileDataset
from pydicom.sequence import Sequence
from pydicom.uid import DeflatedExplicitVRLittleEndian, EnhancedMRImageStorage, MRImageStorage, generate_uid

from tests.phantoms import PATIENT_ID, PATIENT_NAME, dicom_series, dicom_slice, octants, save_series
from voxelrt.cli import main
from voxelrt.errors import GeometryError, InputError, UsageError
from voxelrt.io import DicomSource, open_dicom, read_image
from voxelrt.io.dicom import contents, header
from voxelrt.io.dicom.description import shown
from voxelrt.io.dicom.study import ZIP


def zipped(folder: Path, path: Path) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(p for p in folder.rglob("*") if p.is_file()):
            archive.write(file, file.relative_to(folder))
    return path


# Folders and zips


def test_a_zip_is_read_as_its_folder(tmp_path: Path) -> None:
    save_series(dicom_series(octants()), tmp_path / "in" / "deep")
    (tmp_path / "in" / "readme.txt").write_text("text " * 50)
    one = read_image(tmp_path / "in")
    other = read_image(zipped(tmp_path / "in", tmp_path / "study.zip"))
    assert (one.volume.array == other.volume.array).all()
    assert (one.volume.affine == other.volume.affine).all()
    assert other.warnings == ("skipped 1 file: not DICOM",)


def test_names_in_a_zip_lead_nowhere(tmp_path: Path) -> None:
    save_series(dicom_series(octants()), tmp_path / "in")
    before = sorted(tmp_path.rglob("*"))
    path = tmp_path / "study.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number, file in enumerate(sorted((tmp_path / "in").iterdir())):
            archive.writestr(f"../../escape{number}", file.read_bytes())
        archive.writestr("/etc/absolute", b"text " * 50)
    assert (read_image(path).volume.array[0] == octants()).all()
    assert sorted(tmp_path.rglob("*")) == sorted([*before, path])


def test_a_zip_that_declares_too_much_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", bytes(2_000_000))
    monkeypatch.setattr(contents, "MAX_ZIP_BYTES", 1_000_000)
    with pytest.raises(InputError, match=r"declares 1 files of 0\.0 GiB"):
        open_dicom(path)


@pytest.mark.parametrize("deflated", [False, True])
def test_a_file_of_endless_elements_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deflated: bool
) -> None:
    """Empty elements without end would keep the parser for hours; what is skipped, such as pixels, does not count."""
    dataset = dicom_series(octants((1, 64, 64)))[0]
    if deflated:
        dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    save_series([dataset], tmp_path / "good")
    monkeypatch.setattr(header, "MAX_HEADER_BYTES", 4000)
    assert (read_image(tmp_path / "good").volume.array[0] == octants((1, 64, 64))).all()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "zeros").write_bytes(bytes(128) + b"DICM" + bytes(100_000))
    with pytest.raises(InputError, match="MiB of elements before its pixels"):
        read_image(tmp_path / "bad")


@pytest.mark.parametrize("kept", [10, 200, -10])
def test_a_cut_zip_is_an_input_error(tmp_path: Path, kept: int) -> None:
    save_series(dicom_series(octants()), tmp_path / "in")
    path = zipped(tmp_path / "in", tmp_path / "study.zip")
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(InputError):
        read_image(path)


def test_a_voxel_changed_inside_a_zip_is_an_input_error(tmp_path: Path) -> None:
    """The pixels are followed by another element: a reader that stops behind them never sees the zip's checksum."""
    dataset = dicom_series(octants((1, 512, 512)))[0]
    dataset.DataSetTrailingPadding = bytes(64)
    save_series([dataset], tmp_path / "in")
    path = tmp_path / "study.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.write(next((tmp_path / "in").iterdir()), "a")
    assert (read_image(path).volume.array[0] == octants((1, 512, 512))).all()
    whole = bytearray(path.read_bytes())
    whole[whole.index(dataset.PixelData) + 100] ^= 1
    path.write_bytes(whole)
    with pytest.raises(InputError, match="inside the zip is damaged"):
        read_image(path)


def test_links_do_not_lead_out_or_round_in_circles(tmp_path: Path) -> None:
    outside = save_series(dicom_series(octants()), tmp_path / "outside")
    study = save_series(dicom_series(octants() + 1), tmp_path / "study")
    os.symlink(study, study / "loop")
    os.symlink(study / "self", study / "self")
    os.symlink(next(outside.iterdir()), study / "out")
    inside = study / "copy"
    os.symlink(study / "IM0000", inside)
    os.mkfifo(study / "pipe")
    image = read_image(study)
    assert (image.volume.array[0] == octants() + 1).all()
    assert set(image.warnings) == {
        "skipped 1 file: links to folders, which are not followed", "skipped 1 file: broken links",
        "skipped 1 file: links that lead out of the folder", "skipped 1 file: neither file nor folder",
        "skipped 1 file: copies of others (same SOP Instance UID)",
    }  # fmt: skip


def test_a_newcomers_folder_works_on_the_first_try(tmp_path: Path) -> None:
    """Several modalities, a DICOMDIR, junk and a zip."""
    two_series(tmp_path)
    shutil.copy(Path(pydicom.__file__).parent / "data" / "test_files" / "dicomdirtests" / "DICOMDIR", tmp_path)
    for name, data in ((".DS_Store", b"\0\0\0\1Bud1" + bytes(500)), ("Thumbs.db", b"\xd0\xcf" * 400),
                       ("viewer.exe", b"MZ" + bytes(2000)), ("readme.txt", b"text " * 90)):  # fmt: skip
        (tmp_path / name).write_bytes(data)
    zipped(tmp_path / "a", tmp_path / "old.zip")
    study = open_dicom(tmp_path)
    assert study.skipped == {"DICOMDIR": 1, "not DICOM": 4, ZIP: 1}
    with pytest.raises(
        InputError, match=r"2 series where one is needed.*by its place in the list of voxelrt info \(#2"
    ):
        read_image(tmp_path)
    assert (read_image(tmp_path, series="#2").volume.array[0] == octants() + 1).all()
    (tmp_path / "a" / "cut").write_bytes(next((tmp_path / "a").iterdir()).read_bytes()[:300])
    with pytest.raises(InputError, match="take it out \\(files are counted in the order of their names"):
        read_image(tmp_path, series=3)


def test_a_damaged_file_stops_only_a_series_that_it_may_be_of(tmp_path: Path) -> None:
    """A slice that is missing at the end of a stack leaves no gap, so whose it is must be known to pass it over."""
    two_series(tmp_path)
    damaged = tmp_path / "b" / "IM0000"
    whole = damaged.read_bytes()
    rows = b"\x28\0\x10\0US\2\0"
    assert rows in whole
    damaged.write_bytes(whole.replace(rows, b"\x28\0\x10\0US\3\0"))
    image = read_image(tmp_path, series=3)
    assert (image.volume.array[0] == octants()).all()
    assert "skipped 1 damaged file of another series" in image.warnings
    with pytest.raises(InputError, match=r"DICOM file 7 of 12 is damaged.*take it out"):
        read_image(tmp_path, series=7)
    # Of a file that is cut before it says its series, or within its UID, nobody knows.
    uid = whole.index(b"\x20\0\x0e\0UI")
    for kept in (uid, uid + 20):
        damaged.write_bytes(whole[:kept])
        for series in (3, 7):
            with pytest.raises(InputError, match="take it out"):
                read_image(tmp_path, series=series)


# Choosing


def two_series(folder: Path) -> tuple[list[FileDataset], list[FileDataset]]:
    ct, mr = dicom_series(octants()), dicom_series(octants() + 1, SeriesNumber=7, Modality="MR")
    for dataset in mr:
        dataset.SOPClassUID, dataset.SeriesDescription = MRImageStorage, "AX T2 FLAIR Doe"
    save_series(ct, folder / "a")
    save_series(mr, folder / "b")
    return ct, mr


def test_a_series_is_chosen_by_number_uid_or_pattern(tmp_path: Path) -> None:
    ct, mr = two_series(tmp_path)
    study = open_dicom(tmp_path)
    assert [series.number for series in study.series] == [3, 7]
    assert study.choose("7").uid == mr[0].SeriesInstanceUID
    assert study.choose(ct[0].SeriesInstanceUID).number == 3
    assert study.choose("#2").number == 7
    assert study.choose(patterns=["(?i)flair"]).number == 7
    assert study.choose(modality="CT").number == 3
    with pytest.raises(InputError, match="2 series where one is needed"):
        study.choose(patterns=["(?i)t1"])
    with pytest.raises(UsageError, match="no series has the UID that was given"):
        study.choose(generate_uid())


def test_info_lists_a_study_without_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def told(*options: str) -> str:
        with pytest.raises(SystemExit) as left:
            main(["info", str(tmp_path), *options])
        assert left.value.code == 0
        captured = capsys.readouterr()
        return captured.out + ("" if "--json" in options else captured.err)

    _, mr = two_series(tmp_path)
    broken = dicom_series(octants(), SeriesNumber=9)
    save_series(broken[:2] + broken[4:], tmp_path / "c")
    table, listed = told(), told("--json", "-")
    assert "AX T2 FLAIR …" in table
    assert "slices are missing" in table
    rows = json.loads(listed)["series"]
    assert [(row["series"], row["modality"], row["slices"]) for row in rows] == [
        (3, "CT", 6), (7, "MR", 6), (9, "CT", 4)
    ]  # fmt: skip
    assert rows[0]["spacing_mm_zyx"] == [2.0, 0.5, 0.75]
    assert rows[0]["orientation_xyz"] == "LPS"
    for said in (table, listed):
        assert not any(word in said for word in ("Doe", "SECRET", "1.2.826", mr[0].SeriesInstanceUID))
    assert "AX T2 FLAIR Doe" in told("--with-identifiers", "--json", "-")
    assert json.loads(told("--series", "9", "--repair", "--json", "-"))["shape_zyx"] == [6, 8, 10]


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("AX T2 FLAIR 5mm", "AX T2 FLAIR 5mm"), ("T1_MPRAGE_SAG", "T1 MPRAGE SAG"), ("DWI b1000", "DWI b1000"),
        ("John Smith 12.03.1961", "…"), ("Head SMITH 19610312", "Head …"), ("", ""),
    ],
)  # fmt: skip
def test_of_a_description_only_imaging_words_are_shown(text: str, safe: str) -> None:
    assert shown(text) == safe


# Several volumes in one series

MARKED: dict[str, tuple[str, list[Any]]] = {
    "time": ("TemporalPositionIdentifier", [1, 2, 3]),
    "b-value": ("DiffusionBValue", [0.0, 500.0, 1000.0]),
    "echo time": ("EchoTime", [4.6, 9.2, 13.8]),
    "trigger time": ("TriggerTime", [0, 40, 80]),
    "acquisition": ("AcquisitionNumber", [1, 2, 3]),
}


def marked_series(keyword: str, values: list[Any]) -> list[FileDataset]:
    common = {"SeriesInstanceUID": generate_uid(), "StudyInstanceUID": generate_uid(),
              "FrameOfReferenceUID": generate_uid(), "Modality": "MR", "SOPClassUID": MRImageStorage}  # fmt: skip
    return [
        dataset
        for number, value in enumerate(values)
        for dataset in dicom_series(octants() + 10 * number, **common, **{keyword: value})
    ]


@pytest.mark.parametrize("mark", MARKED)
def test_each_mark_splits_a_series_into_named_volumes(tmp_path: Path, mark: str) -> None:
    keyword, values = MARKED[mark]
    save_series(marked_series(keyword, values), tmp_path)
    series = open_dicom(tmp_path).choose()
    assert [name.startswith(f"{mark} {value:g}") for name, value in zip(series.volume_names, values, strict=True)]
    with pytest.raises(InputError, match=rf"3 volumes \(1: {mark}.*--volume"):
        read_image(tmp_path)
    assert (read_image(tmp_path, volume=2).volume.array[0] == octants() + 10).all()
    assert (read_image(tmp_path, volume=series.volume_names[2]).volume.array[0] == octants() + 20).all()
    every = read_image(tmp_path, volume="all").volume
    assert every.array.shape == (3, 6, 8, 10)
    assert (every.array == np.stack([octants() + 10 * k for k in range(3)])).all()
    with pytest.raises(UsageError, match="no volume '4'"):
        read_image(tmp_path, volume="4")


def test_trigger_times_that_differ_from_slice_to_slice_count_by_rank(tmp_path: Path) -> None:
    datasets = marked_series("TriggerTime", [0, 40])
    for number, dataset in enumerate(datasets):
        dataset.TriggerTime = 40 * (number // 6) + 3 * (number % 6)
    save_series(datasets, tmp_path)
    assert open_dicom(tmp_path).choose().volume_names == ("phase 1", "phase 2")
    assert (read_image(tmp_path, volume="phase 2").volume.array[0] == octants() + 10).all()


def test_two_marks_are_needed_for_two_echoes_at_two_times(tmp_path: Path) -> None:
    datasets = [*marked_series("EchoTime", [5, 10]), *marked_series("EchoTime", [5, 10])]
    for number, dataset in enumerate(datasets):
        dataset.TemporalPositionIdentifier = 1 + number // 12
        for name in ("SeriesInstanceUID", "FrameOfReferenceUID"):
            setattr(dataset, name, getattr(datasets[0], name))
    save_series(datasets, tmp_path)
    names = open_dicom(tmp_path).choose().volume_names
    assert names[0] == "time 1, echo time 5 ms"
    assert len(names) == 4


def test_nothing_that_tells_volumes_apart_is_refused(tmp_path: Path) -> None:
    datasets = marked_series("EchoTime", [5, 5])
    for number, dataset in enumerate(datasets):
        dataset.InstanceNumber = 1 + number % 2
    save_series(datasets, tmp_path)
    with pytest.raises(GeometryError, match="nothing in the files tells"):
        read_image(tmp_path)


# Enhanced multi-frame objects


def enhanced(stack: Any, *, per_frame: list[dict[str, Any]] | None = None) -> FileDataset:
    """An enhanced MR of (Z, Y, X), its frames in a shuffled order."""
    planes = list(range(len(stack)))[::-1]
    dataset = dicom_slice(stack[0], np.zeros(3), SOPClassUID=EnhancedMRImageStorage, Modality="MR")
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"):
        delattr(dataset, name)
    dataset.NumberOfFrames = len(stack)
    dataset.PixelData = np.ascontiguousarray(stack[planes]).tobytes()
    shared = Dataset()
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = Sequence([Dataset()]), Sequence([Dataset()])
    shared.PlaneOrientationSequence[0].ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    shared.PixelMeasuresSequence[0].PixelSpacing = [0.5, 0.75]
    dataset.SharedFunctionalGroupsSequence = Sequence([shared])
    groups = []
    for plane in planes:
        more = per_frame[plane] if per_frame else {}
        group = Dataset()
        group.PlanePositionSequence = Sequence([Dataset()])
        group.PlanePositionSequence[0].ImagePositionPatient = [-30, 10, 5 + 2 * more.get("place", plane)]
        group.PixelValueTransformationSequence = Sequence([Dataset()])
        group.PixelValueTransformationSequence[0].RescaleSlope = more.get("slope", 1)
        group.PixelValueTransformationSequence[0].RescaleIntercept = 0
        group.FrameContentSequence = Sequence([Dataset()])
        group.FrameContentSequence[0].TemporalPositionIndex = more.get("time", 1)
        groups.append(group)
    dataset.PerFrameFunctionalGroupsSequence = Sequence(groups)
    return dataset


def test_an_enhanced_object_is_sorted_and_each_frame_scaled(tmp_path: Path) -> None:
    slopes = [{"slope": 1 + plane} for plane in range(6)]
    save_series([enhanced(octants(), per_frame=slopes)], tmp_path)
    image = read_image(tmp_path)
    assert (image.volume.array[0] == octants() * (1 + np.arange(6))[:, None, None]).all()
    np.testing.assert_allclose(image.volume.affine[:3], [[0.75, 0, 0, -30], [0, 0.5, 0, 10], [0, 0, 2, 5]])
    assert isinstance(image.source, DicomSource)
    assert image.source.volume is not None
    assert [frame.index for frame in image.source.volume.frames] == [5, 4, 3, 2, 1, 0]


def test_an_enhanced_object_of_two_times_is_split(tmp_path: Path) -> None:
    stack = np.concatenate([octants(), octants() + 10])
    marks = [{"place": plane % 6, "time": 1 + plane // 6} for plane in range(12)]
    save_series([enhanced(stack, per_frame=marks)], tmp_path)
    assert open_dicom(tmp_path).choose().volume_names == ("time 1", "time 2")
    assert (read_image(tmp_path, volume="time 2").volume.array[0] == octants() + 10).all()


def test_source_elements_are_whole_and_headers_hold_no_patient(tmp_path: Path) -> None:
    save_series(dicom_series(octants()), tmp_path)
    source = read_image(tmp_path).source
    assert isinstance(source, DicomSource)
    assert source.volume is not None
    header = source.volume.frames[0].header
    assert header.source_elements().PatientName == PATIENT_NAME
    assert PATIENT_ID not in str(header.texts) + str(header.numbers) + str(header.nested) + repr(header)


# Repair


def test_missing_and_repeated_slices_are_repaired_on_request(tmp_path: Path) -> None:
    ramp = np.arange(6, dtype=np.int16)[:, None, None] * 100 + octants()
    series = dicom_series(ramp)
    again = dicom_slice(ramp[1], np.array([-30.0, 10, 7]), SeriesInstanceUID=series[0].SeriesInstanceUID,
                        FrameOfReferenceUID=series[0].FrameOfReferenceUID)  # fmt: skip
    save_series([*series[:3], *series[4:], again], tmp_path)
    image = read_image(tmp_path, repair=True)
    wanted = ramp.copy()
    wanted[3] = np.rint((ramp[2].astype(float) + ramp[4]) / 2)
    assert (image.volume.array[0] == wanted).all()
    said = "repaired: 1 of 6 planes were interpolated from their neighbours ((-30.00, 10.00, 11.00) mm)"
    assert said in image.warnings
    assert any("1 slices at the place of another were left out" in text for text in image.warnings)


def test_uneven_slices_are_resampled_linearly(tmp_path: Path) -> None:
    places = np.array([0.0, 2.0, 4.5, 6.0, 8.0, 10.0])
    ramp = (places[:, None, None] * 100 + np.zeros((1, 8, 10))).astype(np.int16)
    series = dicom_series(ramp)
    for dataset, place in zip(series, places, strict=True):
        dataset.ImagePositionPatient = [-30, 10, 5 + place]
    save_series(series, tmp_path)
    with pytest.raises(GeometryError, match="unevenly spaced"):
        read_image(tmp_path)
    image = read_image(tmp_path, repair=True)
    np.testing.assert_allclose(image.volume.array[0, :, 0, 0], np.arange(6) * 200, atol=0.5)
    np.testing.assert_allclose(image.volume.spacing_mm, (2.0, 0.5, 0.75))


def test_a_gap_too_wide_is_not_made_up(tmp_path: Path) -> None:
    series = dicom_series(octants((12, 8, 10)))
    save_series(series[:3] + series[9:], tmp_path)
    with pytest.raises(GeometryError, match="too wide a gap to interpolate"):
        read_image(tmp_path, repair=True)
