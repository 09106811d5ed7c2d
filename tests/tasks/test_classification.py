"""Classification: calibrated probabilities, and heat maps that are what their definitions say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import helper

import voxelrt as vx
from tests.dicom_readers import errors_of
from tests.phantoms import PATIENT_NAME, dicom_series, save_series
from tests.tasks.networks import save, study
from voxelrt.errors import ModelError, UsageError
from voxelrt.io import read_image
from voxelrt.models.recipe import parse_recipe
from voxelrt.outputs import Form
from voxelrt.pipeline import predict
from voxelrt.tasks.activation import pooled_head
from voxelrt.tasks.occlusion import boxes, sizes_of

SIZE = (6, 8, 10)
RECIPE = """
name = "known"
task = "classification"
[source]
path = "known.onnx"
[input]
name = "image"
[[input.channels]]
name = "image"
[output]
name = "logits"
kind = "classes"
activation = "softmax"
temperature = 2.0
labels = [{ value = 0, name = "well" }, { value = 1, name = "ill" }]
[output.heat]
"""


def pooling(folder: Path, heat: str = "", squared: bool = False) -> Path:
    """logits = W·mean(F) + b of two feature maps F = (x, 1 - x); `squared` puts a square behind, so no CAM."""
    nodes = [
        helper.make_node("Conv", ["image", "k", "kb"], ["features"], name="conv"),
        helper.make_node("GlobalAveragePool", ["features"], ["pooled"], name="pool"),
        helper.make_node("Flatten", ["pooled"], ["flat"], name="flatten"),
        helper.make_node("Gemm", ["flat", "w", "b"], ["raw" if squared else "logits"], name="gemm", transB=1),
    ]
    if squared:
        nodes.append(helper.make_node("Mul", ["raw", "raw"], ["logits"], name="square"))
    weights = {
        "k": np.array([1, -1], np.float32).reshape(2, 1, 1, 1, 1),
        "kb": np.array([0, 1], np.float32),
        "w": np.array([[0.5, 1.0], [3.0, -2.0]], np.float32),
        "b": np.array([0.25, -0.5], np.float32),
    }
    return save(folder, nodes, {"image": [1, 1, *SIZE]}, {"logits": [1, 2]}, weights, RECIPE + heat)


def bright() -> np.ndarray:
    image = np.zeros(SIZE, np.float32)
    image[1:3, 4:7, 6:9] = 5.0
    return image


def test_probabilities_are_those_of_the_scaled_logits(tmp_path: Path) -> None:
    result = predict(pooling(tmp_path), study(bright()))
    mean = np.array([bright().mean(), 1 - bright().mean()])
    logits = np.array([[0.5, 1.0], [3.0, -2.0]]) @ mean + [0.25, -0.5]
    expected = np.exp(logits / 2) / np.exp(logits / 2).sum()
    assert list(result.scores) == ["well", "ill"]
    np.testing.assert_allclose(list(result.scores.values()), expected, rtol=1e-6)
    assert result.details["temperature"] == 2.0
    assert result.volume is None  # no heat map where nobody asked for one


def test_scores_of_a_dicom_study_become_a_report(tmp_path: Path) -> None:
    """Others read from it the certainty in percent of each class, coded where the recipe codes it."""
    highdicom = pytest.importorskip("highdicom", reason="highdicom is not installed: pip install 'voxelrt[dicom-out]'")
    path = pooling(tmp_path)
    coded = 'name = "ill", code = { scheme = "SCT", value = "39104002", meaning = "Illness" }'
    path.write_text(path.read_text().replace('name = "ill"', coded))
    series = dicom_series((bright() * 100).astype(np.int16))
    result = predict(path, save_series(series, tmp_path / "study"), tmp_path / "report.dcm")
    assert result.volume is None  # no heat map where nobody asked for one
    assert errors_of(tmp_path / "report.dcm") == []
    report = highdicom.sr.srread(tmp_path / "report.dcm")
    groups = report.content.get_image_measurement_groups()
    found = {}
    for group in groups:
        (one,) = group.get_measurements()
        assert (one.name.value, one.name.scheme_designator, one.unit.value) == ("111012", "DCM", "%")
        found[group.tracking_identifier] = one.value / 100
        assert {item.referenced_sop_instance_uid for item in group.source_images} == {d.SOPInstanceUID for d in series}
    assert found == pytest.approx(result.scores)
    assert [None if g.finding_type is None else g.finding_type.meaning for g in groups] == [None, "Illness"]
    assert report.PatientName == PATIENT_NAME
    predict(path, tmp_path / "study", tmp_path / "results")
    assert [file.name for file in (tmp_path / "results").iterdir()] == ["report.dcm"]
    for form in (Form("seg"), Form("capture"), Form(None, "labelmap")):
        with pytest.raises(UsageError):
            predict(path, tmp_path / "study", tmp_path / "other.dcm", form=form)


def test_the_class_activation_map_adds_up_to_the_logit(tmp_path: Path) -> None:
    """Its mean and the bias are the logit of the class: the definition, to rounding."""
    path = pooling(tmp_path)
    result = predict(path, study(bright()), tmp_path / "heat.nii.gz", picture=tmp_path / "heat.png")
    heat = read_image(tmp_path / "heat.nii.gz").volume.array[0]
    x = bright()
    shown = result.details["heat"]["class"]
    row, bias = {"well": ([0.5, 1.0], 0.25), "ill": ([3.0, -2.0], -0.5)}[shown]
    np.testing.assert_allclose(heat, row[0] * x + row[1] * (1 - x), rtol=1e-5, atol=1e-6)
    plan = vx.compile(path, verify=False)
    logits = plan.run({"image": x[None, None]})["logits"][0]
    index = ["well", "ill"].index(shown)
    assert heat.mean(dtype=np.float64) + bias == pytest.approx(float(logits[index]), rel=1e-5)
    assert result.details["heat"]["method"] == "class-activation"
    assert (tmp_path / "heat.png").stat().st_size > 1000


def test_occlusion_is_the_mean_fall_over_what_hides_a_voxel(tmp_path: Path) -> None:
    heat = 'method = "occlusion"\nsize_zyx = [2, 3, 4]\nstep_zyx = [2, 2, 2]\nfill = "zero"\n'
    path = pooling(tmp_path, heat)
    result = predict(path, study(bright()), maps={"heat": None})
    plan = vx.compile(path, verify=False)

    def probability(image: np.ndarray) -> float:
        logits = plan.run({"image": image[None, None].astype(np.float32)})["logits"][0].astype(np.float64) / 2
        chances = np.exp(logits) / np.exp(logits).sum()
        return float(chances[["well", "ill"].index(result.details["heat"]["class"])])

    fall, count = np.zeros(SIZE), np.zeros(SIZE)
    for z in (0, 2, 4):
        for y in (0, 2, 4, 5):
            for x in (0, 2, 4, 6):
                box = (slice(z, z + 2), slice(y, y + 3), slice(x, x + 4))
                hidden = bright()
                hidden[box] = 0
                fall[box] += probability(bright()) - probability(hidden)
                count[box] += 1
    np.testing.assert_allclose(result.maps["heat"].array[0], fall / count, atol=1e-6)
    assert result.details["heat"]["runs"] == 3 * 4 * 4 + 1


def test_without_a_linear_end_there_is_occlusion_or_a_refusal(tmp_path: Path) -> None:
    path = pooling(tmp_path, squared=True)
    assert pooled_head(vx.compile(path, verify=False), "logits") is None
    assert predict(path, study(bright()), maps={"heat": None}).details["heat"]["method"] == "occlusion"
    path = pooling(tmp_path, 'method = "class-activation"\n', squared=True)
    with pytest.raises(ModelError, match="does not end in global average pooling"):
        predict(path, study(bright()), maps={"heat": None})


@pytest.mark.parametrize("name", ["resnet", "densenet", "efficientnet", "classifier3d", "convnext"])
def test_which_architectures_have_class_activations(name: str) -> None:
    from voxelrt.models.architectures.named import ARCHITECTURES

    small = {
        "resnet": {"size": (64, 64), "width": 8},
        "densenet": {"blocks": (2, 2), "size": (64, 64), "growth": 8},
        "efficientnet": {"stages": ((1, 8, 1, 1, 3),), "size": (32, 32), "stem": 8, "head": 16},
        "classifier3d": {"grid": (8, 8, 8)},
        "convnext": {"depths": (1,), "widths": (8,), "size": (32, 32)},
    }[name]
    plan = vx.compile(ARCHITECTURES[name](**small), verify=False, tune="off")
    head = pooled_head(plan, "logits")
    if name == "convnext":  # a layer norm stands between pooling and the linear layer
        assert head is None
        return
    assert head is not None
    inputs = {io.name: np.random.default_rng(0).normal(size=io.dims).astype(np.float32) for io in plan.inputs}
    answers = plan.run(inputs, taps=[head.features])
    features = answers[head.features][0]
    found = head.weights @ features.reshape(len(features), -1).mean(axis=1)
    apart = answers["logits"][0] - found  # the bias
    other = plan.run({k: v + 1 for k, v in inputs.items()}, taps=[head.features])
    moved = head.weights @ other[head.features][0].reshape(len(features), -1).mean(axis=1)
    np.testing.assert_allclose(other["logits"][0] - moved, apart, atol=2e-4)


def test_hidden_boxes_cover_the_grid() -> None:
    heat = parse_recipe(RECIPE + "size_zyx = [4, 4, 4]\nstep_zyx = [3, 9, 1]\n").output.heat
    size, step = sizes_of(heat, (3, 10, 5))
    assert (size, step) == ((3, 4, 4), (3, 4, 1))
    covered = np.zeros((3, 10, 5), bool)
    for box in boxes((3, 10, 5), size, step):
        covered[box] = True
    assert covered.all()
    assert sizes_of(parse_recipe(RECIPE).output.heat, (1, 1, 1)) == ((1, 1, 1), (1, 1, 1))


def test_what_is_refused(tmp_path: Path) -> None:
    path = pooling(tmp_path)
    with pytest.raises(UsageError, match="makes no map field; a classification makes heat"):
        predict(path, study(bright()), maps={"field": None})
    with pytest.raises(UsageError, match="no table"):
        predict(path, study(bright()), table=tmp_path / "t.csv")
    with pytest.raises(UsageError, match="temperature"):
        parse_recipe(RECIPE.replace("temperature = 2.0", "temperature = 0.0"))
    with pytest.raises(UsageError, match="demonstration"):
        parse_recipe(RECIPE.replace('path = "known.onnx"', 'architecture = "resnet"'))
