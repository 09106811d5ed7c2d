"""DICOM series: placed by position whatever the order and direction, or refused with the reason and without names."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.pixels import get_decoder
from pydicom.uid import (
    MPEG2MPML,
    JPEGLSLossless,
    MRImageStorage,
    RLELossless,
    SecondaryCaptureImageStorage,
    generate_uid,
)

from tests.phantoms import PATIENT_ID, PATIENT_NAME, dicom_series, dicom_slice, octants, rotation, save_series
from voxelrt.errors import GeometryError, InputError, MissingExtraError, UsageError
from voxelrt.io import DicomSource, Image, read_dicom_series, read_image, write_image
from voxelrt.io.dicom import pixels
from voxelrt.io.orientation import axis_codes, reorient

OBLIQUE = tuple(float(v) for v in rotation()[:, :2].T.reshape(-1))
# Axial with rows or columns reversed, coronal, sagittal, and one along no axis.
ORIENTATIONS = {
    "axial": (1, 0, 0, 0, 1, 0), "rows reversed": (-1, 0, 0, 0, 1, 0), "columns reversed": (1, 0, 0, 0, -1, 0),
    "both reversed": (-1, 0, 0, 0, -1, 0), "coronal": (1, 0, 0, 0, 0, -1), "sagittal": (0, 1, 0, 0, 0, -1),
    "oblique": OBLIQUE,
}  # fmt: skip


def refusal(folder: Path, error: type[Exception] = GeometryError, **options: Any) -> str:
    """The message with which a folder is refused; it never names the patient or a UID."""
    with pytest.raises(error) as caught:
        read_dicom_series(folder, **options)
    message = str(caught.value)
    assert PATIENT_NAME not in message
    assert PATIENT_ID not in message
    assert "1.2.826" not in message
    return message


@pytest.mark.parametrize("name", ORIENTATIONS)
@pytest.mark.parametrize("files_reversed", [False, True])
def test_every_voxel_lands_where_its_slice_says(tmp_path: Path, name: str, files_reversed: bool) -> None:
    orientation = ORIENTATIONS[name]
    phantom = octants()
    series = dicom_series(phantom, orientation=orientation)
    save_series(series, tmp_path, order=list(range(6))[:: -1 if files_reversed else 1])
    image = read_image(tmp_path)
    assert (image.volume.array[0] == phantom).all()
    assert image.volume.array.dtype == np.int16
    assert image.volume.modality == "CT"
    assert image.volume.spacing_mm == pytest.approx((2.0, 0.5, 0.75))
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    for k in (0, 3, 5):
        # PS3.3 C.7.6.2.1.1: position + column index × row direction × column spacing + row index × ...
        wanted = np.array([float(v) for v in series[k].ImagePositionPatient]) + 7 * row * 0.75 + 4 * column * 0.5
        np.testing.assert_allclose((image.volume.affine @ [7, 4, k, 1])[:3], wanted, atol=1e-6)


def test_canonical_order_is_the_same_from_every_direction(tmp_path: Path) -> None:
    """The same patient scanned with reversed rows, columns or slices gives the same volume in LPS order."""
    phantom = octants()
    flips = {(1, 0, 0, 0, 1, 0): phantom, (-1, 0, 0, 0, 1, 0): phantom[::-1, :, ::-1],
             (1, 0, 0, 0, -1, 0): phantom[::-1, ::-1, :], (-1, 0, 0, 0, -1, 0): phantom[:, ::-1, ::-1]}  # fmt: skip
    for number, (orientation, stored) in enumerate(flips.items()):
        folder = save_series(dicom_series(stored, orientation=orientation), tmp_path / str(number))
        turned, _ = reorient(read_image(folder).volume)
        assert axis_codes(turned.affine) == "LPS"
        assert (turned.array[0] == phantom).all()


def test_a_result_written_as_nifti_lies_on_the_series(tmp_path: Path) -> None:
    image = read_image(save_series(dicom_series(octants(), orientation=OBLIQUE), tmp_path / "in"))
    write_image(image.volume, tmp_path / "out.nii.gz", source=image.source)
    written = nibabel.load(tmp_path / "out.nii.gz")
    np.testing.assert_allclose(np.diag([-1, -1, 1, 1]) @ written.affine, image.volume.affine, atol=1e-4)
    assert (octants() == written.get_fdata().T).all()


def test_the_source_keeps_the_files_in_slice_order_and_hides_uids(tmp_path: Path) -> None:
    series = dicom_series(octants())
    image = read_image(save_series(series, tmp_path))
    assert isinstance(image.source, DicomSource)
    assert image.source.sop_instance_uids == tuple(s.SOPInstanceUID for s in series)
    assert len(image.source.files) == 6
    assert series[0].StudyInstanceUID not in repr(image.source)
    assert str(tmp_path) not in repr(image.source)


# Values


def test_rescale_to_hounsfield_units_stays_int16(tmp_path: Path) -> None:
    stored = (octants() * 100).astype(np.uint16)
    volume = read(tmp_path, stored, RescaleSlope=1, RescaleIntercept=-1024).volume
    assert volume.array.dtype == np.int16
    assert (volume.array[0] == octants() * 100 - 1024).all()


def test_unsigned_values_beyond_int16_and_fractional_slopes_become_float32(tmp_path: Path) -> None:
    stored = (octants() * 8000).astype(np.uint16)
    volume = read(tmp_path / "a", stored).volume
    assert volume.array.dtype == np.float32
    assert (volume.array[0] == stored).all()
    volume = read(tmp_path / "b", octants(), RescaleSlope=0.5, RescaleIntercept=-1.25).volume
    assert volume.array.dtype == np.float32
    assert (volume.array[0] == octants() * 0.5 - 1.25).all()


def test_each_slice_has_its_own_slope_and_intercept(tmp_path: Path) -> None:
    series = dicom_series(octants())
    for k, dataset in enumerate(series):
        dataset.RescaleSlope, dataset.RescaleIntercept = (1 if k < 3 else 2 + k), -k
    volume = read_image(save_series(series, tmp_path)).volume
    for k in range(6):
        assert (volume.array[0, k] == octants()[k] * (1 if k < 3 else 2 + k) - k).all()


def test_negative_values_in_twelve_bits_keep_their_sign_and_overlays_are_cleared(tmp_path: Path) -> None:
    values = octants() - 5
    stored = ((values & 0x0FFF) | 0x5000).astype(np.int16)
    volume = read(tmp_path, stored, BitsStored=12, HighBit=11).volume
    assert (volume.array[0] == values).all()


def test_monochrome1_is_kept_and_said(tmp_path: Path) -> None:
    image = read(tmp_path, octants(), PhotometricInterpretation="MONOCHROME1")
    assert (image.volume.array[0] == octants()).all()
    assert any("6 of 6 slices are MONOCHROME1" in w for w in image.warnings)


def test_eight_bits_and_one_slice(tmp_path: Path) -> None:
    image = read(tmp_path, octants(dtype=np.uint8)[:1])
    assert image.volume.array.shape == (1, 1, 8, 10)
    assert image.volume.spacing_mm[0] == 99
    assert any("depth of 99 mm is taken from SliceThickness" in w for w in image.warnings)


def test_run_length_encoding_is_read_without_an_extra(tmp_path: Path) -> None:
    series = dicom_series(octants())
    for dataset in series:
        dataset.compress(RLELossless, generate_instance_uid=False)
    assert (read_image(save_series(series, tmp_path)).volume.array[0] == octants()).all()


def test_a_missing_decoder_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    series = dicom_series(octants())
    for dataset in series:
        dataset.compress(RLELossless, generate_instance_uid=False)
        dataset.file_meta.TransferSyntaxUID = JPEGLSLossless
    save_series(series, tmp_path)
    decoder = get_decoder(JPEGLSLossless)
    monkeypatch.setattr(decoder, "_available", {})
    with pytest.raises(MissingExtraError, match=r"JPEG-LS.*voxelrt\[dicom-codecs\]"):
        read_dicom_series(tmp_path)


# Files


def test_what_is_no_slice_is_skipped_and_said(tmp_path: Path) -> None:
    save_series(dicom_series(octants()), tmp_path / "deep" / "er")
    (tmp_path / "notes.dcm").write_text("not DICOM " * 30)
    (tmp_path / "empty").write_bytes(b"")
    capture = dicom_slice(octants()[0], np.zeros(3), SOPClassUID=SecondaryCaptureImageStorage)
    scout = dicom_slice(octants()[0], np.zeros(3), ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    save_series([capture], tmp_path / "b")
    save_series([scout, scout], tmp_path / "c", order=[0, 1])
    image = read_image(tmp_path)
    assert image.volume.shape_zyx == (6, 8, 10)
    assert set(image.warnings) == {
        "skipped 2 files: not DICOM", "skipped 1 file: secondary capture", "skipped 2 files: localiser"
    }  # fmt: skip


def test_a_file_without_preamble_is_read(tmp_path: Path) -> None:
    save_series(dicom_series(octants()), tmp_path)
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[132:])
    assert (read_image(tmp_path).volume.array[0] == octants()).all()


def test_only_skipped_files_is_an_error_that_counts_them(tmp_path: Path) -> None:
    assert "no files" in refusal(tmp_path, InputError)
    (tmp_path / "x.dcm").write_text("text " * 50)
    assert "1 not DICOM" in refusal(tmp_path, InputError)
    assert "does not exist" in refusal(tmp_path / "gone", InputError)


def test_two_series_are_listed_without_names_and_can_be_chosen(tmp_path: Path) -> None:
    save_series(dicom_series(octants()), tmp_path / "a")
    other = dicom_series(octants()[:4] + 1, SeriesNumber=7, Modality="MR", SOPClassUID=MRImageStorage)
    save_series(other, tmp_path / "b")
    message = refusal(tmp_path, InputError)
    assert "2 series where one is needed: CT series 3 (6 images), MR series 7 (4 images)" in message
    assert read_image(tmp_path, series=7).volume.array.shape == (1, 4, 8, 10)
    assert "no series has the number 9" in refusal(tmp_path, UsageError, series=9)


def test_copies_of_a_file_are_skipped(tmp_path: Path) -> None:
    series = dicom_series(octants())
    save_series(series, tmp_path)
    save_series(series[:2], tmp_path / "again", order=[0, 1])
    image = read_image(tmp_path)
    assert (image.volume.array[0] == octants()).all()
    assert any("skipped 2 files: copies" in w for w in image.warnings)


@pytest.mark.parametrize("kept", [140, 300, 600, 900, -100, -1])
def test_a_truncated_file_is_an_input_error(tmp_path: Path, kept: int) -> None:
    save_series(dicom_series(octants()), tmp_path)
    path = sorted(tmp_path.iterdir())[2]
    content = path.read_bytes()
    path.write_bytes(content[: kept if kept > 0 else len(content) + kept])
    refusal(tmp_path, InputError)


def test_random_damage_ends_in_our_errors_only(
    tmp_path: Path, recwarn: pytest.WarningsRecorder, caplog: pytest.LogCaptureFixture
) -> None:
    """Also not in a remark of pydicom: with a wrong length these quote whatever comes next, such as the name."""
    rng = np.random.default_rng(3)
    path = save_series(dicom_series(octants()[:1]), tmp_path) / "IM0000"
    whole = path.read_bytes()
    said: list[str] = []
    for _ in range(200):
        content = bytearray(whole)
        for place in rng.integers(128, len(whole) - 160, rng.integers(1, 6)):
            content[place] = rng.integers(0, 256)
        path.write_bytes(content)
        try:
            read_dicom_series(path)
        except (InputError, MissingExtraError) as error:
            said.append(str(error))
    assert len(said) > 20
    assert not any(part in text for text in said for part in ("Confid", "SECRET", "1.2.8"))
    assert not list(recwarn)
    assert not caplog.records


# Geometry


def test_repeated_positions(tmp_path: Path) -> None:
    series = dicom_series(octants())
    series[4].ImagePositionPatient = series[3].ImagePositionPatient
    message = refusal(save_series(series, tmp_path))
    assert "1 slice lies at the place of another ((-30.00, 10.00, 11.00) mm)" in message


def test_a_missing_slice(tmp_path: Path) -> None:
    series = dicom_series(octants())
    message = refusal(save_series(series[:2] + series[3:], tmp_path))
    assert "4.000 mm between (-30.00, 10.00, 7.00), (-30.00, 10.00, 11.00) mm where the median is 2.000 mm" in message


def test_uneven_spacing_is_refused_and_rounding_is_only_said(tmp_path: Path) -> None:
    series = dicom_series(octants())
    series[2].ImagePositionPatient = [-30, 10, 9.06]
    image = read_image(save_series(series, tmp_path / "a"))
    assert any("up to 0.060 mm off the even grid of 2.000 mm" in w for w in image.warnings)
    series[2].ImagePositionPatient = [-30, 10, 9.3]
    message = refusal(save_series(series, tmp_path / "b"))
    assert "(-30.00, 10.00, 9.30) mm lies 0.300 mm off" in message
    assert "5% of the spacing" in message


def test_gantry_tilt(tmp_path: Path) -> None:
    series = dicom_series(octants())
    for k, dataset in enumerate(series):
        dataset.ImagePositionPatient = [-30, 10 + 0.3 * k, 5 + 2 * k]
    image = read_image(save_series(series, tmp_path))
    np.testing.assert_allclose(image.volume.affine[:3, 2], [0, 0.3, 2], atol=1e-9)
    assert (image.volume.array[0] == octants()).all()
    assert any("8.53 degrees off" in text for text in image.warnings)
    assert any("the affine is sheared" in text for text in image.warnings)
    assert isinstance(image.source, DicomSource)
    assert image.source.report is not None
    assert image.source.report.tilt_degrees == pytest.approx(np.degrees(np.arctan2(0.3, 2)))


def test_a_drift_below_the_limit_is_followed_exactly(tmp_path: Path) -> None:
    series = dicom_series(octants())
    for k, dataset in enumerate(series):
        dataset.ImagePositionPatient = [-30, 10 + 0.01 * k, 5 + 2 * k]
    affine = read_image(save_series(series, tmp_path)).volume.affine
    np.testing.assert_allclose(affine[:3, 2], [0, 0.01, 2], atol=1e-12)


def change(**changes: Any) -> Any:
    def apply(dataset: Dataset) -> None:
        for name, value in changes.items():
            delattr(dataset, name) if value is None else setattr(dataset, name, value)

    return apply


@pytest.mark.parametrize(
    ("alter", "message"),
    [
        (change(ImageOrientationPatient=[0, 1, 0, 1, 0, 0]), "different orientation: 1 of 6"),
        (change(Rows=4, PixelData=bytes(80)), "different size"),
        (change(PixelSpacing=[1, 1]), "different pixel spacing"),
        (change(FrameOfReferenceUID=generate_uid()), "different frame of reference"),
    ],
)
def test_mixed_series_name_a_place_in_mm(tmp_path: Path, alter: Any, message: str) -> None:
    series = dicom_series(octants())
    alter(series[3])
    found = refusal(save_series(series, tmp_path))
    assert message in found
    # IM0003 of IM0000 ... IM0005 holds the slice that was altered.
    assert " mm; give a folder without DICOM file " in found
    assert "(counted in the order of their names)" in found


@pytest.mark.parametrize(
    ("alter", "error", "message"),
    [
        (change(ImagePositionPatient=None), GeometryError, "no ImagePositionPatient"),
        (change(ImageOrientationPatient=None), GeometryError, "no ImageOrientationPatient"),
        (change(PixelSpacing=None), GeometryError, "no PixelSpacing"),
        (change(PixelSpacing=[0, 1]), GeometryError, "must be positive"),
        (change(ImagePositionPatient=[1, 2]), GeometryError, "2 values instead of 3"),
        (change(ImageOrientationPatient=[1, 0, 0, 1, 0, 0]), GeometryError, "right angles"),
        (change(ImageOrientationPatient=[2, 0, 0, 0, 1, 0]), GeometryError, "right angles"),
        (change(NumberOfFrames=6), GeometryError, "at the place of another"),
        (change(ImageType=["ORIGINAL", "PRIMARY", "M", "MOSAIC"]), InputError, "mosaic"),
        (change(SamplesPerPixel=3, PhotometricInterpretation="RGB"), InputError, "not a grey image .*RGB"),
        (change(RescaleSlope=0, RescaleIntercept=0), InputError, "slope 0"),
        (change(ModalityLUTSequence=[Dataset()]), InputError, "look-up table"),
        (change(Rows=None), InputError, "no Rows"),
        (change(PixelData=None), InputError, "no whole pixel data"),
        (change(Rows=60000), InputError, "truncated"),
        (change(HighBit=12), InputError, "high bit 12"),
        (change(BitsStored=0), InputError, "no BitsStored"),
    ],
)
def test_what_cannot_be_a_volume_is_refused(tmp_path: Path, alter: Any, error: type[Exception], message: str) -> None:
    series = dicom_series(octants()[:2])
    for dataset in series:
        alter(dataset)
    save_series(series, tmp_path, order=[0, 1])
    with pytest.raises(error, match=message):
        read_dicom_series(tmp_path)


def test_unknown_transfer_syntaxes_are_refused(tmp_path: Path) -> None:
    series = dicom_series(octants()[:1])
    series[0].compress(RLELossless, generate_instance_uid=False)
    series[0].file_meta.TransferSyntaxUID = MPEG2MPML
    save_series(series, tmp_path, order=[0])
    assert "is not read" in refusal(tmp_path, InputError)


def test_a_series_too_large_is_refused_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixels, "MAX_VOLUME_BYTES", 100)
    assert "6 slices of 8 × 10" in refusal(save_series(dicom_series(octants()), tmp_path), InputError)


@pytest.mark.filterwarnings("error")
def test_nothing_is_said_behind_the_callers_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """pydicom remarks on odd values by quoting them; here none of the patient's elements is even parsed."""
    series = dicom_series(octants())
    save_series(series, tmp_path)
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes().replace(b"SECRET-4711", b"SECRET\xff\xfe711"))
    read_image(tmp_path)
    captured = capsys.readouterr()
    assert captured.out + captured.err == ""
    assert "SECRET" not in repr(sys.exc_info())


def read(folder: Path, stored: NDArray[Any], **changes: Any) -> Image:
    return read_image(save_series(dicom_series(stored, **changes), folder))
