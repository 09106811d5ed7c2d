"""Pictures in DICOM: radiographs, mammograms, ultrasound, fundus; their lengths, directions, colours and display."""

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
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from pydicom.sequence import Sequence
from pydicom.uid import (
    DigitalMammographyXRayImageStorageForPresentation,
    DigitalXRayImageStorageForPresentation,
    OphthalmicPhotography8BitImageStorage,
    SecondaryCaptureImageStorage,
    UltrasoundMultiFrameImageStorage,
    generate_uid,
)

from tests.phantoms import dicom_slice, octants, save_series
from voxelrt.errors import InputError
from voxelrt.io import DicomSource, Image, open_dicom, read_image
from voxelrt.io.dicom import GeometryReport

SHIPPED = Path(pydicom.__file__).parent / "data" / "test_files"
PLACE = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness")
needs_openjpeg = pytest.mark.skipif(importlib.util.find_spec("openjpeg") is None, reason="openjpeg is not installed")
needs_libjpeg = pytest.mark.skipif(importlib.util.find_spec("libjpeg") is None, reason="pylibjpeg-libjpeg is missing")


def radiograph(**changes: Any) -> FileDataset:
    """A chest radiograph of 12 bits, 9 rows by 14 columns, without a place in the patient."""
    pixels = (np.arange(9)[:, None] * 300 + np.arange(14) * 90).astype(np.uint16)
    elements = {"Modality": "DX", "SOPClassUID": DigitalXRayImageStorageForPresentation, "BitsStored": 12,
                "HighBit": 11, "SeriesInstanceUID": generate_uid(), **dict.fromkeys(PLACE)}  # fmt: skip
    return dicom_slice(pixels, np.zeros(3), **(elements | changes))


def read(datasets: list[FileDataset], folder: Path, **options: Any) -> Image:
    return read_image(save_series(datasets, folder, order=list(range(len(datasets)))), **options)


def report(image: Image) -> GeometryReport:
    assert isinstance(image.source, DicomSource)
    assert image.source.report is not None
    return image.source.report


@pytest.mark.parametrize(
    ("elements", "spacing", "said"),
    [
        ({"ImagerPixelSpacing": [0.2, 0.1]}, (0.2, 0.1), "at the detector (ImagerPixelSpacing), which are larger"),
        ({"ImagerPixelSpacing": [0.2, 0.1], "EstimatedRadiographicMagnificationFactor": 1.25}, (0.16, 0.08),
         "divided by the magnification 1.25"),
        ({"ImagerPixelSpacing": [0.2, 0.1], "PixelSpacing": [0.18, 0.09]}, (0.18, 0.09), "lengths are calibrated"),
        ({"ImagerPixelSpacing": [0.2, 0.1], "PixelSpacing": [0.2, 0.1]}, (0.2, 0.1), "PixelSpacing is Imager"),
        ({"NominalScannedPixelSpacing": [0.3, 0.3]}, (0.3, 0.3), "on the scanned film"),
        ({"PixelAspectRatio": [2, 1]}, (2.0, 1.0), "no lengths: a pixel counts as 1 mm"),
        ({}, (1.0, 1.0), "no lengths: a pixel counts as 1 mm"),
    ],
)  # fmt: skip
def test_lengths_of_a_radiograph_say_where_they_come_from(
    tmp_path: Path, elements: dict[str, Any], spacing: tuple[float, float], said: str
) -> None:
    image = read([radiograph(**elements)], tmp_path)
    assert image.volume.spacing_mm == pytest.approx((1.0, *spacing))
    assert any(said in line for line in image.warnings), image.warnings
    assert "a picture has no depth: it counts as 1 mm" in image.warnings


@pytest.mark.parametrize(
    ("said", "codes", "row", "column"),
    [(["L", "F"], "LI-", (1, 0, 0), (0, 0, -1)), (["A", "FR"], "AI-", (0, -1, 0), (0, 0, -1)),
     (["P", "L"], "PL-", (0, 1, 0), (1, 0, 0))],
)  # fmt: skip
def test_directions_of_a_radiograph_are_those_it_says(
    tmp_path: Path, said: list[str], codes: str, row: Any, column: Any
) -> None:
    image = read([radiograph(PatientOrientation=said)], tmp_path)
    assert image.orientation_xyz == codes
    assert (image.volume.affine[:3, 0] == row).all()
    assert (image.volume.affine[:3, 1] == column).all()


@pytest.mark.parametrize("said", [None, ["L"], ["L", "R"], ["X", "F"]])
def test_directions_that_nothing_says_are_not_made_up(tmp_path: Path, said: Any) -> None:
    image = read([radiograph(**({} if said is None else {"PatientOrientation": said}))], tmp_path)
    assert image.orientation_xyz == "---"
    assert "the file does not say where rows and columns point to in the patient" in image.warnings


def test_the_views_of_a_mammogram_are_named_and_chosen(tmp_path: Path) -> None:
    uid = generate_uid()
    kind = {"Modality": "MG", "SOPClassUID": DigitalMammographyXRayImageStorageForPresentation,
            "SeriesInstanceUID": uid}  # fmt: skip
    views = [("L", "CC"), ("R", "CC"), ("L", "MLO"), ("R", "MLO"), ("L", "CC")]
    made = [radiograph(**kind, ImageLaterality=side, ViewPosition=view) for side, view in views]
    del made[2].ViewPosition
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "R-10226", "SRT", "medio-lateral oblique"
    made[2].ViewCodeSequence = Sequence([code])
    for number, dataset in enumerate(made):
        dataset.PixelData = np.full((9, 14), number, np.uint16).tobytes()
    with pytest.raises(InputError, match=r"5 pictures \(1: left CC, 2: right CC, 3: left MLO, 4: right MLO"):
        read(made, tmp_path)
    assert (read_image(tmp_path, volume="right MLO").volume.array == 3).all()
    assert (read_image(tmp_path, volume="left CC (5)").volume.array == 4).all()
    assert read_image(tmp_path, volume="all").volume.array.shape == (5, 1, 9, 14)


# Display


@pytest.mark.parametrize("function", [None, "LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize("photometric", ["MONOCHROME2", "MONOCHROME1"])
def test_a_window_shows_what_pydicoms_does(tmp_path: Path, function: str | None, photometric: str) -> None:
    elements = {"WindowCenter": [1500.5, 40], "WindowWidth": [1700, 400], "PhotometricInterpretation": photometric,
                **({"VOILUTFunction": function} if function else {})}  # fmt: skip
    dataset = radiograph(**elements)
    wanted = apply_voi_lut(apply_modality_lut(dataset.pixel_array, dataset), dataset) / 4095 * 255
    image = read([dataset], tmp_path, displayed=True)
    found = image.volume.array[0, 0]
    assert found.dtype == np.float32
    np.testing.assert_allclose(255 - found if photometric == "MONOCHROME1" else found, wanted, atol=1e-4)
    assert any(f"centre 1500.5 and width 1700 ({function or 'LINEAR'})" in line for line in image.warnings)
    assert (read([dataset], tmp_path).volume.array[0, 0] == dataset.pixel_array).all()


def test_a_voi_table_shows_what_pydicoms_does_and_goes_before_a_window(tmp_path: Path) -> None:
    table = Dataset()
    table.LUTDescriptor = [3000, 200, 12]
    entries = np.linspace(0, 4095, 3000) ** 2 // 4095
    table.add_new("LUTData", "OW", entries.astype("<u2").tobytes())
    dataset = radiograph(VOILUTSequence=Sequence([table]), WindowCenter=40, WindowWidth=400)
    stored = dataset.pixel_array.astype(np.int64)
    wanted = entries.astype(int)[np.clip(stored - 200, 0, 2999)] * 255 / 4095
    image = read([dataset], tmp_path, displayed=True)
    np.testing.assert_allclose(image.volume.array[0, 0], wanted, atol=1e-3)
    # pydicom's unsigned difference wraps around below the first entry.
    safe, theirs = stored >= 200, apply_voi_lut(dataset.pixel_array, dataset).astype(float) * 255 / 4095
    np.testing.assert_allclose(image.volume.array[0, 0][safe], theirs[safe], atol=1e-3)
    assert "shown by the VOI LUT of the file, as 0 to 255" in image.warnings


def test_without_a_window_all_values_are_shown_and_a_wrong_one_is_refused(tmp_path: Path) -> None:
    shown = read([radiograph()], tmp_path / "a", displayed=True)
    assert (shown.volume.array.min(), shown.volume.array.max()) == (0, 255)
    assert any("names no window" in line for line in shown.warnings)
    with pytest.raises(InputError, match="width 0 cannot be shown"):
        read([radiograph(WindowCenter=40, WindowWidth=0)], tmp_path / "b", displayed=True)
    flat = dicom_slice(np.full((3, 4), 7, np.uint16), np.zeros(3), **dict.fromkeys(PLACE), Modality="DX",
                       SOPClassUID=DigitalXRayImageStorageForPresentation)  # fmt: skip
    assert (read([flat], tmp_path / "c", displayed=True).volume.array == 0).all()


# Colour and ultrasound


def cine(pixels: NDArray[Any], **changes: Any) -> FileDataset:
    """An ultrasound cine (frames, rows, columns, 3)."""
    elements: dict[str, Any] = {"Modality": "US", "SOPClassUID": UltrasoundMultiFrameImageStorage, **changes}
    dataset = dicom_slice(pixels[0, ..., 0], np.zeros(3), **(dict.fromkeys(PLACE) | elements))
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, "RGB", 0
    dataset.NumberOfFrames, dataset.PixelData = len(pixels), pixels.tobytes()
    dataset.FrameTime = 40
    return dataset


def region(box: tuple[int, int, int, int], delta: tuple[float, float], units: int = 3, kind: int = 1) -> Dataset:
    made = Dataset()
    made.RegionLocationMinX0, made.RegionLocationMinY0, made.RegionLocationMaxX1, made.RegionLocationMaxY1 = box
    made.PhysicalDeltaX, made.PhysicalDeltaY = delta
    made.PhysicalUnitsXDirection = made.PhysicalUnitsYDirection = units
    made.RegionDataType, made.RegionSpatialFormat = kind, 1
    return made


def test_a_cine_is_frames_of_colours_with_the_lengths_of_its_largest_region(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 20, 30, 3), dtype=np.uint8)
    regions = [region((0, 0, 9, 9), (0.01, 0.01)), region((0, 0, 29, 15), (0.02, 0.03)),
               region((0, 16, 29, 19), (0.1, 0.1), units=4, kind=3), region((0, 0, 99, 99), (0.5, 0.5))]  # fmt: skip
    image = read([cine(pixels, SequenceOfUltrasoundRegions=Sequence(regions), BurnedInAnnotation="YES")], tmp_path)
    assert (image.volume.array == pixels.transpose(3, 0, 1, 2)).all()
    assert image.volume.spacing_mm == pytest.approx((1.0, 0.3, 0.2))
    said = "\n".join(image.warnings)
    assert "the 5 planes are frames in time, 40 ms apart" in said
    assert "region 2 (tissue): columns 0 to 29, rows 0 to 15, pixels of 0.3 × 0.2 mm" in said
    assert "region 3 (spectrum of flow): columns 0 to 29, rows 16 to 19, not measured in lengths" in said
    assert "region 4 (tissue): columns 0 to 99, rows 0 to 99, outside of the picture" in said
    assert "it may name the patient" in said


@pytest.mark.parametrize(
    "name",
    ["examples_rgb_color.dcm", "examples_palette.dcm", "ExplVR_BigEnd.dcm",
     pytest.param("examples_jpeg2k.dcm", marks=needs_openjpeg),
     pytest.param("examples_ybr_color.dcm", marks=needs_libjpeg)],
)  # fmt: skip
def test_colours_of_real_ultrasound_are_pydicoms(name: str) -> None:
    dataset = pydicom.dcmread(SHIPPED / name)
    wanted = dataset.pixel_array
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        wanted = pydicom.pixels.apply_color_lut(wanted, dataset)
        wanted = (wanted >> 8).astype(np.uint8) if wanted.dtype != np.uint8 else wanted
    found = read_image(SHIPPED / name).volume.array
    assert found.dtype == np.uint8
    assert (found == np.moveaxis(wanted.reshape(-1, *wanted.shape[-3:]), 3, 0)).all()


def test_a_fundus_photograph_is_colours_and_a_capture_counts_by_its_modality(tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (1, 7, 9, 3), dtype=np.uint8)
    fundus = cine(pixels, Modality="OP", SOPClassUID=OphthalmicPhotography8BitImageStorage, PixelSpacing=[0.01, 0.01])
    image = read([fundus], tmp_path / "fundus")
    assert (image.volume.array[:, 0] == pixels[0].transpose(2, 0, 1)).all()
    assert image.volume.modality == "OP"
    assert image.volume.spacing_mm == pytest.approx((1.0, 0.01, 0.01))
    film = radiograph(Modality="CR", SOPClassUID=SecondaryCaptureImageStorage)
    assert read([film], tmp_path / "film").volume.shape_zyx == (1, 9, 14)
    screenshot = radiograph(Modality="CT", SOPClassUID=SecondaryCaptureImageStorage)
    with pytest.raises(InputError, match="1 secondary capture"):
        read([screenshot], tmp_path / "screenshot")


def test_regions_that_are_no_sequence_are_none(tmp_path: Path) -> None:
    # Found by fuzzing: an element of another kind under the tag of the regions.
    made = cine(np.zeros((1, 5, 6, 3), np.uint8))
    made.add_new("SequenceOfUltrasoundRegions", "US", 3)
    assert read([made], tmp_path).volume.spacing_mm == (1, 1, 1)


@pytest.mark.parametrize("broken", ["samples", "palette", "short"])
def test_damaged_colours_are_input_errors(tmp_path: Path, broken: str) -> None:
    dataset = cine(np.zeros((2, 5, 6, 3), np.uint8))
    if broken == "samples":
        dataset.SamplesPerPixel = 200
    elif broken == "palette":
        dataset.PhotometricInterpretation, dataset.SamplesPerPixel = "PALETTE COLOR", 1
        dataset.add_new("RedPaletteColorLookupTableDescriptor", "US", struct.pack("<3H", 4, 0, 16)[0])
    else:
        dataset.PixelData = bytes(100)
    with pytest.raises(InputError):
        read([dataset], tmp_path)


def test_volumes_stay_volumes(tmp_path: Path) -> None:
    # A CT without positions is no picture: it is refused as before.
    made = [
        dicom_slice(plane, np.zeros(3), SeriesInstanceUID="1.2.3", ImagePositionPatient=None) for plane in octants()
    ]
    save_series(made, tmp_path)
    assert not open_dicom(tmp_path).series[0].pictures
    with pytest.raises(InputError, match="has no ImagePositionPatient"):
        read_image(tmp_path)
