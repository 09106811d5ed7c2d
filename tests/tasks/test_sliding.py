"""Sliding windows are MONAI's: every mode against its stored answers, and against itself where it is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

import voxelrt as vx
from tests.tasks.make_monai_windows import CASES, PLACE, network, study_of
from tests.tasks.networks import save
from voxelrt.errors import UsageError
from voxelrt.models.recipe import parse_recipe
from voxelrt.preprocess.contract import recipe_of
from voxelrt.sliding import sliding_answer
from voxelrt.tiling.overlapping import starts, weights

RECIPE = """
name = "known"
task = "denoising"
[source]
path = "known.onnx"
[input]
name = "image"
layout = "{layout}"
window = "sliding"
[[input.channels]]
name = "image"
[input.sliding]
{sliding}
[output]
name = "made"
kind = "image"
layout = "{layout}"
"""


def _toml(roi: tuple[int, ...], options: dict[str, Any]) -> str:
    lines = [f"roi_zyx = {list(roi)}"]
    for name, value in options.items():
        if name in ("overlap", "sigma_scale"):
            lines.append(f"{name} = {list(value) if isinstance(value, tuple) else [value]}")
        else:
            lines.append(f"{name} = {value!r}".replace("'", '"'))
    return "\n".join(lines)


def _ours(name: str, folder: Path) -> np.ndarray:
    _, roi, options = CASES[name]
    axes = len(roi)
    weight, bias = network(axes)
    nodes = [
        helper.make_node("Conv", ["image", "w", "b"], ["sum"], name="conv", pads=[1] * (2 * axes)),
        helper.make_node("Relu", ["sum"], ["made"], name="relu"),
    ]
    text = RECIPE.format(layout="NCZYX" if axes == 3 else "NCYX", sliding=_toml(roi, options))
    sizes: list[Any] = ["z", "y", "x"][-axes:]
    path = save(folder, nodes, {"image": [1, 1, *sizes]}, {"made": [1, 2, *sizes]}, {"w": weight, "b": bias}, text)
    plan = vx.compile(path, shapes={"image": (1, 1, *roi)}, verify=False, tune="off")
    told: list[tuple[int, int]] = []
    made = sliding_answer(plan, recipe_of(plan), study_of(name), lambda stage, step, steps: told.append((step, steps)))
    assert told[-1][0] == told[-1][1]
    return np.asarray(made)


@pytest.mark.parametrize("name", CASES)
def test_against_monai_s_answers(name: str, tmp_path: Path) -> None:
    with np.load(PLACE) as stored:
        expected = stored[name]
    made = _ours(name, tmp_path)
    assert made.shape == expected.shape
    assert np.linalg.norm(made - expected) <= 1e-6 * np.linalg.norm(expected)


def test_monai_itself_still_answers_so() -> None:
    pytest.importorskip("torch", reason="torch, on which MONAI runs, is not installed")
    data = pytest.importorskip("monai.data.utils", reason="MONAI, the peer of this test, is not installed")
    for mode, sigma, window in (("gaussian", 0.125, (7, 8)), ("gaussian", 0.03, (33, 9)), ("constant", 0.1, (4, 4))):
        sliding = parse_recipe(
            RECIPE.format(layout="NCYX", sliding=f'mode = "{mode}"\nsigma_scale = [{sigma}]')
        ).input.sliding
        theirs = data.compute_importance_map(window, mode=mode, sigma_scale=sigma).numpy()
        np.testing.assert_allclose(weights((1, *window), sliding)[0], theirs, rtol=2e-6)
    for size in range(1, 40):
        for window in range(1, size + 1):
            for overlap in (0.0, 0.1, 0.25, 0.5, 0.99):
                step = window if window == size else max(1, int(window * (1 - overlap)))
                theirs = [one[0].start for one in data.dense_patch_slices((size,), (window,), (step,))]
                assert starts(size, window, overlap) == theirs


@pytest.mark.parametrize(
    "wrong", ["overlap = [1.0]", "overlap = [0.1, -0.1]", "sigma_scale = [0.0]", "roi_zyx = [0, 4, 4]"]
)
def test_wrong_settings_are_named(wrong: str) -> None:
    with pytest.raises(UsageError, match=wrong.split()[0]):
        parse_recipe(RECIPE.format(layout="NCZYX", sliding=wrong))
