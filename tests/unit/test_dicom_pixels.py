"""Pixels of DICOM: every transfer syntax equals its uncompressed twin, and stored values become the modality's."""

from __future__ import annotations

import importlib.util
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
    RLELossless,
)

from tests.phantoms import dicom_series, dicom_slice, octants, save_series
from voxelrt.commands.console import Screen
from voxelrt.commands.study_info import study_info
from voxelrt.errors import GeometryError, InputError
from voxelrt.io import read_image
from voxelrt.io.dicom import contents
from voxelrt.io.dicom.contents import FileContent
from voxelrt.io.dicom.header import read_header
from voxelrt.io.dicom.pixels import Job, Shelf, decode_picture, refuse_what_is_not_read

SHIPPED = Path(pydicom.__file__).parent / "data" / "test_files"
_more = importlib.util.find_spec("data_store")
MORE = Path(_more.origin).parent / "data" if _more is not None and _more.origin else None
CODECS = all(importlib.util.find_spec(name) for name in ("openjpeg", "jpeg_ls", "libjpeg"))
needs_codecs = pytest.mark.skipif(not CODECS, reason="dicom-codecs is not installed")
needs_more = pytest.mark.skipif(MORE is None, reason="pydicom-data is not installed")


def frames(path: Path) -> NDArray[Any]:
    header = read_header(FileContent(path), "the DICOM file")
    assert header is not None
    refuse_what_is_not_read(header, colour=True)
    jobs = [Job(header, index, ()) for index in range(header.frames)]
    shelf = Shelf(jobs)
    return np.stack([decode_picture(header, job.index, shelf) for job in jobs])


def same(folder: Path, compressed: str, plain: str) -> None:
    one, other = frames(folder / compressed), frames(folder / plain)
    assert one.dtype == other.dtype
    assert (one == other).all()
    assert len(np.unique(other)) > 5


# With pydicom alone.


@pytest.mark.parametrize("twin", ["RLE", "bigendian", "expb", "implicit", "padded"])
def test_files_of_pydicom_equal_their_twins(twin: str) -> None:
    same(SHIPPED, f"MR_small_{twin}.dcm", "MR_small.dcm")


@pytest.mark.parametrize("twin", ["expb", "rle"])
def test_frames_of_32_bits_equal_their_twins(twin: str) -> None:
    same(SHIPPED, f"rtdose_{twin}.dcm", "rtdose.dcm")


def test_a_deflated_file_is_pydicoms() -> None:
    wanted = pydicom.dcmread(SHIPPED / "image_dfl.dcm").pixel_array
    assert (frames(SHIPPED / "image_dfl.dcm")[0] == wanted).all()


def test_a_big_endian_colour_of_odd_size_is_its_twin() -> None:
    same(SHIPPED, "SC_rgb_small_odd_big_endian.dcm", "SC_rgb_small_odd.dcm")


# With the extra.


@needs_codecs
@pytest.mark.parametrize("twin", ["jp2klossless", "jpeg_ls_lossless"])
def test_lossless_codes_equal_their_twins(twin: str) -> None:
    same(SHIPPED, f"MR_small_{twin}.dcm", "MR_small.dcm")


@needs_codecs
@needs_more
@pytest.mark.parametrize(
    ("compressed", "plain"),
    [
        ("693_J2KR.dcm", "693_UNCR.dcm"), ("MR2_J2KR.dcm", "MR2_UNCR.dcm"),
        ("RG1_J2KR.dcm", "RG1_UNCR.dcm"), ("RG3_J2KR.dcm", "RG3_UNCR.dcm"), ("US1_J2KR.dcm", "US1_UNCR.dcm"),
        ("emri_small_RLE.dcm", "emri_small.dcm"), ("emri_small_jpeg_2k_lossless.dcm", "emri_small.dcm"),
        ("emri_small_jpeg_ls_lossless.dcm", "emri_small.dcm"), ("emri_small_big_endian.dcm", "emri_small.dcm"),
        ("OBXXXX1A_rle_2frame.dcm", "OBXXXX1A_2frame.dcm"), ("OBXXXX1A_expb_2frame.dcm", "OBXXXX1A_2frame.dcm"),
    ],
)  # fmt: skip
def test_more_lossless_codes_equal_their_twins(compressed: str, plain: str) -> None:
    assert MORE is not None
    same(MORE, compressed, plain)


@needs_codecs
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "folder", [SHIPPED, pytest.param(MORE, marks=[pytest.mark.slow, needs_more])], ids=["pydicom", "pydicom-data"]
)
def test_every_file_that_pydicom_reads_is_read_the_same(folder: Path) -> None:
    read = 0
    for path in sorted(folder.glob("*.dcm")):
        try:
            dataset = pydicom.dcmread(path)
            wanted = dataset.pixel_array
        except Exception:  # noqa: BLE001 - what pydicom itself refuses is no measure
            continue
        if dataset.BitsAllocated == 1:
            continue
        found = frames(path)
        assert (found.reshape(wanted.shape) == wanted).all(), path.name
        read += 1
    assert read > 30


# From stored values to the modality's.


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, RLELossless])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16])
def test_a_series_is_the_same_in_every_syntax(tmp_path: Path, syntax: Any, dtype: Any) -> None:
    stored = octants(dtype=dtype) * 9
    series = dicom_series(stored)
    for dataset in series:
        if syntax == RLELossless:
            dataset.compress(syntax, generate_instance_uid=False)
            continue
        dataset["PixelData"].VR = "OW" if dtype != np.uint8 else "OB"
        dataset.file_meta.TransferSyntaxUID = syntax
    assert (read_image(save_series(series, tmp_path)).volume.array[0] == stored).all()


def test_padding_of_ct_becomes_the_lowest_value_and_of_mr_stays(tmp_path: Path) -> None:
    stored = octants() * 100
    stored[0, 0, :3] = -2000
    image = read_image(save_series(dicom_series(stored, PixelPaddingValue=-2000), tmp_path / "ct"))
    assert (image.volume.array[0] == np.where(stored == -2000, 100, stored)).all()
    assert "3 padded voxels (PixelPaddingValue) were given the lowest value of the image, 100" in image.warnings
    mr = dicom_series(stored, PixelPaddingValue=-2000, Modality="MR", SOPClassUID=MRImageStorage)
    assert (read_image(save_series(mr, tmp_path / "mr")).volume.array[0] == stored).all()


def test_a_modality_table_is_looked_up_and_held_at_its_ends(tmp_path: Path) -> None:
    table = Dataset()
    table.LUTDescriptor, table.ModalityLUTType = [6, 2, 16], "US"
    table.add_new("LUTData", "OW", struct.pack("<6H", 100, 200, 300, 400, 500, 60000))
    stored = octants(dtype=np.uint16)
    image = read_image(save_series(dicom_series(stored, ModalityLUTSequence=Sequence([table])), tmp_path))
    wanted = np.array([0, 100, 100, 200, 300, 400, 500, 60000, 60000])
    assert (image.volume.array[0] == wanted[stored]).all()


def test_float_pixels_are_read(tmp_path: Path) -> None:
    values = octants().astype(np.float32) / 3
    series = dicom_series(octants())
    for dataset, plane in zip(series, values, strict=True):
        del dataset.PixelData, dataset.PixelRepresentation, dataset.BitsStored, dataset.HighBit
        dataset.BitsAllocated, dataset.FloatPixelData = 32, plane.tobytes()
    image = read_image(save_series(series, tmp_path))
    assert (image.volume.array[0] == values).all()
    assert image.volume.array.dtype == np.float32


def pet(**changes: Any) -> list[Any]:
    tracer = Dataset()
    tracer.RadionuclideTotalDose, tracer.RadionuclideHalfLife = 370e6, 6586.2
    tracer.RadiopharmaceuticalStartTime = "100000"
    elements = {
        "Modality": "PT", "SOPClassUID": PositronEmissionTomographyImageStorage, "Units": "BQML",
        "PatientWeight": 74, "DecayCorrection": "START", "CorrectedImage": ["ATTN", "DECY"], "SeriesTime": "110000",
        "AcquisitionTime": "110001", "RadiopharmaceuticalInformationSequence": Sequence([tracer]),
        "RescaleSlope": 2, "RescaleIntercept": 0, **changes,
    }  # fmt: skip
    return dicom_series(octants() * 1000, **{name: value for name, value in elements.items() if value is not None})


def test_pet_becomes_uptake_by_body_weight(tmp_path: Path) -> None:
    image = read_image(save_series(pet(), tmp_path))
    # An hour is 3600 / 6586.2 half-lives; 74 kg are 74000 g.
    factor = 74_000 / (370e6 * 0.5 ** (3600 / 6586.2))
    np.testing.assert_allclose(image.volume.array[0], octants() * 2000 * factor, rtol=1e-6)
    assert any("SUVbw" in text for text in image.warnings)


def test_a_tracer_that_lasts_for_days_counts_from_the_date_of_its_injection(tmp_path: Path) -> None:
    zirconium = Dataset()
    zirconium.RadionuclideTotalDose, zirconium.RadionuclideHalfLife = 37e6, 282_276.0
    zirconium.RadiopharmaceuticalStartDateTime = "20240101100000"
    more = {"RadiopharmaceuticalInformationSequence": Sequence([zirconium]), "SeriesDate": "20240104"}
    image = read_image(save_series(pet(**more, AcquisitionDate="20240104"), tmp_path / "a"))
    factor = 74_000 / (37e6 * 0.5 ** ((3 * 24 + 1) * 3600 / 282_276))
    np.testing.assert_allclose(image.volume.array[0], octants() * 2000 * factor, rtol=1e-6)
    del zirconium.RadiopharmaceuticalStartDateTime
    zirconium.RadiopharmaceuticalStartTime = "100000"
    image = read_image(save_series(pet(**more), tmp_path / "b"))
    assert any("lasts for days" in text for text in image.warnings)


@pytest.mark.parametrize("made", ["012400", "103000", "235900"])
def test_a_series_made_on_a_later_day_was_scanned_when_its_images_were(tmp_path: Path, made: str) -> None:
    series = pet(AcquisitionDate="20240102", SeriesDate="20240103", SeriesTime=made)
    factor = 74_000 / (370e6 * 0.5 ** (3601 / 6586.2))
    image = read_image(save_series(series, tmp_path))
    np.testing.assert_allclose(image.volume.array[0], octants() * 2000 * factor, rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"PatientWeight": None}, "weight"), ({"CorrectedImage": ["ATTN"]}, "decay"),
        ({"DecayCorrection": "NONE"}, "decay"), ({"RadiopharmaceuticalInformationSequence": None}, "dose"),
        ({"SeriesTime": "090000"}, "before the injection"),
    ],
)  # fmt: skip
def test_pet_that_does_not_say_enough_stays_and_says_why(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    image = read_image(save_series(pet(**changes), tmp_path))
    assert (image.volume.array[0] == octants() * 2000).all()
    assert any("left in Bq/mL" in text and reason in text for text in image.warnings)


# Siemens mosaics


def csa(**fields: list[str]) -> bytes:
    made = b"SV10\4\3\2\1" + struct.pack("<II", len(fields), 77)
    for name, values in fields.items():
        made += struct.pack("<64si4siii", name.encode(), len(values), b"FD", 3, len(values), 77)
        for value in values:
            text = value.encode() + b"\0"
            made += struct.pack("<4i", len(text), len(text), 77, len(text)) + text + bytes(-len(text) % 4)
    return made


def mosaic(header: bytes) -> FileDataset:
    """The phantom as six of nine tiles, with a maker's header."""
    tiles = np.zeros((9, 8, 10), np.int16)
    tiles[:6] = octants()
    sheet = tiles.reshape(3, 3, 8, 10).transpose(0, 2, 1, 3).reshape(24, 30)
    dataset = dicom_slice(sheet, np.array([0.0, 0, 7]), ImageType=["ORIGINAL", "PRIMARY", "M", "MOSAIC"],
                          SpacingBetweenSlices=3, Modality="MR", SOPClassUID=MRImageStorage)  # fmt: skip
    dataset.add_new((0x0029, 0x0010), "LO", "SIEMENS CSA HEADER")
    dataset.add_new((0x0029, 0x1010), "OB", header)
    return dataset


def test_a_mosaic_is_taken_apart_and_placed(tmp_path: Path) -> None:
    header = csa(NumberOfImagesInMosaic=["6"], SliceNormalVector=["0.0", "0.0", "1.0"])
    dataset = mosaic(header)
    image = read_image(save_series([dataset], tmp_path, order=[0]))
    assert (image.volume.array[0] == octants()).all()
    # The mosaic's corner, moved by half of what it is wider and higher than a slice.
    np.testing.assert_allclose(image.volume.affine[:3, 3], [20 * 0.75 / 2, 16 * 0.5 / 2, 7])
    np.testing.assert_allclose(image.volume.spacing_mm, (3, 0.5, 0.75))
    save_series(dicom_series(octants((6, 8, 12))), tmp_path / "ct")
    rows = study_info(str(tmp_path), Screen(quiet=True))["series"]
    assert [(row["modality"], row["size_yx"]) for row in rows] == [("MR", [8, 10]), ("CT", [8, 12])]
    # Found by fuzzing: a normal of two numbers.
    short = mosaic(csa(NumberOfImagesInMosaic=["6"], SliceNormalVector=["0.0", "0.0"]))
    with pytest.raises(GeometryError, match="does not say where its slices lie"):
        read_image(save_series([short], tmp_path / "a", order=[0]))
    del dataset[0x0029, 0x1010]
    with pytest.raises(GeometryError, match="does not say how many slices"):
        read_image(save_series([dataset], tmp_path / "b", order=[0]))


# Hostile files


def test_a_deflate_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    series = dicom_series(np.zeros((1, 512, 512), np.int16))
    series[0].file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    save_series(series, tmp_path, order=[0])
    assert (tmp_path / "IM0000").stat().st_size < 5000
    monkeypatch.setattr(contents, "MAX_INFLATED_BYTES", 100_000)
    with pytest.raises(InputError, match="holds more than"):
        read_image(tmp_path)


def test_sequences_in_sequences_without_end_are_refused(tmp_path: Path) -> None:
    whole = (save_series(dicom_series(octants()[:1]), tmp_path, order=[0]) / "IM0000").read_bytes()
    at = whole.index(b"\x08\x00\x16\x00UI")
    nested = b"\x08\x00\x15\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff" * 20_000
    (tmp_path / "IM0000").write_bytes(whole[:at] + nested + whole[at:])
    with pytest.raises(InputError):
        read_image(tmp_path)


@pytest.mark.parametrize("syntax", ["raw", "rle"])
def test_huge_declared_sizes_allocate_nothing(tmp_path: Path, syntax: str) -> None:
    series = dicom_series(octants()[:1])
    if syntax == "rle":
        series[0].compress(RLELossless, generate_instance_uid=False)
    series[0].Rows = series[0].Columns = 65535
    with pytest.raises(InputError):
        read_image(save_series(series, tmp_path, order=[0]))
