"""Derived series: the same values at the same places when they are read again, and headers that say what was done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from tests.dicom_readers import errors_of
from tests.phantoms import PATIENT_ID, dicom_series, octants, save_series
from tests.unit.test_dicom_segmentation import ALGORITHM, OBLIQUE, enhanced, tilted
from voxelrt.errors import GeometryError, OutputError, UsageError
from voxelrt.io import DicomSource, Image, read_image
from voxelrt.io.dicom.derived_series import DEFORMED, DENOISED, write_derived_series
from voxelrt.io.dicom.stored import to_stored
from voxelrt.volume import Volume

# What a real header has and the phantom's leaves out.
FULL: dict[str, Any] = {
    "StudyDate": "20240102",
    "StudyTime": "101112",
    "StudyID": "7",
    "AccessionNumber": "A1",
    "PatientBirthDate": "19500102",
    "PatientSex": "F",
    "ReferringPhysicianName": "",
    "Manufacturer": "Scanners",
    "BodyPartExamined": "HEAD",
    "WindowCenter": 40,
    "WindowWidth": 400,
    "SmallestImagePixelValue": 3,
    "PixelPaddingValue": 7,
}


def opened(study: Path) -> tuple[Image, DicomSource]:
    image = read_image(study)
    assert isinstance(image.source, DicomSource)
    return image, image.source


def files_of(folder: Path) -> list[pydicom.Dataset]:
    return [pydicom.dcmread(path) for path in sorted(folder.iterdir())]


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_whole_numbers_come_back_exactly_on_the_same_slices(tmp_path: Path, modality: str) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 4000, (5, 8, 10)).astype(np.int16)
    rescale = {"RescaleSlope": 1, "RescaleIntercept": -1024} if modality == "CT" else {"ScanningSequence": "GR"}
    more = {} if modality == "CT" else {"SequenceVariant": "NONE", "RepetitionTime": 5}
    series = dicom_series(pixels, orientation=OBLIQUE, Modality=modality, **FULL, **rescale, **more)
    for one in series:
        one.add_new((0x0011, 0x0010), "LO", "SOMEBODY")
        one.add_new((0x6000, 0x3000), "OW", b"\0\0")
        if modality == "MR":
            one.SOPClassUID = one.file_meta.MediaStorageSOPClassUID = pydicom.uid.MRImageStorage
    image, source = opened(save_series(series, tmp_path / "a"))
    values = rng.integers(-1000, 3000, image.volume.array.shape).astype(np.int16)
    out = tmp_path / "out"
    write_derived_series(image.volume.with_array(values), out, source, ALGORITHM, DENOISED)
    again, _ = opened(out)
    np.testing.assert_array_equal(again.volume.array, values)
    np.testing.assert_allclose(again.volume.affine, image.volume.affine, atol=1e-6)
    files = files_of(out)
    assert [path.name for path in sorted(out.iterdir())] == [f"IM{k:04d}.dcm" for k in range(1, 6)]
    by_uid = {one.SOPInstanceUID: one for one in series}
    for file in files:
        (reference,) = file.SourceImageSequence
        original = by_uid[reference.ReferencedSOPInstanceUID]
        assert file.ImagePositionPatient == original.ImagePositionPatient
        assert file.ImageType == ["DERIVED", "PRIMARY", "AXIAL", "DENOISED"]
        for name in ("PatientName", "PatientID", "StudyInstanceUID", "FrameOfReferenceUID", "WindowCenter", "StudyID"):
            assert file[name].value == original[name].value
        assert "ab" * 32 in file.DerivationDescription
        assert file.ContributingEquipmentSequence[0].Manufacturer == "VoxelRT"
        assert file.DerivationCodeSequence[0].CodeMeaning == "Smoothing"
        gone = ("SmallestImagePixelValue", "PixelPaddingValue")
        assert not any(name in file for name in gone)
        assert not any(e.tag.is_private or e.tag.group == 0x6000 for e in file)
        assert ("RescaleSlope" in file) == (modality == "CT")
    assert len({file.SeriesInstanceUID for file in files} | {series[0].SeriesInstanceUID}) == 2
    assert not {file.SOPInstanceUID for file in files} & set(by_uid)
    assert errors_of(sorted(out.iterdir())[0]) == []


@pytest.mark.parametrize(("low", "high"), [(-3.7e-4, 8.1e-4), (-1e5, 1.3e5), (1000.0, 1000.001), (2.5, 2.5)])
def test_fractions_come_back_within_half_a_step(tmp_path: Path, low: float, high: float) -> None:
    values = np.random.default_rng(1).uniform(low, high, (1, 4, 8, 10))
    values.flat[:2] = low, high
    image, source = opened(save_series(dicom_series(octants((4, 8, 10))), tmp_path / "a"))
    write_derived_series(image.volume.with_array(values), tmp_path / "out", source, ALGORITHM, DENOISED)
    step = float(files_of(tmp_path / "out")[0].RescaleSlope)
    assert step <= max((high - low) / 65532, 0 if high > low else 1)
    read = np.stack(
        [f.pixel_array * float(f.RescaleSlope) + float(f.RescaleIntercept) for f in files_of(tmp_path / "out")]
    )
    assert np.abs(read - values[0]).max() <= step / 2 * (1 + 1e-6) + 1e-12 * abs(high)


def test_stored_values_of_every_kind() -> None:
    for values in (np.array([-1024, 3071]), np.array([0, 65535]), np.array([-40000, 20000]), np.array([True, False])):
        made = to_stored(values, intercept=-1024)
        np.testing.assert_array_equal(made.array * float(made.slope) + float(made.intercept), values)
    positive = to_stored(np.array([0.0, 0.1, 7.25]), through_zero=True)
    both = to_stored(np.array([-3.0, 0.1, 7.25]), through_zero=True)
    assert (float(positive.intercept), float(both.intercept), both.array.dtype) == (0, 0, np.int16)
    wide = to_stored(np.array([-(2**20), 2**20]))
    assert abs(wide.array * float(wide.slope) + float(wide.intercept) - [-(2**20), 2**20]).max() <= float(wide.slope)
    with pytest.raises(UsageError, match="NaN"):
        to_stored(np.array([0.0, np.nan]))


def test_a_tilted_series_an_enhanced_object_and_pet(tmp_path: Path) -> None:
    image, source = opened(save_series(tilted(), tmp_path / "a"))
    write_derived_series(image.volume, tmp_path / "tilted", source, ALGORITHM, DENOISED)
    again, _ = opened(tmp_path / "tilted")
    np.testing.assert_allclose(again.volume.affine, image.volume.affine, atol=1e-6)
    np.testing.assert_array_equal(again.volume.array, image.volume.array)

    image, source = opened(save_series([enhanced(octants(), [3, 0, 5, 1, 4, 2])], tmp_path / "b", order=[0]))
    write_derived_series(image.volume, tmp_path / "enhanced", source, ALGORITHM, DENOISED)
    again, _ = opened(tmp_path / "enhanced")
    np.testing.assert_array_equal(again.volume.array[0], octants())
    np.testing.assert_allclose(again.volume.affine, image.volume.affine, atol=1e-6)
    (file,) = files_of(tmp_path / "enhanced")
    for z, item in enumerate(file.PerFrameFunctionalGroupsSequence):
        assert item.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber == [2, 4, 6, 1, 5, 3][z]

    dose = pydicom.Dataset()
    dose.RadiopharmaceuticalStartTime, dose.RadionuclideTotalDose, dose.RadionuclideHalfLife = "090000", 4e8, 6586.2
    pet = dicom_series(
        octants(), Modality="PT", Units="BQML", DecayCorrection="START", PatientWeight=70, SeriesTime="100000",
        SeriesDate="20240102", AcquisitionTime="100000", AcquisitionDate="20240102", RescaleSlope=1000,
        RescaleIntercept=0, CorrectedImage=["ATTN", "DECY"], RadiopharmaceuticalInformationSequence=[dose],
    )  # fmt: skip
    image, source = opened(save_series(pet, tmp_path / "c"))
    assert any("SUVbw" in text for text in image.warnings)
    write_derived_series(image.volume, tmp_path / "pet", source, ALGORITHM, DENOISED)
    again, _ = opened(tmp_path / "pet")
    np.testing.assert_allclose(again.volume.array, image.volume.array, rtol=1e-4)
    file = files_of(tmp_path / "pet")[0]
    assert (file.Units, file.RescaleIntercept) == ("BQML", 0)


def test_a_warped_series_lies_in_the_study_of_the_other(tmp_path: Path) -> None:
    fixed, on = opened(save_series(dicom_series(octants(), orientation=OBLIQUE, StudyID="current"), tmp_path / "fixed"))
    prior = dicom_series(octants((4, 6, 6)), StudyID="prior", EchoTime=12, Modality="MR", SliceLocation=3)
    _moving, source = opened(save_series(prior, tmp_path / "moving"))
    values = np.random.default_rng(3).integers(0, 99, fixed.volume.array.shape).astype(np.int16)
    made = Volume(values, fixed.volume.affine, modality="MR")
    write_derived_series(made, tmp_path / "out", on, ALGORITHM, DEFORMED, moving=source)
    again, _ = opened(tmp_path / "out")
    np.testing.assert_array_equal(again.volume.array, values)
    np.testing.assert_allclose(again.volume.affine, fixed.volume.affine, atol=1e-6)
    for file in files_of(tmp_path / "out"):
        assert (file.StudyID, file.EchoTime, file.Modality) == ("current", 12, "MR")
        assert file.FrameOfReferenceUID == on.frame_of_reference_uid
        assert {r.ReferencedSOPInstanceUID for r in file.SourceImageSequence} == set(source.sop_instance_uids)
        assert "SliceLocation" not in file
    other = dicom_series(octants(), PatientID="another")
    _, foreign = opened(save_series(other, tmp_path / "foreign"))
    with pytest.raises(UsageError, match="different patients") as caught:
        write_derived_series(made, tmp_path / "no", on, ALGORITHM, DEFORMED, moving=foreign)
    assert PATIENT_ID not in str(caught.value)
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize("onto", ["enhanced", "single"])
def test_an_enhanced_object_warped_is_one_again(tmp_path: Path, onto: str) -> None:
    planes = octants((4, 7, 9))
    fixed = [enhanced(planes, [2, 0, 3, 1])] if onto == "enhanced" else dicom_series(planes, orientation=OBLIQUE)
    for one in fixed:
        one.StudyID = "current"
    image, on = opened(save_series(fixed, tmp_path / "fixed"))
    prior = enhanced(octants(), [3, 0, 5, 1, 4, 2])
    echo = pydicom.Dataset()
    echo.EffectiveEchoTime = 12.0
    prior.StudyID = "prior"
    for k, item in enumerate(prior.PerFrameFunctionalGroupsSequence):
        content = pydicom.Dataset()
        content.StackID, content.InStackPositionNumber, content.FrameAcquisitionNumber = "7", k + 1, 5
        item.FrameContentSequence, item.MREchoSequence = [content], [echo]
    _moving, source = opened(save_series([prior], tmp_path / "moving", order=[0]))
    values = np.random.default_rng(3).normal(0, 99, image.volume.array.shape).astype(np.float32)
    made = Volume(values, image.volume.affine, modality="MR")
    write_derived_series(made, tmp_path / "out", on, ALGORITHM, DEFORMED, moving=source)
    again, _ = opened(tmp_path / "out")
    np.testing.assert_allclose(again.volume.array, values, atol=0.02)
    np.testing.assert_allclose(again.volume.affine, image.volume.affine, atol=1e-6)
    (file,) = files_of(tmp_path / "out")
    assert (file.StudyID, file.NumberOfFrames, file.SOPClassUID) == ("current", 4, prior.SOPClassUID)
    assert file.FrameOfReferenceUID == on.frame_of_reference_uid
    (shared,) = file.SharedFunctionalGroupsSequence
    assert shared.MREchoSequence[0].EffectiveEchoTime == 12
    (reference,) = shared.DerivationImageSequence[0].SourceImageSequence
    assert (reference.ReferencedSOPInstanceUID, list(reference.ReferencedFrameNumber)) == (
        prior.SOPInstanceUID, [1, 2, 3, 4, 5, 6],
    )  # fmt: skip
    numbers = [item.FrameContentSequence[0].DimensionIndexValues for item in file.PerFrameFunctionalGroupsSequence]
    assert numbers == [[1, 1], [1, 2], [1, 3], [1, 4]]
    assert not any(name in item for item in file.PerFrameFunctionalGroupsSequence for name in ("MREchoSequence",))


def test_reproducible_series_and_what_is_refused(tmp_path: Path) -> None:
    image, source = opened(save_series(dicom_series(octants()), tmp_path / "a"))
    for name in ("one", "two"):
        write_derived_series(image.volume, tmp_path / name, source, ALGORITHM, DENOISED, uids="reproducible")
    assert [p.read_bytes() for p in sorted((tmp_path / "one").iterdir())] == [
        p.read_bytes() for p in sorted((tmp_path / "two").iterdir())
    ]
    with pytest.raises(OutputError, match="holds something"):
        write_derived_series(image.volume, tmp_path / "one", source, ALGORITHM, DENOISED)
    with pytest.raises(UsageError, match="one channel"):
        two = image.volume.with_array(np.concatenate([image.volume.array] * 2))
        write_derived_series(two, tmp_path / "no", source, ALGORITHM, DENOISED)
    with pytest.raises(GeometryError):
        moved = Volume(image.volume.array, image.volume.affine @ np.diag([1, 1, 1.1, 1]))
        write_derived_series(moved, tmp_path / "no", source, ALGORITHM, DENOISED)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "one", "two"]
