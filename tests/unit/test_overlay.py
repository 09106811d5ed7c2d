"""The overlay picture: the right side on the left, the right letters, and nothing of the patient."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageDraw

from tests.phantoms import forty_eight, rotation
from voxelrt.errors import GeometryError, UsageError
from voxelrt.io.orientation import reorient
from voxelrt.postprocess.overlay import (
    LETTER,
    PALETTE,
    bar_length_mm,
    directions_note,
    draw_overlay,
    lay_out,
    outline_alpha,
    overlay_picture,
)
from voxelrt.postprocess.slices import draw_sheet
from voxelrt.postprocess.views import AXIAL, CORONAL, SAGITTAL, VIEWS, View, centre_of
from voxelrt.volume import Volume

SIZE_XYZ = (40, 50, 30)
OPPOSITE = {"R": "L", "L": "R", "A": "P", "P": "A", "S": "I", "I": "S"}
# From a voxel of the LPS grid, one step to that side of the patient.
STEP = {"L": (1, 0, 0), "R": (-1, 0, 0), "P": (0, 1, 0), "A": (0, -1, 0), "S": (0, 0, 1), "I": (0, 0, -1)}


def test_letters_are_those_of_the_radiological_convention() -> None:
    assert AXIAL.letters == ("R", "L", "A", "P")
    assert CORONAL.letters == ("R", "L", "S", "I")
    assert SAGITTAL.letters == ("A", "P", "S", "I")


@pytest.mark.parametrize("view", VIEWS, ids=lambda v: v.name)
def test_a_step_to_a_side_moves_towards_its_letter(view: View) -> None:
    middle = (20.0, 25.0, 15.0)
    directions = ((-1, 0), (1, 0), (0, -1), (0, 1))
    for letter, direction in zip(view.letters, directions, strict=True):
        moved = tuple(m + s for m, s in zip(middle, STEP[letter], strict=True))
        before, after = view.place(middle, SIZE_XYZ), view.place(moved, SIZE_XYZ)  # type: ignore[arg-type]
        assert (after[0] - before[0], after[1] - before[1]) == direction


@pytest.mark.parametrize("view", VIEWS, ids=lambda v: v.name)
def test_the_cut_shows_a_voxel_where_place_says(view: View) -> None:
    voxel = (7, 33, 21)
    array = np.zeros(SIZE_XYZ[::-1])
    array[voxel[2], voxel[1], voxel[0]] = 1
    picture = view.cut(array, voxel[view.through])
    assert picture.shape == (SIZE_XYZ[view.down], SIZE_XYZ[view.across])
    (row,), (column,) = np.nonzero(picture)
    assert (column, row) == view.place(voxel, SIZE_XYZ)


def blob(linear: NDArray[np.float64], world: tuple[float, float, float]) -> tuple[Volume, Volume]:
    """A grey volume of 64³ mm centred on the origin, in any axis order, with a mask of 8 mm around a place in mm."""
    spacing = np.array([1.0, 2.0, 4.0])
    size_xyz = (64, 32, 16)
    affine = np.eye(4)
    affine[:3, :3] = linear @ np.diag(spacing)
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(size_xyz) - 1) / 2)
    z, y, x = np.indices(size_xyz[::-1])
    places = np.einsum("ij,jzyx->izyx", affine, np.stack([x, y, z, np.ones_like(x)]))[:3]
    near = np.abs(places - np.array(world)[:, None, None, None]).max(axis=0) <= 6
    grey = Volume(np.full(size_xyz[::-1], 100, np.int16), affine)
    return grey, grey.with_array(near.astype(np.uint8), {1: "blob"})


def coloured(picture: Pillow.Image, box: tuple[int, int, int, int]) -> tuple[float, float]:
    """The mean (column, row) of the first label's pure outline colour in a box, 0 to 1 within the box."""
    pixels = np.asarray(picture.crop(box)).astype(int)
    rows, columns = np.nonzero(np.abs(pixels - PALETTE[0]).max(axis=2) < 40)
    assert len(rows) > 10
    return float(columns.mean() / pixels.shape[1]), float(rows.mean() / pixels.shape[0])


@pytest.mark.parametrize("number", range(48))
def test_a_blob_at_the_patients_left_is_on_the_right_of_the_picture(number: int) -> None:
    """Left, anterior and superior, from every axis order: the pixels of the outline lie on those sides."""
    grey, mask = blob(forty_eight()[number], (18.0, -14.0, 16.0))
    picture = draw_overlay(grey, mask)
    panels, _, _ = lay_out(reorient(grey)[0])
    axial, coronal, sagittal = (coloured(picture, panel.picture) for panel in panels)
    assert axial == pytest.approx((0.5 + 18 / 64, 0.5 - 14 / 64), abs=0.06)
    assert coronal == pytest.approx((0.5 + 18 / 64, 0.5 - 16 / 64), abs=0.06)
    assert sagittal == pytest.approx((0.5 - 14 / 64, 0.5 - 16 / 64), abs=0.06)


def test_panels_keep_millimetres_square_and_share_one_scale() -> None:
    volume = Volume(np.zeros((20, 60, 50), np.int16), np.diag([1.0, 1.5, 6.0, 1.0]))
    panels, _, _ = lay_out(volume)
    for panel, (wide, high) in zip(panels, ((50, 90), (50, 120), (90, 120)), strict=True):
        left, top, right, bottom = panel.picture
        assert right - left == round(wide * panel.pixels_per_mm)
        assert bottom - top == round(high * panel.pixels_per_mm)
        assert panel.cell[1] == panels[0].cell[1]
        assert panel.cell[3] == panels[0].cell[3]


def test_centre_is_the_centroid_or_the_middle() -> None:
    mask = np.zeros((9, 11, 13), bool)
    assert centre_of(mask) == (6, 5, 4)
    mask[2:5, 3:8, 10] = True
    assert centre_of(mask) == (10, 5, 3)


def test_the_outline_of_a_square_is_its_edge() -> None:
    mask = np.zeros((10, 10), bool)
    mask[3:7, 2:8] = True
    line, inside = outline_alpha(mask, 100, 100)
    assert inside[50, 50] == 1
    assert inside[5, 5] == 0
    assert line[50, 50] == 0
    assert line[29:31, 50].max() > 0.8
    assert line[50, 19:21].max() > 0.8
    assert (line > 0.5).sum() < 400


def test_bars_are_ten_millimetres_where_they_fit() -> None:
    assert bar_length_mm(500, 3.0) == 10
    assert bar_length_mm(180, 100.0) == 0.1


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 64, 64), (300, 4, 4), (2, 2, 400)])
def test_odd_shapes_are_drawn(shape: tuple[int, int, int]) -> None:
    volume = Volume(np.arange(np.prod(shape)).reshape(shape).astype(np.float32), np.eye(4))
    picture = draw_overlay(volume, volume.with_array(np.ones(shape, np.uint8)), title="t", caption="c")
    assert picture.width >= 900


def test_a_single_slice_has_one_view_and_an_unplaced_picture_no_sides() -> None:
    slice_ = np.zeros((1, 64, 80), np.int16)
    for axes in ((0, 1, 2), (1, 0, 2), (1, 2, 0)):
        panels, _, _ = lay_out(Volume(slice_.transpose(axes), np.eye(4)))
        assert len(panels) == 1
        left, top, right, bottom = panels[0].picture
        assert {round((right - left) / panels[0].pixels_per_mm), round((bottom - top) / panels[0].pixels_per_mm)} == {
            80,
            64,
        }

    def lettered(volume: Volume) -> int:
        drawn = np.asarray(draw_overlay(volume, volume.with_array(np.zeros(volume.shape_zyx, np.uint8))))
        return int((np.abs(drawn.astype(int) - LETTER).max(axis=2) < 8).sum())

    assert lettered(Volume(slice_, np.eye(4))) > 50
    assert lettered(Volume(slice_, np.eye(4), placed=False)) == 0


def test_many_labels_nan_constant_and_oblique_volumes_are_drawn() -> None:
    affine = np.eye(4)
    affine[:3, :3] = rotation(10)
    array = np.full((8, 9, 10), np.nan, np.float32)
    volume = Volume(array, affine)
    labels = np.arange(720).reshape(8, 9, 10) % 41
    draw_overlay(volume, volume.with_array(labels.astype(np.int16)))
    draw_overlay(volume, volume.with_array(np.zeros((8, 9, 10), bool)))
    draw_overlay(volume, volume.with_array((labels == 3).astype(np.float32)), window=(0, 1))


@pytest.mark.parametrize("draw", ["overlay", "sheet"])
def test_lines_below_a_narrow_picture_do_not_meet(monkeypatch: pytest.MonkeyPatch, draw: str) -> None:
    turned = np.eye(4)
    turned[:2, :2] = [[0.93, -0.36], [0.36, 0.93]]
    volume = Volume(np.arange(400.0, dtype=np.float32).reshape(1, 1, 20, 20), turned)
    boxes: list[tuple[float, float, float, float]] = []
    write = ImageDraw.ImageDraw.text

    def text(self: ImageDraw.ImageDraw, xy: Any, words: str, *rest: Any, **how: Any) -> None:
        if words.startswith(("radiological", "research")):
            boxes.append(self.textbbox(xy, words, rest[1], anchor=how.get("anchor")))
        write(self, xy, words, *rest, **how)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", text)
    mask = Volume(np.zeros((1, 1, 20, 20), np.uint8), turned)
    picture = draw_overlay(volume, mask) if draw == "overlay" else draw_sheet(volume)
    note, notice = boxes
    assert "oblique" in directions_note(volume)
    assert note[2] < notice[0] or note[3] <= notice[1]
    assert max(note[2], notice[2]) <= picture.width
    assert notice[3] <= picture.height


def test_wrong_masks_are_refused() -> None:
    volume = Volume(np.zeros((4, 4, 4), np.int16), np.eye(4))
    with pytest.raises(GeometryError, match="not on the volume's grid"):
        draw_overlay(volume, Volume(np.zeros((4, 4, 5), np.uint8), np.eye(4)))
    with pytest.raises(GeometryError, match="not on the volume's grid"):
        draw_overlay(volume, Volume(np.zeros((4, 4, 4), np.uint8), np.eye(4) + np.eye(4, k=3)))
    with pytest.raises(UsageError, match="fractions"):
        draw_overlay(volume, volume.with_array(np.full((4, 4, 4), 0.3)))
    with pytest.raises(UsageError, match="one channel"):
        draw_overlay(volume, volume.with_array(np.zeros((2, 4, 4, 4), np.uint8)))
    with pytest.raises(UsageError, match="channel 1"):
        draw_overlay(volume, volume.with_array(np.zeros((4, 4, 4), np.uint8)), channel=1)


def test_the_file_is_a_png_without_text_and_an_interrupted_one_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = Volume(np.zeros((4, 4, 4), np.int16), np.eye(4))
    mask = volume.with_array(np.ones((4, 4, 4), np.uint8))
    overlay_picture(volume, mask, tmp_path / "a.png", title="Brain", caption="brain 1 mL")
    with Pillow.open(tmp_path / "a.png") as picture:
        assert picture.format == "PNG"
        assert picture.info == {}

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Pillow.Image, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        overlay_picture(volume, mask, tmp_path / "b.png")
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_a_picture_in_colour_keeps_its_colours_below_the_labels() -> None:
    colours = np.zeros((3, 1, 40, 60), np.uint8)
    colours[0, 0, :, :30], colours[1, 0, :, 30:], colours[2] = 200, 120, 33
    volume = Volume(colours, np.eye(4), placed=False, lengths="none", colour=True)
    corner = np.zeros((1, 40, 60), np.uint8)
    corner[:, :4, :4] = 1
    for drawn in (draw_overlay(volume, volume.with_array(corner)), draw_sheet(volume)):
        shown = {tuple(colour) for colour in np.asarray(drawn).reshape(-1, 3)}
        assert {(200, 0, 33), (0, 120, 33)} <= shown
    # Three channels of another kind are no colours.
    images = volume.with_array(colours)
    grey = np.asarray(draw_overlay(images, images.with_array(np.zeros((1, 40, 60), np.uint8))))
    assert (200, 0, 33) not in {tuple(colour) for colour in grey.reshape(-1, 3)}
