"""Where voxels of DICOM lie: random grids there and back, against SimpleITK and nibabel, and on real series."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.phantoms import dicom_series, octants, rotation, save_series
from tests.real_data import head_ct, mosaic, oblique_mr
from voxelrt.errors import GeometryError
from voxelrt.io import DicomSource, read_image, write_image

AXES = np.eye(3)


def sheared_series(turn: Any, spacing: tuple[float, float, float], shear: tuple[float, float], flip: bool) -> list[Any]:
    """The phantom on a grid that is turned, anisotropic, tilted and perhaps stacked downward."""
    row, column = turn[:, 0], turn[:, 1]
    normal = np.cross(row, column) * (-1 if flip else 1)
    cosines = tuple(float(v) for v in (*row, *column))
    series = dicom_series(octants(), orientation=cosines, PixelSpacing=[spacing[1], spacing[2]])
    step = normal * spacing[0] + row * shear[0] + column * shear[1]
    for k, dataset in enumerate(series):
        dataset.ImagePositionPatient = [f"{v:.10g}"[:16] for v in np.array([-30.0, 10, 5]) + k * step]
    return series


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    degrees=st.floats(-180, 180),
    order=st.permutations([0, 1, 2]),
    signs=st.tuples(*[st.sampled_from([-1, 1])] * 2),
    spacing=st.tuples(*[st.floats(0.3, 7)] * 3),
    shear=st.tuples(*[st.floats(-0.3, 0.3)] * 2),
    flip=st.booleans(),
)
def test_random_grids_come_back_through_dicom_and_nifti(
    degrees: float, order: list[int], signs: tuple[int, int], spacing: Any, shear: Any, flip: bool
) -> None:
    turn = rotation(degrees) @ AXES[:, order] * np.array([signs[0], signs[1], 1])
    lean = (shear[0] * spacing[0], shear[1] * spacing[0])
    series = sheared_series(turn, spacing, lean, flip)
    with tempfile.TemporaryDirectory() as folder:
        image = read_image(save_series(series, Path(folder) / "in"))
        for k in range(6):
            plane = image.volume.array[0, 5 - k if flip else k]
            assert (plane == octants()[k]).all()
            # PS3.3 C.7.6.2.1.1 on the written elements, not on what they were made from.
            position, cosines = np.array(series[k].ImagePositionPatient), np.array(series[k].ImageOrientationPatient)
            rows, columns = (float(v) for v in series[k].PixelSpacing)
            wanted = position + 7 * columns * cosines[:3] + 4 * rows * cosines[3:]
            found = (image.volume.affine @ [7, 4, 5 - k if flip else k, 1])[:3]
            assert np.abs(found - wanted).max() < 1e-3
        write_image(image.volume, Path(folder) / "out.nii.gz", source=image.source)
        again = read_image(Path(folder) / "out.nii.gz")
        assert (again.volume.array == image.volume.array).all()
        corner = np.array([9, 7, 5, 1])
        assert np.abs((again.volume.affine - image.volume.affine) @ corner).max() < 1e-3


@pytest.mark.parametrize("flip", [False, True])
def test_simpleitk_puts_every_voxel_at_the_same_place(tmp_path: Path, flip: bool) -> None:
    sitk = pytest.importorskip("SimpleITK", reason="SimpleITK is not installed")
    series = sheared_series(rotation(35), (2.5, 0.5, 0.75), (0, 0), flip)
    image = read_image(save_series(series, tmp_path))
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path)))
    other = reader.Execute()
    array = sitk.GetArrayFromImage(other)
    assert image.volume.array[0].shape == array.shape
    inverse = np.linalg.inv(image.volume.affine)
    for index in ((0, 0, 0), (9, 0, 0), (0, 7, 0), (0, 0, 5), (9, 7, 5), (3, 2, 1)):
        world = other.TransformIndexToPhysicalPoint(index)
        x, y, z, _ = inverse @ [*world, 1]
        assert np.abs(image.volume.affine @ [round(x), round(y), round(z), 1] - [*world, 1]).max() < 1e-3
        assert image.volume.array[0, round(z), round(y), round(x)] == array[index[::-1]]


def test_a_real_oblique_series_lies_where_gdcm_puts_each_slice() -> None:
    sitk = pytest.importorskip("SimpleITK", reason="SimpleITK is not installed")
    image = read_image(oblique_mr())
    source = image.source
    assert isinstance(source, DicomSource)
    assert image.volume.shape_zyx == (20, 256, 256)
    assert image.volume.spacing_mm[0] == pytest.approx(7.0, abs=0.01)  # SliceThickness says 5, SpacingBetweenSlices 2
    for z, path in enumerate(source.files):
        slice_ = sitk.ReadImage(str(path))
        world = np.array(slice_.TransformIndexToPhysicalPoint((200, 100, 0)))
        found = (image.volume.affine @ [200, 100, z, 1])[:3]
        # The series is uneven by up to 0.086 mm, which is said; its ends are exact.
        assert np.abs(found - world).max() < (1e-3 if z in (0, 19) else 0.09)
        assert (sitk.GetArrayFromImage(slice_)[0] == image.volume.array[0, z]).all()
    assert any("up to 0.086 mm off the even grid" in text for text in image.warnings)


@pytest.mark.filterwarnings("ignore:The DICOM readers are highly experimental")
def test_a_real_mosaic_lies_where_nibabel_puts_it() -> None:
    path = mosaic()
    from nibabel.nicom.dicomwrappers import wrapper_from_file

    image, other = read_image(path), wrapper_from_file(path)
    # nibabel's first axis is the row, ours the column.
    np.testing.assert_allclose(image.volume.affine, other.affine[:, [1, 0, 2, 3]], atol=1e-3)
    assert (image.volume.array[0].transpose(1, 2, 0) == other.get_data()).all()


# The real head CT, as scanners with a tilted gantry and with two distances of slices would write it.


def head_series(tilt_degrees: float, places: list[int]) -> tuple[Any, list[Any]]:
    """Slices `places` of the head CT and their DICOM files; the table moves along z, the slices are tilted about x."""
    values, (dz, dy, dx) = head_ct()
    kept = values[places]
    angle = np.radians(tilt_degrees)
    cosines = (1.0, 0.0, 0.0, 0.0, float(np.cos(angle)), float(-np.sin(angle)))
    series = dicom_series(kept, orientation=cosines, PixelSpacing=[dy, dx], RescaleIntercept=-24, RescaleSlope=1)
    for dataset, place in zip(series, places, strict=True):
        dataset.ImagePositionPatient = [-122.5, -110.25, f"{40 + place * dz:.10g}"]
    return kept - 24, series


def same_places(image: Any, wanted: Any) -> None:
    """Each file's voxels, in the world and in value, are those that GDCM reads of the file on its own."""
    sitk = pytest.importorskip("SimpleITK", reason="SimpleITK is not installed")
    assert image.volume.shape_zyx == wanted.shape
    for z, path in list(enumerate(image.source.files))[::9]:
        other = sitk.ReadImage(str(path))
        for column, row in ((0, 0), (255, 0), (17, 200), (255, 255)):
            world = np.array(other.TransformIndexToPhysicalPoint((column, row, 0)))
            assert np.abs((image.volume.affine @ [column, row, z, 1])[:3] - world).max() < 1e-3
        assert (image.volume.array[0, z] == sitk.GetArrayFromImage(other)[0]).all()
        assert (image.volume.array[0, z] == wanted[z]).all()


def test_a_tilted_head_ct_keeps_every_voxel_at_its_place(tmp_path: Path) -> None:
    wanted, series = head_series(17.5, list(range(0, 108, 2)))
    image = read_image(save_series(series, tmp_path))
    same_places(image, wanted)
    assert any("stacked 17.50 degrees off their normal" in line for line in image.warnings)
    assert any("the tilt was kept: the affine is sheared" in line for line in image.warnings)


def test_a_tilted_head_ct_is_straightened_on_request(tmp_path: Path) -> None:
    wanted, series = head_series(17.5, list(range(0, 108, 2)))
    image = read_image(save_series(series, tmp_path), straighten=True)
    affine, values = image.volume.affine, image.volume.array[0]
    assert abs(affine[:3, 2] @ affine[:3, 0]) < 1e-6
    assert abs(affine[:3, 2] @ affine[:3, 1]) < 1e-6
    sheared = read_image(tmp_path).volume
    # Whatever lies on a plane lies there still: its value is that of the plane at the same place.
    rng, inverse, checked = np.random.default_rng(2), np.linalg.inv(sheared.affine), 0
    for x, y, z in rng.integers(0, np.array(values.shape[::-1]), (400, 3)):
        column, row, plane, _ = inverse @ affine @ [x, y, z, 1]
        assert abs(plane - z) < 1e-6
        if 1 <= row < 254 and 0 <= column <= 255:
            low = int(np.floor(row + 1e-9))
            part = row - low
            at = round(column)
            between = (1 - part) * wanted[z, low, at] + part * wanted[z, low + 1, at]
            assert abs(float(values[z, y, x]) - between) <= 0.5 + 1e-3
            checked += 1
    assert checked > 200
    assert any("the tilt was straightened" in line for line in image.warnings)
    assert not any("the tilt was kept" in line for line in image.warnings)


def test_an_uneven_head_ct_is_refused_and_repaired_on_request(tmp_path: Path) -> None:
    places = [*range(59), *range(60, 108, 2)]
    wanted, series = head_series(0, places)
    with pytest.raises(GeometryError, match=r"slices are missing: 3\.000 mm between"):
        read_image(save_series(series, tmp_path))
    image = read_image(tmp_path, repair=True)
    values, _ = head_ct()
    made = image.volume.array[0]
    assert made.shape == (107, 256, 256)
    for z, one in zip(places, wanted, strict=True):
        assert (made[z] == one).all()
        assert np.abs((image.volume.affine @ [0, 0, z, 1])[:3] - [-122.5, -110.25, 40 + 1.5 * z]).max() < 1e-3
    mean = np.rint((values[70].astype(float) + values[72]) / 2) - 24
    assert (made[71] == mean).all()
    assert any("24 of 107 planes were interpolated" in line for line in image.warnings)


def test_an_enhanced_ct_lies_where_gdcm_puts_it() -> None:
    sitk = pytest.importorskip("SimpleITK", reason="SimpleITK is not installed")
    store = pytest.importorskip("data_store", reason="pydicom-data is not installed")
    path = Path(store.__file__).parent / "data" / "eCT_Supplemental.dcm"
    image, other = read_image(path), sitk.ReadImage(str(path))
    values, inverse = sitk.GetArrayFromImage(other), np.linalg.inv(image.volume.affine)
    assert image.volume.shape_zyx == values.shape == (2, 512, 512)
    for index in ((0, 0, 0), (511, 0, 0), (3, 500, 1), (511, 511, 1)):
        world = np.array([*other.TransformIndexToPhysicalPoint(index), 1])
        x, y, z, _ = np.rint(inverse @ world).astype(int)
        assert np.abs(image.volume.affine @ [x, y, z, 1] - world).max() < 1e-3
        assert image.volume.array[0, z, y, x] == values[index[::-1]]
    assert (image.volume.array[0] == values[::-1]).all()  # ours are sorted along their normal


def test_slices_off_their_line_are_refused_even_with_repair(tmp_path: Path) -> None:
    series = dicom_series(octants())
    series[2].ImagePositionPatient = [-28, 10, 9]
    with pytest.raises(GeometryError, match="unevenly spaced"):
        read_image(save_series(series, tmp_path))
    with pytest.raises(GeometryError, match="beside the line"):
        read_image(tmp_path, repair=True)


def test_a_tilted_result_written_as_nifti_keeps_its_shear(tmp_path: Path) -> None:
    series = sheared_series(np.eye(3), (2.0, 0.5, 0.75), (0, 0.6), False)
    image = read_image(save_series(series, tmp_path / "in"))
    write_image(image.volume, tmp_path / "out.nii.gz", source=image.source)
    written = nibabel.load(tmp_path / "out.nii.gz")
    np.testing.assert_allclose(np.diag([-1, -1, 1, 1]) @ written.affine, image.volume.affine, atol=1e-4)
