"""One picture of a volume with its mask: three views, outlines, letters, scale bars. For a human to check a result.

The picture holds what the caller passes as title and caption and nothing of the study: no names, no dates, no UIDs.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont

from voxelrt.errors import GeometryError, UsageError
from voxelrt.io.atomic import atomic_path
from voxelrt.io.orientation import reorient
from voxelrt.postprocess.views import View, centre_of, obliquity_degrees, views_of
from voxelrt.volume import Volume

Colour = tuple[int, int, int]

BACKGROUND: Colour = (17, 19, 24)
TEXT: Colour = (236, 239, 244)
QUIET: Colour = (150, 158, 170)
LETTER: Colour = (255, 214, 120)
# Bright on grey, and told apart by lightness as well as hue, for readers who see few colours.
PALETTE: tuple[Colour, ...] = (
    (255, 92, 72), (72, 202, 255), (255, 205, 64), (126, 231, 120), (214, 140, 255),
    (255, 150, 60), (110, 150, 255), (255, 130, 185), (64, 224, 190), (205, 220, 120),
)  # fmt: skip

CONVENTION = "radiological convention: the patient's right is on the left"
UNPLACED = "the picture does not say where its sides lie in the patient"
NOT_A_DEVICE = "research software, not a medical device"

MARGIN, GAP, HEAD, LINE = 36, 24, 34, 30
PANELS_WIDTH, PANELS_HEIGHT, SMALLEST_CELL = 1500, 640, 180
NARROWEST = 1100  # for the two lines of small print side by side
OUTLINE_PIXELS = 1.8
FILL = 0.1
LEGEND_ENTRIES = 24
PERCENTILES = (0.5, 99.5)
PERCENTILE_SAMPLES = 2**20


@dataclass(frozen=True)
class Panel:
    """Where a view is drawn: its cell and, centred in it, its picture; boxes are (left, top, right, bottom) pixels."""

    view: View
    cell: tuple[int, int, int, int]
    picture: tuple[int, int, int, int]
    pixels_per_mm: float


def overlay_picture(
    volume: Volume,
    mask: Volume,
    path: str | os.PathLike[str],
    *,
    title: str = "",
    caption: str = "",
    channel: int = 0,
    window: tuple[float, float] | None = None,
) -> None:
    """Write a PNG of `volume` with the outlines of `mask`; whole or not at all. See :func:`draw_overlay`.

    Raises
    ------
    UsageError, GeometryError : as :func:`draw_overlay`.
    OutputError : the file cannot be written.
    """
    picture = draw_overlay(volume, mask, title=title, caption=caption, channel=channel, window=window)
    with atomic_path(path) as temporary:
        picture.save(temporary, format="PNG")


def draw_overlay(
    volume: Volume,
    mask: Volume,
    *,
    title: str = "",
    caption: str = "",
    channel: int = 0,
    window: tuple[float, float] | None = None,
) -> Pillow.Image:
    """Draw axial, coronal and sagittal views through the mask's centroid (the grid's middle if the mask is empty).

    Of a single slice or picture the one view that shows it is drawn.

    Parameters
    ----------
    volume
        (C, Z, Y, X), in any axis order; `channel` of it is drawn, or its colours where it is a picture in colour.
    mask
        (1, Z, Y, X) on the same grid: 0 is background, every other whole number a label with its own colour. Its
        ``labels`` name the legend's entries.
    title, caption
        Lines above and below the views, such as the volume in mL. Keep patient identifiers out.
    channel
        Which channel of the volume.
    window
        Values (low, high) drawn black and white; without it the 0.5th and 99.5th percentile of the volume, and all
        values of 8-bit colours.

    Raises
    ------
    GeometryError : the mask is not on the volume's grid.
    UsageError : a channel that does not exist, a mask with several channels or with fractions.
    """
    if volume.shape_zyx != mask.shape_zyx or np.abs(volume.affine - mask.affine).max() > 1e-3:
        raise GeometryError("the mask is not on the volume's grid; bring it there before drawing it")
    turned, _ = reorient(volume, "LPS")
    turned_mask, _ = reorient(mask, "LPS")
    image = drawn_channels(turned, channel)
    labels = whole_numbers(turned_mask.array)
    values = [int(value) for value in np.unique(labels) if value != 0]
    colours = {value: PALETTE[number % len(PALETTE)] for number, value in enumerate(values)}
    low, high = window or window_of(image)
    at = centre_of(labels != 0)
    panels, width, bottom = lay_out(turned, has_title=bool(title))

    legend = [(colours[v], mask.labels.get(v, f"label {v}")) for v in values] if _needs_legend(mask, values) else []
    rows = _legend_rows(legend, width - 2 * MARGIN)
    note = directions_note(turned)
    height = bottom + 14 + LINE * (bool(caption) + len(rows) + foot_lines(note, width)) + 14
    canvas = Pillow.new("RGB", (width, height), BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    if title:
        draw.text((MARGIN, 22), title, TEXT, font(26))
    for panel in panels:
        draw_panel(canvas, panel, turned, image, labels, colours, (low, high), at)
    y = bottom + 14
    if caption:
        draw.text((MARGIN, y), caption, TEXT, font(19))
        y += LINE
    for row in rows:
        _draw_legend_row(draw, row, y)
        y += LINE
    draw_foot(draw, note, width, y + 2)
    return canvas


def foot_lines(note: str, width: int) -> int:
    """How many lines the note on directions and the notice below it take in a picture of this width: one or two."""
    return 1 if font(15).getlength(note) + font(15).getlength(NOT_A_DEVICE) + GAP <= width - 2 * MARGIN else 2


def draw_foot(draw: ImageDraw.ImageDraw, note: str, width: int, y: int) -> None:
    """Draw the note on directions, and that this is no medical device, from row `y` on."""
    draw.text((MARGIN, y), note, QUIET, font(15))
    below = y + LINE * (foot_lines(note, width) - 1)
    draw.text((width - MARGIN, below), NOT_A_DEVICE, QUIET, font(15), anchor="ra")


def lay_out(volume: Volume, *, has_title: bool = False) -> tuple[tuple[Panel, ...], int, int]:
    """Place the views of a volume in LPS order (three, or the one of a single slice), all at one scale.

    Returns
    -------
    panels : in the order of `views_of`.
    width : of the whole picture in pixels.
    bottom : the lowest row of the views.
    """
    size, spacing = volume.shape_zyx[::-1], volume.spacing_mm[::-1]
    views = views_of(size)
    extents = [(size[v.across] * spacing[v.across], size[v.down] * spacing[v.down]) for v in views]
    scale = min(PANELS_WIDTH / sum(w for w, _ in extents), PANELS_HEIGHT / max(h for _, h in extents))
    pictures = [(max(1, round(w * scale)), max(1, round(h * scale))) for w, h in extents]
    cell_height = max(SMALLEST_CELL, *(h for _, h in pictures))
    needed = sum(max(SMALLEST_CELL, w) + GAP for w, _ in pictures) - GAP + 2 * MARGIN
    # Wide enough for the lines of text below, however narrow the volume is.
    width = max(needed, NARROWEST)
    left, top = MARGIN + (width - needed) // 2, (76 if has_title else 20) + HEAD
    panels = []
    for view, (w, h) in zip(views, pictures, strict=True):
        cell_width = max(SMALLEST_CELL, w)
        x, y = left + (cell_width - w) // 2, top + (cell_height - h) // 2
        cell = (left, top, left + cell_width, top + cell_height)
        panels.append(Panel(view, cell, (x, y, x + w, y + h), scale))
        left += cell_width + GAP
    return tuple(panels), width, top + cell_height


def outline_alpha(mask: NDArray[Any], width: int, height: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The outline and the inside of a mask's cut, stretched to (height, width) pixels, each 0 to 1.

    The line lies where the linearly interpolated mask is one half; its distance in pixels is the difference from one
    half over the gradient, which gives a smooth line of even width without drawing at a larger size first.
    """
    padded = np.pad(mask.astype(np.float32), 1, mode="edge")
    rows, columns = mask.shape
    # The box picks the unpadded part, so the pad only serves as context at the rim.
    field = np.asarray(
        Pillow.fromarray(padded).resize((width, height), Pillow.Resampling.BICUBIC, (1, 1, columns + 1, rows + 1)),
        dtype=np.float32,
    )
    inside = np.clip(field, 0, 1)
    if min(field.shape) < 2:
        return np.zeros_like(inside), inside
    steep = np.hypot(*np.gradient(field))
    distance = np.abs(field - 0.5) / np.maximum(steep, 1e-3)
    line = np.clip(OUTLINE_PIXELS / 2 + 0.5 - distance, 0, 1) * (steep > 0.01)
    return line.astype(np.float32), inside


def draw_panel(
    canvas: Pillow.Image,
    panel: Panel,
    volume: Volume,
    image: NDArray[Any],
    labels: NDArray[Any],
    colours: dict[int, Colour],
    window: tuple[float, float],
    at: tuple[int, int, int],
) -> None:
    """One cut with its outlines, name, place, letters and bar; `image` is (1 or 3, Z, Y, X), all in LPS order."""
    view = panel.view
    left, top, right, bottom = panel.picture
    width, height = right - left, bottom - top
    index = at[view.through]
    shades = [_shade(view.cut(one, index), (width, height), window) for one in image]
    picture = np.stack(shades * (3 // len(shades)), axis=2)
    cut = view.cut(labels, index)
    for value, colour in colours.items():
        line, inside = outline_alpha(cut == value, width, height)
        alpha = np.maximum(line, inside * FILL)[..., None]
        picture = picture * (1 - alpha) + np.asarray(colour) * alpha

    draw = ImageDraw.Draw(canvas)
    draw.rectangle((panel.cell[0], panel.cell[1], panel.cell[2] - 1, panel.cell[3] - 1), (0, 0, 0))
    canvas.paste(Pillow.fromarray(np.round(picture).astype(np.uint8)), (left, top))
    if volume.placed:
        _draw_head(draw, panel, volume, at)
        _draw_letters(draw, panel)
    _draw_bar(draw, panel, "pixels" if volume.lengths == "none" else "mm")


def drawn_channels(volume: Volume, channel: int) -> NDArray[Any]:
    """What is drawn of a volume, (1, Z, Y, X) of a channel, or (3, Z, Y, X) of a picture in colour.

    Raises
    ------
    UsageError : a channel that does not exist.
    """
    if not 0 <= channel < volume.array.shape[0]:
        raise UsageError(f"channel {channel} of a volume with {volume.array.shape[0]}, counted from 0")
    return volume.array if volume.colour else volume.array[channel : channel + 1]


def drawn_image(volume: Volume) -> NDArray[Any]:
    """The first channel of a volume (Z, Y, X), or the colours (3, Z, Y, X) of a picture."""
    return volume.array if volume.colour else volume.array[0]


def _shade(cut: NDArray[Any], size: tuple[int, int], window: tuple[float, float]) -> NDArray[Any]:
    """A cut stretched to (width, height) pixels, 0 to 255."""
    low, high = window
    plain = np.nan_to_num(cut.astype(np.float32), nan=low, posinf=high, neginf=low)
    stretched = Pillow.fromarray(np.ascontiguousarray(plain)).resize(size, Pillow.Resampling.BICUBIC)
    shade: NDArray[Any] = np.clip((np.asarray(stretched) - low) / max(high - low, 1e-12), 0, 1) * 255
    return shade


def _draw_head(draw: ImageDraw.ImageDraw, panel: Panel, volume: Volume, at: tuple[int, int, int]) -> None:
    """The view's name and, as a place in the patient, where it cuts."""
    view = panel.view
    world = float((volume.affine @ np.array([*at, 1.0]))[view.through])
    side = ("R" if world < 0 else "L", "A" if world < 0 else "P", "I" if world < 0 else "S")[view.through]
    x, y = panel.cell[0], panel.cell[1] - 10
    draw.text((x, y), view.name, TEXT, font(19), anchor="ls")
    place = f"{side} {abs(world):.1f} mm" if abs(world) >= 0.05 else "0.0 mm"
    draw.text((panel.cell[2], y), place, QUIET, font(16), anchor="rs")


def _draw_letters(draw: ImageDraw.ImageDraw, panel: Panel) -> None:
    left, top, right, bottom = panel.cell
    middle_x, middle_y = (left + right) // 2, (top + bottom) // 2
    places = (
        (left + 10, middle_y, "lm"), (right - 10, middle_y, "rm"), (middle_x, top + 8, "ma"),
        (middle_x, bottom - 10, "ms"),
    )  # fmt: skip
    for letter, (x, y, anchor) in zip(panel.view.letters, places, strict=True):
        draw.text((x, y), letter, LETTER, font(22), anchor=anchor, stroke_width=2, stroke_fill=(0, 0, 0))


def bar_length_mm(width_px: int, pixels_per_mm: float) -> float:
    """10 mm, or a tenth, a hundredth ... of it where 10 mm would take more than half the width."""
    return min(10.0, 10.0 ** math.floor(math.log10(width_px / 2 / pixels_per_mm)))


def _draw_bar(draw: ImageDraw.ImageDraw, panel: Panel, unit: str) -> None:
    left, _, right, bottom = panel.cell
    length = bar_length_mm(right - left, panel.pixels_per_mm)
    x, y = left + 14, bottom - 16
    end = x + round(length * panel.pixels_per_mm)
    for colour, grow in (((0, 0, 0), 1), (TEXT, 0)):
        draw.rectangle((x - grow, y - 1 - grow, end + grow, y + 1 + grow), colour)
    draw.text((x, y - 7), f"{length:g} {unit}", TEXT, font(14), anchor="ls", stroke_width=2, stroke_fill=(0, 0, 0))


def _needs_legend(mask: Volume, values: list[int]) -> bool:
    return len(values) > 1 or any(value in mask.labels for value in values)


def _legend_rows(legend: list[tuple[Colour, str]], width: int) -> list[list[tuple[int, Colour, str]]]:
    """Break the legend into rows of (x, colour, name)."""
    entries = legend[:LEGEND_ENTRIES]
    if len(legend) > LEGEND_ENTRIES:
        entries.append((BACKGROUND, f"and {len(legend) - LEGEND_ENTRIES} more"))
    rows: list[list[tuple[int, Colour, str]]] = []
    x = width
    for colour, name in entries:
        needed = 24 + math.ceil(font(17).getlength(name)) + 26
        if not rows or x + needed > width:
            rows.append([])
            x = 0
        rows[-1].append((MARGIN + x, colour, name))
        x += needed
    return rows


def _draw_legend_row(draw: ImageDraw.ImageDraw, row: list[tuple[int, Colour, str]], y: int) -> None:
    for x, colour, name in row:
        draw.rounded_rectangle((x, y + 4, x + 14, y + 18), 3, colour)
        draw.text((x + 24, y), name, TEXT, font(17))


def directions_note(volume: Volume) -> str:
    """What a reader must know of the sides that are shown, of a volume in LPS order."""
    if not volume.placed:
        return UNPLACED
    angle = obliquity_degrees(volume.affine)
    oblique = f"  ·  oblique grid: letters are the nearest sides, off by up to {angle:.0f}°" if angle > 1 else ""
    return CONVENTION + oblique


def whole_numbers(mask: NDArray[Any]) -> NDArray[Any]:
    """The mask (Z, Y, X) as whole numbers; viewers and older tools often store masks as floats."""
    if mask.shape[0] != 1:
        raise UsageError(f"a mask has one channel; this one has {mask.shape[0]}")
    labels: NDArray[Any] = mask[0]
    if labels.dtype.kind == "f":
        whole = np.rint(labels)
        if not np.array_equal(whole, labels):
            raise UsageError("the mask holds fractions; give labels (whole numbers), not probabilities")
        labels = whole.astype(np.int64)
    return labels


def window_of(image: NDArray[Any]) -> tuple[float, float]:
    """The values of ([C,] Z, Y, X) that are drawn black and white; of colours of 8 bits all.

    The percentiles of an evenly taken sample: the sort of a whole CT would take longer than the picture.
    """
    if image.ndim == 4 and len(image) == 3 and image.dtype == np.uint8:
        return 0.0, 255.0
    step = max(1, math.ceil((image.size / PERCENTILE_SAMPLES) ** (1 / 3)))
    sample = image[..., ::step, ::step, ::step].astype(np.float64)
    sample = sample[np.isfinite(sample)]
    if not sample.size:
        return 0.0, 1.0
    low, high = np.percentile(sample, PERCENTILES)
    if high <= low:
        low, high = float(sample.min()), float(sample.max())
    return float(low), float(high) if high > low else float(low) + 1.0


def font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise UsageError("Pillow was built without FreeType, which writes the picture's text; install its wheel")
    return font
