"""Detection: boxes of every form land where they were put, in mm of an oblique study, and overlapping ones are one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from tests.tasks.networks import OBLIQUE, save, study
from voxelrt.errors import ModelError
from voxelrt.pipeline import predict
from voxelrt.tasks.detection import Place, _line
from voxelrt.volume import Volume

SIZE = (12, 16, 20)
BOXES = np.array([[2, 3, 4, 6, 9, 12], [2, 3, 4, 6, 9, 11], [7, 10, 13, 10, 14, 18]], np.float32)
SCORES = np.array([0.9, 0.8, 0.7], np.float32)
RECIPE = """
name = "known"
task = "detection"
[source]
path = "known.onnx"
[input]
name = "image"
{input}
[[input.channels]]
name = "image"
[input.grid]
{grid}
[output]
name = "boxes"
kind = "boxes"
threshold = 0.5
labels = [{{ value = 1, name = "node" }}, {{ value = 2, name = "cyst" }}]
[output.boxes]
scores = "scores"
activation = "none"
{boxes}
"""


def listed(folder: Path, boxes: np.ndarray, form: str, grid: str = "") -> Path:
    """Always the same boxes; the image only adds nothing."""
    nodes = [
        helper.make_node("ReduceMax", ["image"], ["top"], name="top", keepdims=0),
        helper.make_node("Mul", ["top", "zero"], ["nothing"], name="nothing"),
        helper.make_node("Add", ["known", "nothing"], ["boxes"], name="boxes"),
        helper.make_node("Add", ["sure", "nothing"], ["scores"], name="scores"),
    ]
    weights = {"zero": np.zeros(1, np.float32), "known": boxes, "sure": SCORES}
    text = RECIPE.format(input="", grid=grid, boxes=f'form = "{form}"')
    return save(folder, nodes, {"image": [1, 1, *SIZE]}, {"boxes": [3, 6], "scores": [3]}, weights, text)


@pytest.mark.parametrize("form", ["corners", "centre-size"])
def test_lists_of_boxes(form: str, tmp_path: Path) -> None:
    boxes = BOXES
    if form == "centre-size":
        boxes = np.concatenate([(BOXES[:, :3] + BOXES[:, 3:]) / 2, BOXES[:, 3:] - BOXES[:, :3]], axis=1)
    image = np.random.default_rng(0).random(SIZE)
    result = predict(listed(tmp_path, boxes, form), study(image), tmp_path / "found.json")
    found = json.loads((tmp_path / "found.json").read_text())["findings"]
    assert found == result.details["findings"]
    assert [one["score"] for one in found] == pytest.approx([0.9, 0.7])
    for one, box in zip(found, BOXES[[0, 2]], strict=True):
        centre = OBLIQUE @ [*((box[:3] + box[3:]) / 2)[::-1], 1]
        np.testing.assert_allclose(one["centre_mm_lps"], centre[:3], rtol=1e-6)
        lengths = np.linalg.norm(OBLIQUE[:3, :3], axis=0) * (box[3:] - box[:3])[::-1]
        np.testing.assert_allclose(one["size_mm"], lengths, rtol=1e-6)
        low = OBLIQUE @ [*box[:3][::-1], 1]
        np.testing.assert_allclose(one["corners_mm_lps"][0], low[:3], rtol=1e-6)
        assert one["label"] == "node"
    labels = result.maps["boxes"]
    assert (labels.array[0, 2:7, 3:10, 4:13] == 1).all()
    assert labels.labels[2] == "node 0.70"
    assert int((labels.array == 2).sum()) == 4 * 5 * 6


def test_a_turned_and_resampled_grid_moves_no_box(tmp_path: Path) -> None:
    """The network sees the study in LPS order at its own shape; what it finds there is where it is in the world."""
    path = listed(tmp_path, BOXES, "corners", f'orientation = "LPS"\nshape_xyz = [{SIZE[2]}, {SIZE[1]}, {SIZE[0]}]')
    twice = np.random.default_rng(0).random((24, 32, 40))
    affine = np.diag([-0.5, 0.6, 1.5, 1.0])
    affine[:3, 3] = 11, -7, 3
    result = predict(path, study(twice, affine))
    # x is stored from left to right: turned, voxel 0 is the last one; a network voxel is two of the study.
    box = BOXES[0]
    centre = (box[:3] + box[3:]) / 2
    z, y, x = 2 * centre + 0.5
    world = affine @ [39 - x, y, z, 1]
    np.testing.assert_allclose(result.details["findings"][0]["centre_mm_lps"], world[:3], rtol=1e-6)
    np.testing.assert_allclose(result.details["findings"][0]["size_mm"], [8 * 1.0, 6 * 1.2, 4 * 3.0], rtol=1e-5)


def peaks(folder: Path, window: str = "", size: tuple[int, int, int] = SIZE) -> Path:
    """Scores are the image and its double: points where it is largest, of two classes."""
    node = helper.make_node("Conv", ["image", "w"], ["boxes"], name="copy")
    weights = {"w": np.array([1, 0.5], np.float32).reshape(2, 1, 1, 1, 1)}
    text = RECIPE.format(input=window, grid="", boxes='form = "points"\noverlap = 0.1').replace('scores = "scores"', "")
    return save(folder, [node], {"image": [1, 1, *size]}, {"boxes": [1, 2, *size]}, weights, text)


@pytest.mark.parametrize("sliding", [False, True])
def test_points_are_peaks_and_windows_agree_with_the_whole(sliding: bool, tmp_path: Path) -> None:
    image = np.zeros(SIZE, np.float32)
    for (z, y, x), value in (((3, 4, 5), 0.9), ((9, 12, 17), 0.8), ((9, 12, 16), 0.6), ((0, 0, 19), 1.2)):
        image[z, y, x] = value
    window = 'window = "sliding"\n[input.sliding]\noverlap = [0.5]' if sliding else ""
    window = window.replace("\n[input.sliding]\noverlap = [0.5]", "\nsliding = { overlap = [0.5] }")
    path = peaks(tmp_path, window, (8, 8, 8) if sliding else SIZE)
    found = predict(path, study(image)).details["findings"]
    wanted = [
        ((0, 0, 19), 1.2, "node"),
        ((3, 4, 5), 0.9, "node"),
        ((9, 12, 17), 0.8, "node"),
        ((0, 0, 19), 0.6, "cyst"),
    ]
    assert [(round(one["score"], 4), one["label"]) for one in found] == [(score, name) for _, score, name in wanted]
    for one, ((z, y, x), _, _) in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one["centre_mm_lps"], (OBLIQUE @ [x, y, z, 1])[:3], atol=1e-4)
        assert "size_mm" not in one


def test_distances_on_a_coarse_grid(tmp_path: Path) -> None:
    """One coarse voxel of four is above the threshold; its centre lies between fine ones."""
    nodes = [
        helper.make_node("AveragePool", ["image"], ["mean"], name="mean", kernel_shape=[4] * 3, strides=[4] * 3),
        helper.make_node("Identity", ["mean"], ["scores"], name="scores"),
        helper.make_node("Conv", ["mean", "none", "reach"], ["boxes"], name="reach"),
    ]
    reach = np.array([1, 2, 3, 4, 5, 6], np.float32)
    weights = {"none": np.zeros((6, 1, 1, 1, 1), np.float32), "reach": reach}
    text = RECIPE.format(input="", grid="", boxes='form = "distances"\nstride = [4]')
    outputs = {"boxes": [1, 6, 3, 4, 5], "scores": [1, 1, 3, 4, 5]}
    path = save(tmp_path, nodes, {"image": [1, 1, *SIZE]}, outputs, weights, text)
    image = np.zeros(SIZE, np.float32)
    image[4:8, 8:12, 12:16] = 1
    (one,) = predict(path, study(image)).details["findings"]
    middle = np.array([5.5, 9.5, 13.5])
    low, high = middle - [1, 2, 3], middle + reach[3:]
    centre = OBLIQUE @ [*((low + np.minimum(high, np.array(SIZE) - 0.5)) / 2)[::-1], 1]
    np.testing.assert_allclose(one["centre_mm_lps"], centre[:3], rtol=1e-6)


def test_nothing_found_and_outputs_that_do_not_fit(tmp_path: Path) -> None:
    path = peaks(tmp_path)
    result = predict(path, study(np.zeros(SIZE)), tmp_path / "none.nii.gz", picture=tmp_path / "none.png")
    assert result.details["findings"] == []
    assert not result.maps["boxes"].array.any()
    path = listed(tmp_path, BOXES, "distances")
    with pytest.raises(ModelError, match="distances as"):
        predict(path, study(np.zeros(SIZE)))


def test_a_finding_on_a_picture_claims_no_place_in_the_patient() -> None:
    picture = Volume(np.zeros((1, 20, 30), np.uint8), np.eye(4), placed=False, lengths="none")
    box = np.array([-0.5, 1.5, 2.5, 0.5, 4.5, 7.5], np.float32)
    one = Place(np.diag([2.0, 3.0, 1.0, 1.0]), picture).finding(box, 0.75, "spot")
    assert one["size_pixels"] == pytest.approx([10, 9])
    assert not [name for name in one if "mm" in name]
    assert _line(one) == "spot 0.750: 10.0 x 9.0 pixels at column 10.0, row 9.0"
    known = Volume(picture.array, np.diag([0.5, 0.25, 1, 1]), placed=False, lengths="plane")
    one = Place(np.diag([1.0, 0.75, 1.0, 1.0]), known).finding(box, 0.75, "spot")
    assert one["size_pixels"] == pytest.approx([10, 9])
    assert one["size_mm"] == pytest.approx([5, 2.25])
    assert "centre_mm_lps" not in one
