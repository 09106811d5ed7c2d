"""A phantom with another label in each octant comes back voxel-equal, however its file is turned."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.phantoms import dicom_series, forty_eight, octants, rotation, save_series
from tests.pipeline.counting import counting, save
from voxelrt.io import read_image, write_nifti
from voxelrt.io.orientation import axis_codes, reorient
from voxelrt.pipeline import predict, prepare
from voxelrt.plan.plan import Plan
from voxelrt.request import Request
from voxelrt.runtime.plan_cache import cached_plan
from voxelrt.volume import Volume

SHAPE = (6, 8, 10)
CODES = sorted(axis_codes(np.vstack([np.c_[m, np.zeros(3)], [0, 0, 0, 1]])) for m in forty_eight())


def upright() -> Volume:
    affine = np.diag([1.5, 2.0, 2.5, 1.0])
    affine[:3, 3] = (-7, 11, 3)
    return Volume(octants(SHAPE), affine)


@pytest.fixture(scope="module")
def turning(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """A network that wants LPS."""
    path = save(tmp_path_factory.mktemp("turning"), counting(), grid='orientation = "LPS"')
    return cached_plan(path, shapes={"image": (1, 1, *SHAPE)})


@pytest.fixture(scope="module")
def padding(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """A network that takes the stored order, in a cube."""
    path = save(tmp_path_factory.mktemp("padding"), counting((12, 12, 12)), grid='fit = "pad"')
    return cached_plan(path)


def test_there_are_48() -> None:
    assert len(set(CODES)) == 48


@pytest.mark.parametrize("codes", CODES)
def test_all_48_orientations(codes: str, turning: Plan, padding: Plan, tmp_path: Path) -> None:
    phantom, _ = reorient(upright(), codes)
    write_nifti(phantom, tmp_path / "in.nii")
    seen = prepare(turning, Request(tmp_path / "in.nii"), lambda *a: None).tensor
    np.testing.assert_array_equal(seen[0, 0], octants(SHAPE))
    for plan in (turning, padding):
        result = predict(plan, tmp_path / "in.nii", tmp_path / "out.nii.gz")
        np.testing.assert_array_equal(result.labels.array, phantom.array)
        written, source = read_image(tmp_path / "out.nii.gz").volume, read_image(tmp_path / "in.nii").volume
        np.testing.assert_array_equal(written.array, phantom.array)
        np.testing.assert_array_equal(written.affine, source.affine)
        assert axis_codes(written.affine) == codes


@pytest.mark.parametrize("degrees", [7.0, 20.0, 44.0])
@pytest.mark.parametrize("codes", ["LPS", "RAS", "SLA", "PIR"])
def test_oblique(codes: str, degrees: float, turning: Plan, padding: Plan, tmp_path: Path) -> None:
    straight = upright()
    affine = straight.affine.copy()
    affine[:3] = rotation(degrees) @ affine[:3]
    phantom, _ = reorient(Volume(straight.array, affine), codes)
    write_nifti(phantom, tmp_path / "in.nii.gz")
    plans = (turning, padding) if degrees < 30 else (padding,)
    for plan in plans:
        result = predict(plan, tmp_path / "in.nii.gz", tmp_path / "out.nii.gz")
        np.testing.assert_array_equal(result.labels.array, phantom.array)
        np.testing.assert_allclose(read_image(tmp_path / "out.nii.gz").volume.affine, phantom.affine, atol=1e-4)


@pytest.mark.parametrize(
    ("flip", "orientation"),
    [
        ((), (1, 0, 0, 0, 1, 0)),
        ((2,), (-1, 0, 0, 0, 1, 0)),
        ((1,), (1, 0, 0, 0, -1, 0)),
        ((1, 2), (-1, 0, 0, 0, -1, 0)),
    ],
    ids=["straight", "rows", "columns", "both"],
)
@pytest.mark.parametrize("reverse", [False, True], ids=["", "slices"])
def test_dicom_reversed(
    flip: tuple[int, ...], orientation: tuple[float, ...], reverse: bool, turning: Plan, tmp_path: Path
) -> None:
    stored = np.flip(octants(SHAPE), flip)
    # The slices are stacked along the normal of rows and columns, which a single reversal turns round.
    if len(flip) == 1:
        stored = stored[::-1]
    order = list(range(SHAPE[0]))[:: -1 if reverse else 1]
    folder = save_series(dicom_series(stored, orientation=orientation, Modality="MR"), tmp_path / "series", order=order)
    seen = prepare(turning, Request(folder), lambda *a: None).tensor
    np.testing.assert_array_equal(seen[0, 0], octants(SHAPE))
    result = predict(turning, folder, tmp_path / "out.nii.gz")
    image = read_image(folder).volume
    np.testing.assert_array_equal(result.labels.array, image.array)
    written = read_image(tmp_path / "out.nii.gz").volume
    np.testing.assert_array_equal(reorient(written, "LPS")[0].array[0], octants(SHAPE))
