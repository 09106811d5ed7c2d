"""What is measured of labels, against plain loops; and outlines, against filling them."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from voxelrt.errors import GeometryError
from voxelrt.postprocess.contours import outlines
from voxelrt.postprocess.measurements import largest_diameter, measure
from voxelrt.volume import Volume


def test_diameters_are_those_of_all_pairs() -> None:
    rng = np.random.default_rng(0)
    halves = np.concatenate([np.eye(3), -np.eye(3)]) / 2
    for _ in range(40):
        mask = rng.random(tuple(rng.integers(1, 8, 3))) < rng.uniform(0.02, 0.6)
        mask[0, 0, 0] = True
        affine = np.eye(4)
        affine[:3, :3] = rng.normal(size=(3, 3))
        points = (np.argwhere(mask)[:, ::-1][:, None] + halves).reshape(-1, 3) @ affine[:3, :3].T
        largest = np.linalg.norm(points[:, None] - points[None], axis=-1).max()
        assert largest_diameter(mask, affine) == pytest.approx(largest, rel=1e-9)


def test_a_ball_and_a_row() -> None:
    z, y, x = np.indices((41, 41, 41)) - 20
    assert largest_diameter(z * z + y * y + x * x <= 400, np.eye(4)) == 41
    assert largest_diameter(np.ones((1, 1, 7), bool), np.diag([2.0, 1, 1, 1])) == 14


def test_volume_mean_and_deviation() -> None:
    rng = np.random.default_rng(1)
    labels = rng.choice([0, 2, 300], (5, 6, 7)).astype(np.uint16)
    image = rng.normal(size=(5, 6, 7)).astype(np.float32)
    affine = np.diag([1.0, 2.0, 3.0, 1.0])
    found = measure(Volume(labels, affine, {2: "two", 9: "none"}), Volume(image, affine))
    assert [(one.value, one.name) for one in found] == [(2, "two"), (9, "none"), (300, "label 300")]
    for one in found:
        under = image[labels == one.value].astype(np.float64)
        assert (one.voxels, one.volume_ml) == (under.size, pytest.approx(under.size * 6 / 1000))
        if under.size:
            assert (one.mean, one.deviation) == (pytest.approx(under.mean()), pytest.approx(under.std()))
        else:
            assert (one.mean, one.deviation, one.diameter_mm) == (None, None, None)
    with pytest.raises(GeometryError):
        measure(Volume(labels, affine), Volume(image[1:], affine))


def filled(polygons: list[np.ndarray], shape: tuple[int, int], *, signed: bool) -> np.ndarray:
    """By the centres of the pixels; all lines are upright or level."""
    turns = np.zeros(shape, int)
    for polygon in polygons:
        for (r0, c0), (r1, c1) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
            assert (r0 == r1) != (c0 == c1)
            low, high = sorted((r0, r1))
            turns[low:high, c0:] += int(np.sign(r1 - r0)) if signed else 1
    return turns != 0 if signed else turns % 2 == 1


def test_filled_outlines_are_the_mask() -> None:
    masks = [np.array(bits, bool).reshape(3, 3) for bits in product((0, 1), repeat=9)]
    rng = np.random.default_rng(2)
    masks += [rng.random(tuple(rng.integers(1, 20, 2))) < rng.random() for _ in range(200)]
    for mask in masks:
        found = outlines(mask)
        for signed in (False, True):
            np.testing.assert_array_equal(filled(found, mask.shape, signed=signed), mask)


def test_regions_that_touch_by_a_corner_are_two_and_holes_are_let_in() -> None:
    assert len(outlines(np.eye(3, dtype=bool))) == 3
    ring = np.ones((5, 5), bool)
    ring[1:4, 1:4] = False
    ring[2, 2] = True
    outer, inner = sorted(outlines(ring), key=len, reverse=True)
    assert (len(outer), len(inner)) == (10, 4)
