"""Anomaly maps, sequences, registrations, sliding windows and the shipped demonstrations."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

import voxelrt as vx
from tests.tasks.networks import OBLIQUE, save, study
from voxelrt.errors import InputError, ModelError, UsageError
from voxelrt.io import read_image
from voxelrt.io.fields import read_field
from voxelrt.models.recipe import load_recipe, shipped_recipes
from voxelrt.pipeline import predict
from voxelrt.warping import warp_volume

SIZE = (6, 8, 10)
HEAD = """
name = "known"
task = "{task}"
[source]
path = "known.onnx"
[input]
name = "image"
{input}
[[input.channels]]
name = "image"
"""


def smoothing(folder: Path, window: str = "") -> Path:
    """An autoencoder that gives back everything but what is above 1: it has never seen it."""
    node = helper.make_node("Clip", ["image", "low", "high"], ["made"], name="known")
    weights = {"low": np.array(-5, np.float32), "high": np.array(1, np.float32)}
    text = HEAD.format(task="anomaly", input=window) + '[output]\nname = "made"\nkind = "image"\n'
    return save(folder, [node], {"image": [1, 1, *SIZE]}, {"made": [1, 1, *SIZE]}, weights, text)


@pytest.mark.parametrize("sliding", [False, True])
def test_an_anomaly_is_what_cannot_be_reconstructed(sliding: bool, tmp_path: Path) -> None:
    shape = (9, 8, 23) if sliding else SIZE
    image = np.random.default_rng(0).random(shape).astype(np.float32)
    image[4, 3, 7] = 4.0
    window = 'window = "sliding"\nsliding = { overlap = [0.5], mode = "gaussian" }' if sliding else ""
    out = tmp_path / "error.nii.gz"
    result = predict(smoothing(tmp_path, window), study(image), out, picture=tmp_path / "error.png")
    error = read_image(out).volume.array[0]
    wanted = np.zeros(shape)
    wanted[4, 3, 7] = 3.0
    np.testing.assert_allclose(error, wanted, atol=2e-6)
    assert result.scores["anomaly"] == pytest.approx(3.0 / error.size, rel=1e-4)
    np.testing.assert_allclose(result.details["worst_mm_lps"], (OBLIQUE @ [7, 3, 4, 1])[:3], rtol=1e-6)
    assert np.argmax(result.details["planes"]) == 4


def counting_frames(folder: Path, over: str = "last") -> Path:
    """State: the sum of the means of all frames so far; the answer is that sum and its opposite."""
    nodes = [
        helper.make_node("ReduceMean", ["image"], ["mean"], name="mean", axes=[1, 2, 3], keepdims=0),
        helper.make_node("Reshape", ["mean", "shape"], ["now"], name="now"),
        helper.make_node("Add", ["now", "before"], ["after"], name="sum"),
        helper.make_node("Neg", ["after"], ["less"], name="less"),
        helper.make_node("Concat", ["after", "less"], ["logits"], name="logits", axis=1),
    ]
    text = HEAD.format(task="sequence", input='layout = "NCYX"') + (
        '[input.states]\nafter = "before"\n[output]\nname = "logits"\nkind = "classes"\nactivation = "sigmoid"\n'
        f'over_frames = "{over}"\nlabels = [{{ value = 0, name = "rising" }}, {{ value = 1, name = "falling" }}]\n'
    )
    inputs, outputs = {"image": [1, 1, 4, 5], "before": [1, 1]}, {"logits": [1, 2], "after": [1, 1]}
    return save(folder, nodes, inputs, outputs, {"shape": np.array([1, 1])}, text)


@pytest.mark.parametrize("over", ["last", "mean"])
def test_a_sequence_keeps_its_state_from_frame_to_frame(over: str, tmp_path: Path) -> None:
    steps = np.array([0.5, -1.0, 2.0, 0.25])
    film = np.broadcast_to(steps[:, None, None], (4, 4, 5)).astype(np.float32)
    out, picture = tmp_path / "film.json", tmp_path / "film.png"
    path = counting_frames(tmp_path, over)
    result = predict(path, study(film), out, picture=picture)
    chances = 1 / (1 + np.exp(-np.cumsum(steps)))
    written = json.loads(out.read_text())
    np.testing.assert_allclose(written["each_frame"]["rising"], chances, rtol=1e-6)
    np.testing.assert_allclose(result.scores["rising"], chances[-1] if over == "last" else chances.mean(), rtol=1e-6)
    # Frames may also come as channels of one plane; and a second study begins with a state of its own.
    again = predict(vx.compile(path, verify=False), study(film[:, None].reshape(4, 1, 4, 5)))
    assert again.details["each_frame"] == written["each_frame"]
    assert picture.stat().st_size > 1000
    with pytest.raises(UsageError, match=r"write \.json"):
        predict(path, study(film), tmp_path / "film.nii.gz")


def shifting(folder: Path) -> Path:
    """The field moves by a voxel along x and two along z, whatever it sees."""
    nodes = [
        helper.make_node("Sub", ["image", "moving"], ["apart"], name="apart"),
        helper.make_node("Conv", ["apart", "none", "by"], ["field"], name="field"),
    ]
    weights = {"none": np.zeros((3, 1, 1, 1, 1), np.float32), "by": np.array([2, 0, 1], np.float32)}
    text = HEAD.format(task="registration", input="") + (
        '[[input.channels]]\nname = "moving"\ninput = "moving"\n[output]\nname = "field"\nkind = "field"\n'
    )
    shape = [1, 1, *SIZE]
    return save(folder, nodes, {"image": shape, "moving": shape}, {"field": [1, 3, *SIZE]}, weights, text)


def test_a_registration_warps_and_its_field_says_how(tmp_path: Path) -> None:
    image = np.random.default_rng(0).random(SIZE).astype(np.float32)
    fixed, moving = study(image), study(np.roll(image, (2, 1), (0, 2)))
    out, field = tmp_path / "warped.nii.gz", tmp_path / "field.nii.gz"
    pair = {"image": fixed, "moving": moving}
    result = predict(shifting(tmp_path), pair, out, maps={"field": field}, picture=tmp_path / "fused.png")
    warped = read_image(out).volume.array[0]
    np.testing.assert_allclose(warped[:4, :, :9], image[:4, :, :9], atol=1e-5)
    assert result.details["folded_voxels"] == 0
    mm = np.linalg.norm(OBLIQUE[:3, :3] @ [1, 0, 2])
    assert result.details["displacement_mm"]["maximum"] == pytest.approx(mm, rel=1e-5)
    assert result.details["correlation"]["after"] > result.details["correlation"]["before"]
    again = warp_volume(moving, fixed, field=read_field(field))
    np.testing.assert_allclose(again.array[0], warped, atol=1e-5)
    np.testing.assert_allclose(result.maps["jacobian"].array, 1, atol=1e-5)
    with pytest.raises(UsageError, match=r"--input image=image\.nii\.gz --input moving=moving\.nii\.gz"):
        predict(shifting(tmp_path), fixed)


def test_a_moving_study_on_another_grid_is_brought_by_its_world(tmp_path: Path) -> None:
    """Stored the other way round, the same image: registration must see the same thing."""
    image = np.random.default_rng(0).random(SIZE).astype(np.float32)
    affine = OBLIQUE.copy()
    affine[:3, 3] += affine[:3, 0] * (SIZE[2] - 1)
    affine[:3, 0] *= -1
    other = study(np.ascontiguousarray(image[:, :, ::-1]), affine)
    result = predict(shifting(tmp_path), {"image": study(image), "moving": other})
    assert result.details["correlation"]["before"] == pytest.approx(1, abs=1e-6)


def test_answers_of_another_shape_are_named(tmp_path: Path) -> None:
    node = helper.make_node("AveragePool", ["image"], ["made"], name="mean", kernel_shape=[2] * 3, strides=[2] * 3)
    for window, message in (("", "reconstructs"), ('window = "sliding"', "answer of the window's size")):
        text = HEAD.format(task="anomaly", input=window) + '[output]\nname = "made"\nkind = "image"\n'
        path = save(tmp_path, [node], {"image": [1, 1, *SIZE]}, {"made": [1, 1, 3, 4, 5]}, {}, text)
        with pytest.raises(ModelError, match=message):
            predict(path, study(np.zeros(SIZE)))
    short = smoothing(tmp_path, 'window = "sliding"\nsliding = { padding_mode = "reflect" }')
    with pytest.raises(InputError, match="too few to pad"):
        predict(short, study(np.zeros((2, 8, 10))))


@pytest.mark.parametrize("name", [name for name in shipped_recipes() if name.endswith("-demonstration")])
def test_shipped_demonstrations_run_and_say_what_they_are(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name)
    image = np.random.default_rng(0).normal(size=(20, 24, 28)).astype(np.float32)
    given = {"fixed": study(image), "moving": study(image)} if recipe.task == "registration" else study(image)
    result = predict(name, given, tmp_path / "out.json", picture=tmp_path / "out.png")
    assert json.loads((tmp_path / "out.json").read_text())["weights"] == "demonstration"
    assert any("weights: demonstration" in line for line in result.warnings)
    assert (tmp_path / "out.png").stat().st_size > 1000
