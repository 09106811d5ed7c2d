"""Anomaly maps of an autoencoder: where the study is not what the network can reconstruct, and one number for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from voxelrt.backends.native import CancelFlag
from voxelrt.errors import ModelError
from voxelrt.plan.plan import Plan
from voxelrt.postprocess.overlay import drawn_image
from voxelrt.postprocess.sheet import draw_sheet, grey_column, tinted_column
from voxelrt.preprocess.grid import GridMap
from voxelrt.preprocess.layout import from_layout
from voxelrt.tasks.answered import Answered, on_study
from voxelrt.tasks.network import network_answer

if TYPE_CHECKING:
    from voxelrt.request import Ready

Tell = Callable[[str, int, int], None]
PERCENTILES = (50, 95, 99)


def find_anomalies(plan: Plan, ready: Ready, tell: Tell, cancel: CancelFlag | None) -> Answered:
    """The reconstruction's error, the mean over channels of |image − reconstruction|, in units of the scaled image.

    Raises
    ------
    ModelError : the reconstruction has another shape than the image.
    """
    recipe, way, study = ready.recipe, ready.way, ready.opened.volume
    if not isinstance(way, GridMap):
        raise TypeError("an autoencoder has no case of nnU-Net")
    image = np.asarray(from_layout(ready.tensor, recipe.input.layout), np.float32)
    made = np.asarray(network_answer(plan, ready, tell, cancel), np.float32)
    if made.shape != image.shape:
        raise ModelError(f"{recipe.name} reconstructs {made.shape} of an image of {image.shape}")
    error = np.abs(image - made).mean(axis=0, keepdims=True)
    spread = {f"percentile_{p}": float(v) for p, v in zip(PERCENTILES, np.percentile(error, PERCENTILES), strict=True)}
    score = float(error.mean(dtype=np.float64))
    planes = error[0].mean(axis=(1, 2), dtype=np.float64)
    on_grid = on_study(error, way, study, outside=0.0)
    worst = np.unravel_index(int(np.argmax(on_grid.array[0])), on_grid.shape_zyx)
    world = study.affine @ np.array([*worst[::-1], 1.0])
    details = {
        "score": score,
        "error": {"mean": score, **spread, "maximum": float(error.max())},
        "worst_voxel_xyz": [int(v) for v in worst[::-1]],
        **({"worst_mm_lps": [float(v) for v in world[:3]]} if study.in_space else {}),
        "planes": [float(v) for v in planes],
        "unit": f"scaled intensity ({recipe.input.intensity.scaling})",
    }

    def draw(title: str, caption: str) -> Any:
        columns = [
            grey_column("image", drawn_image(ready.opened.shown)),
            grey_column("reconstruction", np.asarray(on_study(made, way, study).array[0])),
            tinted_column("error", drawn_image(ready.opened.shown), np.asarray(on_grid.array[0])),
        ]
        at = (int(worst[0]), int(worst[1]), int(worst[2]))
        return draw_sheet(study, columns, at_zyx=at, title=title, caption=caption)

    line = f"anomaly score (mean error): {score:.4g}; 99th percentile {spread['percentile_99']:.4g}"
    return Answered(details, {"anomaly": score}, [line], {"error": on_grid}, draw=draw)
