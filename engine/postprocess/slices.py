"""A volume as a picture to look through: a sheet of its slices (PNG), or one after the other (GIF).

Slices are cut as they were taken (across the array's z), turned to radiological convention, with the letters of the
patient's sides and a scale bar. Like `overlay`, the pictures hold nothing that names the patient.
"""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageDraw

from voxelrt.errors import GeometryError
from voxelrt.io.atomic import atomic_path
from voxelrt.io.orientation import reorient
from voxelrt.postprocess.overlay import (
    BACKGROUND,
    CONVENTION,
    HEAD,
    LINE,
    MARGIN,
    NARROWEST,
    NOT_A_DEVICE,
    PALETTE,
    QUIET,
    TEXT,
    UNPLACED,
    Panel,
    directions_note,
    draw_foot,
    draw_panel,
    drawn_channels,
    font,
    foot_lines,
    whole_numbers,
    window_of,
)
from voxelrt.postprocess.views import VIEWS, View
from voxelrt.volume import Volume

MOST_TILES = 24
TILE_WIDTH, TILE_HEIGHT, GAP = 250, 320, 14
FRAME_WIDTH, FRAME_HEIGHT = 400, 480
SMALLEST = 180
MOST_FRAMES = 400
FRAME_MS = 90

Labels = NDArray[Any]


def write_sheet(
    volume: Volume, path: str | os.PathLike[str], *, labels: Volume | None = None, title: str = "", channel: int = 0
) -> None:
    """Write a PNG of up to 24 slices, evenly chosen; whole or not at all. See :func:`draw_sheet`.

    Raises
    ------
    UsageError, GeometryError : as :func:`draw_sheet`. OutputError : the file cannot be written.
    """
    picture = draw_sheet(volume, labels=labels, title=title, channel=channel)
    with atomic_path(path) as temporary:
        picture.save(temporary, format="PNG")


def write_film(
    volume: Volume, path: str | os.PathLike[str], *, labels: Volume | None = None, channel: int = 0
) -> None:  # fmt: skip
    """Write a GIF that goes through all slices (evenly chosen ones where there are more than 400), and again.

    Parameters as :func:`draw_sheet`.

    Raises
    ------
    UsageError, GeometryError : as :func:`draw_sheet`. OutputError : the file cannot be written.
    """
    scene = _Scene(volume, labels, channel)
    indices = scene.indices(MOST_FRAMES)
    # One palette for all, of the slice in the middle: else each frame would flicker in its own colours.
    middle = scene.frame(indices[len(indices) // 2]).quantize(256, method=Pillow.Quantize.MEDIANCUT)
    frames = (scene.frame(index).quantize(palette=middle, dither=Pillow.Dither.NONE) for index in indices[1:])
    first = scene.frame(indices[0]).quantize(palette=middle, dither=Pillow.Dither.NONE)
    with atomic_path(path) as temporary:
        first.save(
            temporary, format="GIF", save_all=True, append_images=frames, duration=FRAME_MS, loop=0, optimize=False
        )


def draw_sheet(
    volume: Volume, *, labels: Volume | None = None, title: str = "", channel: int = 0
) -> Pillow.Image:  # fmt: skip
    """Draw slices in rows.

    Parameters
    ----------
    volume
        (C, Z, Y, X), in any axis order; `channel` of it is drawn, from the 0.5th to the 99.5th percentile, or its
        colours where it is a picture in colour.
    labels
        (1, Z, Y, X) on the same grid: drawn as outlines.
    title
        A line above. Keep patient identifiers out.

    Raises
    ------
    GeometryError : the labels are not on the volume's grid.
    UsageError : a channel that does not exist, labels with fractions or several channels.
    """
    scene = _Scene(volume, labels, channel)
    indices = scene.indices(MOST_TILES)
    cell, scale = scene.cell(TILE_WIDTH, TILE_HEIGHT)
    about = max(1, math.ceil(math.sqrt(len(indices) * 1.5 * cell[1] / cell[0])))
    # Of the numbers near to it the one that leaves the fewest places empty.
    columns = min(range(max(1, about - 1), about + 2), key=lambda count: (-len(indices) % count, count))
    columns = min(columns, len(indices))
    rows = math.ceil(len(indices) / columns)
    top = MARGIN + (46 if title else 0)
    width = max(2 * MARGIN + columns * (cell[0] + GAP) - GAP, NARROWEST)
    note = directions_note(scene.volume)
    bottom = top + rows * (HEAD + cell[1] + GAP)
    height = bottom + 50 + LINE * (foot_lines(note, width) - 1)
    canvas = Pillow.new("RGB", (width, height), BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    if title:
        draw.text((MARGIN, 24), title, TEXT, font(26))
    for number, index in enumerate(indices):
        row, column = divmod(number, columns)
        left, upper = MARGIN + column * (cell[0] + GAP), top + HEAD + row * (HEAD + cell[1] + GAP)
        scene.draw(canvas, index, (left, upper), cell, scale)
    draw_foot(draw, note, width, bottom + 10)
    return canvas


class _Scene:
    """A volume in LPS order, cut across the axis that was the array's z."""

    def __init__(self, volume: Volume, labels: Volume | None, channel: int) -> None:
        if labels is not None and (
            volume.shape_zyx != labels.shape_zyx or np.abs(volume.affine - labels.affine).max() > 1e-3
        ):
            raise GeometryError("the labels are not on the volume's grid; bring them there before drawing them")
        self.volume, turn = reorient(volume, "LPS")
        through = turn.axes.index(2)
        self.view: View = next(view for view in VIEWS if view.through == through)
        self.image = drawn_channels(self.volume, channel)
        self.window = window_of(self.image)
        self.labels: Labels = np.zeros((1, 1, 1), np.uint8)
        self.colours: dict[int, tuple[int, int, int]] = {}
        if labels is not None:
            self.labels = whole_numbers(reorient(labels, "LPS")[0].array)
            values = [int(value) for value in np.unique(self.labels) if value != 0]
            self.colours = {value: PALETTE[number % len(PALETTE)] for number, value in enumerate(values)}
        else:
            self.labels = np.broadcast_to(self.labels, self.volume.shape_zyx)
        self.size = self.volume.shape_zyx[::-1]

    def indices(self, most: int) -> list[int]:
        """Slices from feet to head, right to left or front to back, evenly chosen, the outermost a bit inward."""
        count = self.size[self.view.through]
        if count <= most:
            return list(range(count))
        return [int((number + 0.5) * count / most) for number in range(most)]

    def cell(self, width: int, height: int) -> tuple[tuple[int, int], float]:
        """The size of a slice's cell in pixels, and pixels per mm, to fit into width and height."""
        spacing = self.volume.spacing_mm[::-1]
        across, down = (self.size[axis] * spacing[axis] for axis in (self.view.across, self.view.down))
        scale = min(width / across, height / down)
        return (max(SMALLEST, round(across * scale)), max(SMALLEST, round(down * scale))), scale

    def frame(self, index: int) -> Pillow.Image:
        """One slice alone."""
        cell, scale = self.cell(FRAME_WIDTH, FRAME_HEIGHT)
        width = max(cell[0] + 2 * GAP, 420)
        canvas = Pillow.new("RGB", (width, HEAD + cell[1] + 58), BACKGROUND)
        self.draw(canvas, index, ((width - cell[0]) // 2, HEAD), cell, scale)
        draw = ImageDraw.Draw(canvas)
        for number, text in enumerate((CONVENTION if self.volume.placed else UNPLACED, NOT_A_DEVICE)):
            draw.text((GAP, HEAD + cell[1] + 10 + 22 * number), text, QUIET, font(15))
        return canvas

    def draw(
        self, canvas: Pillow.Image, index: int, corner: tuple[int, int], cell: tuple[int, int], scale: float
    ) -> None:
        """One slice into its cell."""
        spacing = self.volume.spacing_mm[::-1]
        w, h = (
            max(1, round(self.size[axis] * spacing[axis] * scale)) for axis in (self.view.across, self.view.down)
        )  # fmt: skip
        left, top = corner
        x, y = left + (cell[0] - w) // 2, top + (cell[1] - h) // 2
        panel = Panel(self.view, (left, top, left + cell[0], top + cell[1]), (x, y, x + w, y + h), scale)
        at = [(n - 1) // 2 for n in self.size]
        at[self.view.through] = index
        draw_panel(
            canvas, panel, self.volume, self.image, self.labels, self.colours, self.window, (at[0], at[1], at[2])
        )
