"""Axis codes and exact reorientation: every one of the 48 ways, oblique grids, and the way back."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.phantoms import forty_eight, octants, rotation
from voxelrt.errors import GeometryError, UsageError
from voxelrt.io.orientation import LPS_FROM_RAS, axis_codes, reorient
from voxelrt.volume import Volume

ORIENTATIONS = forty_eight()


def affine_of(linear: NDArray[np.float64], oblique: bool = False) -> NDArray[np.float64]:
    affine = np.eye(4)
    affine[:3, :3] = (rotation() if oblique else np.eye(3)) @ linear @ np.diag([0.7, 1.1, 2.3])
    affine[:3, 3] = [12.3, -45.6, 7.89]
    return affine


def world_of_each_label(volume: Volume) -> NDArray[np.float64]:
    """The centroid in mm of each of the eight octants."""
    places = []
    for label in range(1, 9):
        z, y, x = (axis.mean() for axis in np.nonzero(volume.array[0] == label))
        places.append(volume.affine @ [x, y, z, 1.0])
    return np.array(places)


@pytest.mark.parametrize("oblique", [False, True])
@pytest.mark.parametrize("number", range(48))
def test_every_orientation_goes_to_lps_and_back_bit_for_bit(number: int, oblique: bool) -> None:
    volume = Volume(octants(), affine_of(ORIENTATIONS[number], oblique))
    turned, undo = reorient(volume, "LPS")
    assert axis_codes(turned.affine) == "LPS"
    np.testing.assert_allclose(world_of_each_label(turned), world_of_each_label(volume), atol=1e-10)
    back = undo.undo(turned)
    assert back.array.tobytes() == volume.array.tobytes()
    assert back.affine.tobytes() == volume.affine.tobytes()


@pytest.mark.parametrize("number", range(0, 48, 5))
@pytest.mark.parametrize("codes", ["RAS", "SAR", "ILP", "psl"])
def test_any_codes_can_be_asked_for(number: int, codes: str) -> None:
    volume = Volume(octants(), affine_of(ORIENTATIONS[number]))
    turned, undo = reorient(volume, codes)
    assert axis_codes(turned.affine) == codes.upper()
    np.testing.assert_allclose(world_of_each_label(turned), world_of_each_label(volume), atol=1e-10)
    assert (undo.undo(turned).array == volume.array).all()


@pytest.mark.parametrize("number", range(48))
def test_codes_agree_with_nibabel(number: int) -> None:
    affine = affine_of(ORIENTATIONS[number], oblique=True)
    assert axis_codes(affine) == "".join(nibabel.aff2axcodes(LPS_FROM_RAS @ affine))


def test_a_grid_at_45_degrees_still_names_each_patient_axis_once() -> None:
    affine = np.eye(4)
    half = np.sqrt(0.5)
    affine[:3, :3] = [[half, half, 0], [-half, half, 0], [0, 0, 1]]
    assert sorted(axis_codes(affine).translate(str.maketrans("RAI", "LPS"))) == sorted("LPS")


def test_channels_stay_where_they_are() -> None:
    volume = Volume(np.stack([octants(), 10 * octants()]), affine_of(ORIENTATIONS[29]))
    turned, undo = reorient(volume, "LPS")
    assert turned.array.shape[0] == 2
    assert (turned.array[1] == 10 * turned.array[0]).all()
    assert (undo.undo(turned).array == volume.array).all()


@pytest.mark.parametrize("codes", ["", "LP", "LPSS", "LRS", "XYZ", "LLL"])
def test_codes_that_are_none_are_refused(codes: str) -> None:
    with pytest.raises(UsageError, match="axis codes"):
        reorient(Volume(octants(), np.eye(4)), codes)


def test_undo_refuses_another_grid() -> None:
    _, undo = reorient(Volume(octants(), np.eye(4)))
    with pytest.raises(GeometryError, match="does not go back"):
        undo.undo(Volume(np.zeros((2, 2, 2)), np.eye(4)))
