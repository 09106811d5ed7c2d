"""Detection: boxes or points with scores, in mm in the patient's frame, after non-maximum suppression.

Where the recipe slides windows, each window's boxes are moved to their place and suppressed together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from voxelrt.backends.native import CancelFlag
from voxelrt.kernels import nms3d
from voxelrt.models.recipe_schema import Recipe
from voxelrt.models.recipe_tables import Boxes
from voxelrt.plan.plan import Plan
from voxelrt.postprocess.overlay import draw_overlay
from voxelrt.preprocess.grid import GridMap
from voxelrt.preprocess.layout import from_layout, to_layout
from voxelrt.sliding import window_of, window_places
from voxelrt.tasks.answered import Answered, network_affine
from voxelrt.tasks.boxes import Found, decode
from voxelrt.tiling.overlapping import padded
from voxelrt.volume import Volume

if TYPE_CHECKING:
    from voxelrt.request import Ready

Tell = Callable[[str, int, int], None]
Floats = NDArray[np.float32]
DEFAULT_THRESHOLD = 0.5
SHOWN = 8  # findings in lines and captions
OF_BOXES = ("size_mm", "size_pixels", "corners_mm_lps")


@dataclass(frozen=True, eq=False)
class Place:
    """How voxels of the network's grid lie in the world and on the study's grid."""

    affine: NDArray[np.float64]
    study: Volume

    def finding(self, box: Floats, score: float, name: str) -> dict[str, Any]:
        """A box (z0 y0 x0 z1 y1 x1, faces between voxels at half numbers) as JSON, lengths in mm, LPS; of a picture in
        pixels, and in mm where it tells them."""
        low, high = box[2::-1].astype(np.float64), box[:2:-1].astype(np.float64)  # (x, y, z)
        centre = self.affine @ np.array([*((low + high) / 2), 1.0])
        columns = self.affine[:3, :3]
        spacing = np.linalg.norm(columns, axis=0)
        corners = [[(high if bit >> axis & 1 else low)[axis] for axis in range(3)] for bit in range(8)]
        world = [self.affine @ np.array([*corner, 1.0]) for corner in corners]
        to_study = np.linalg.inv(self.study.affine)
        index = to_study @ centre
        if not self.study.in_space:
            sides = np.ptp([(to_study @ corner)[:2] for corner in world], axis=0)
            known = self.study.known_spacing_mm[:0:-1]
            sizes = [float(n * mm) for n, mm in zip(sides, known, strict=True) if mm is not None]
            return {
                "label": name,
                "score": score,
                "size_pixels": [float(v) for v in sides],
                **({"size_mm": sizes} if sizes else {}),
                "study_voxel_xyz": [float(v) for v in index[:3]],
            }
        return {
            "label": name,
            "score": score,
            "centre_mm_lps": [float(v) for v in centre[:3]],
            "size_mm": [float(v) for v in (high - low) * spacing],
            "directions": [[float(v) for v in columns[:, axis] / spacing[axis]] for axis in range(3)],
            "corners_mm_lps": [[float(v) for v in one[:3]] for one in world],
            "study_voxel_xyz": [float(v) for v in index[:3]],
        }


def detect(plan: Plan, ready: Ready, tell: Tell, cancel: CancelFlag | None) -> Answered:
    """The findings of a study, best first.

    Raises
    ------
    ModelError : the outputs are not what the recipe's table ``output.boxes`` says.
    """
    recipe, way, study = ready.recipe, ready.way, ready.opened.volume
    how = recipe.output.boxes
    if not isinstance(way, GridMap) or how is None:
        raise TypeError("a detector has a table of boxes and no case of nnU-Net")
    volume = np.asarray(from_layout(ready.tensor, recipe.input.layout), np.float32)
    threshold = DEFAULT_THRESHOLD if recipe.output.threshold is None else recipe.output.threshold
    found = _within(suppressed(_all_windows(plan, recipe, volume, threshold, tell, cancel), how), volume)
    names = {label.value: label.name for label in recipe.output.labels}
    place = Place(network_affine(study, way), study)
    findings = [
        place.finding(box, float(score), names.get(int(kind), f"class {int(kind)}"))
        for box, score, kind in zip(found.boxes, found.scores, found.classes, strict=True)
    ]
    if how.form == "points":
        findings = [{k: v for k, v in one.items() if k not in OF_BOXES} for one in findings]
    labels = _drawn(found, volume, way, study, findings)
    details = {
        "findings": findings,
        "frame": "LPS, mm" if study.in_space else "pixels of the picture, from 0",
        "threshold": threshold,
        "suppression": {"overlap": how.overlap, "most": how.most},
    }

    def draw(title: str, caption: str) -> Any:
        return draw_overlay(ready.opened.shown, labels, title=title, caption=caption)

    lines = [f"{len(findings)} finding{'s' * (len(findings) != 1)} above {threshold:g}"]
    lines += [_line(one) for one in findings[:SHOWN]]
    lines += [f"and {len(findings) - SHOWN} more"] if len(findings) > SHOWN else []
    return Answered(details, {}, lines, {"boxes": labels}, draw=draw)


def suppressed(found: Found, how: Boxes) -> Found:
    """What non-maximum suppression leaves, best first."""
    kept = nms3d(found.boxes, found.scores, found.classes, overlap=how.overlap)[: how.most]
    return Found(found.boxes[kept], found.scores[kept], found.classes[kept])


def _all_windows(
    plan: Plan, recipe: Recipe, volume: Floats, threshold: float, tell: Tell, cancel: CancelFlag | None
) -> Found:
    """The boxes of all windows on the network's grid; of a volume that is run as a whole there is one window."""
    how = recipe.output.boxes
    assert how is not None
    inside, places, window = (slice(0, 0), slice(0, 0), slice(0, 0)), [(0, 0, 0)], (0, 0, 0)
    data = volume
    if recipe.input.window == "sliding":
        window = window_of(plan, recipe)
        data, inside = padded(volume, window, recipe.input.sliding)
        places = window_places((data.shape[1], data.shape[2], data.shape[3]), window, recipe)
    offset = np.array([part.start for part in inside], np.float32)
    found = []
    for number, place in enumerate(places):
        part = data
        if recipe.input.window == "sliding":
            part = data[(slice(None), *(slice(at, at + n) for at, n in zip(place, window, strict=True)))]
        answers = plan.run({recipe.input.name: to_layout(part, recipe.input.layout)}, cancel=cancel)
        found.append(decode(answers, recipe.output, threshold).moved(np.array(place, np.float32) - offset))
        tell("run", number + 1, len(places))
    return Found.joined(found)


def _within(found: Found, volume: Floats) -> Found:
    """Boxes cut to the grid; those with their centre outside of it are of the padding and go."""
    size = np.array(volume.shape[1:], np.float32)
    centre = (found.boxes[:, :3] + found.boxes[:, 3:]) / 2
    kept = ((centre >= -0.5) & (centre <= size - 0.5)).all(axis=1)
    boxes = np.clip(found.boxes[kept], -0.5, np.concatenate([size, size]) - 0.5)
    return Found(boxes.astype(np.float32), found.scores[kept], found.classes[kept])


def _drawn(found: Found, volume: Floats, way: GridMap, study: Volume, findings: list[dict[str, Any]]) -> Volume:
    """The boxes as labels on the study's grid, number k the k-th finding; the better lie over the worse."""
    made = np.zeros((1, *volume.shape[1:]), np.uint16)
    for number in range(len(found.boxes), 0, -1):
        low, high = found.boxes[number - 1, :3], found.boxes[number - 1, 3:]
        first = np.clip(np.ceil(low - 1e-4), 0, np.array(volume.shape[1:]) - 1).astype(int)
        last = np.maximum(np.floor(high + 1e-4).astype(int), first)
        z, y, x = (slice(int(a), int(b) + 1) for a, b in zip(first, last, strict=True))
        made[0, z, y, x] = number
    whole = np.zeros((1, *way.turned_zyx), np.uint16)
    for planes, slab in way.backward(made, interpolation="nearest"):
        whole[:, planes] = np.rint(slab)
    names = {k: f"{one['label']} {one['score']:.2f}" for k, one in enumerate(findings, start=1)}
    return study.with_array(np.ascontiguousarray(way.turn_back(whole)), names)


def _line(one: dict[str, Any]) -> str:
    unit = "mm" if "size_mm" in one else "pixels"
    size = " x ".join(f"{v:.1f}" for v in one[f"size_{unit}"]) + f" {unit}" if f"size_{unit}" in one else "a point"
    if "centre_mm_lps" not in one:
        x, y, _ = one["study_voxel_xyz"]
        return f"{one['label']} {one['score']:.3f}: {size} at column {x:.1f}, row {y:.1f}"
    x, y, z = one["centre_mm_lps"]
    return f"{one['label']} {one['score']:.3f}: {size} at L {x:.1f}, P {y:.1f}, S {z:.1f} mm"
