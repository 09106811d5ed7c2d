"""Volume: shape, affine, what is derived from them, and that nobody changes it by accident."""

from __future__ import annotations

import numpy as np
import pytest

from voxelrt.errors import GeometryError, UsageError
from voxelrt.volume import Volume


def test_three_axes_get_a_channel_and_four_keep_theirs() -> None:
    assert Volume(np.zeros((2, 3, 4)), np.eye(4)).array.shape == (1, 2, 3, 4)
    assert Volume(np.zeros((5, 2, 3, 4)), np.eye(4)).shape_zyx == (2, 3, 4)


def test_spacing_is_in_array_order_and_volume_is_right_for_sheared_grids() -> None:
    affine = np.diag([1.0, 2.0, 3.0, 1.0])
    affine[0, 2] = 1.5
    volume = Volume(np.zeros((1, 1, 1)), affine)
    assert volume.spacing_mm == pytest.approx((np.hypot(3.0, 1.5), 2.0, 1.0))
    assert volume.voxel_volume_mm3 == pytest.approx(6.0)


def test_array_and_affine_are_frozen_but_the_caller_keeps_a_writable_array() -> None:
    mine = np.zeros((2, 2, 2))
    volume = Volume(mine, np.eye(4))
    with pytest.raises(ValueError, match="read-only"):
        volume.array[0, 0, 0, 0] = 1
    with pytest.raises(ValueError, match="read-only"):
        volume.affine[0, 0] = 2
    mine[0, 0, 0] = 1


@pytest.mark.parametrize("shape", [(2,), (2, 2), (1, 1, 1, 1, 1)])
def test_other_numbers_of_axes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="axes"):
        Volume(np.zeros(shape), np.eye(4))


@pytest.mark.parametrize("affine", [np.eye(3), np.full((4, 4), np.nan), np.diag([1.0, 1.0, 0.0, 1.0])])
def test_affines_that_place_nothing_are_refused(affine: np.ndarray) -> None:
    with pytest.raises(GeometryError):
        Volume(np.zeros((1, 1, 1)), affine)


def test_with_array_keeps_the_grid_and_refuses_another() -> None:
    volume = Volume(np.zeros((2, 3, 4)), np.diag([1.0, 2.0, 3.0, 1.0]), modality="MR")
    mask = volume.with_array(np.ones((2, 3, 4), np.uint8), {1: "brain"})
    assert (mask.affine == volume.affine).all()
    assert mask.labels == {1: "brain"}
    assert mask.modality == "MR"
    with pytest.raises(GeometryError, match="not on the grid"):
        volume.with_array(np.ones((2, 3, 5)))
