"""Pictures of maps on a study: columns (the image, a map in colour over it, two images fused), a row for each view.

The picture holds what the caller passes as title and caption and nothing of the study: no names, no dates, no UIDs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageDraw

from voxelrt.io.orientation import reorient
from voxelrt.postprocess.overlay import (
    BACKGROUND,
    LETTER,
    MARGIN,
    NOT_A_DEVICE,
    QUIET,
    TEXT,
    directions_note,
    font,
    window_of,
)
from voxelrt.postprocess.views import View, views_of
from voxelrt.volume import Volume

Array = NDArray[Any]
GAP, HEAD, LINE = 12, 40, 28
WIDTH, TALLEST = 1400, 400
# Dark to bright with rising lightness, so that it also reads in grey.
RAMP = np.array([(0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164)], np.float64)
STRONGEST = 0.85  # of the colour over the image


@dataclass(frozen=True, eq=False)
class Column:
    """One column of a sheet.

    Parameters
    ----------
    name : above it.
    image : (Z, Y, X) on the study's grid, drawn grey, or (3, Z, Y, X) in colour.
    window : the values drawn black and white.
    tint : (Z, Y, X) drawn in colour over it, the stronger the larger; from 0 to ``tint_top``.
    other : (Z, Y, X): fused with the image, orange where the image is brighter, blue where this is; equal is grey.
    """

    name: str
    image: Array
    window: tuple[float, float]
    tint: Array | None = None
    tint_top: float = 1.0
    other: Array | None = None
    other_window: tuple[float, float] = (0.0, 1.0)


def grey_column(name: str, image: Array) -> Column:
    """An image in grey."""
    return Column(name, image, window_of(image))


def tinted_column(name: str, image: Array, tint: Array, *, top: float | None = None) -> Column:
    """A map in colour over an image; what is below 0 is not drawn, `top` (by default its largest) is brightest."""
    largest = float(np.nanmax(tint, initial=0.0)) if top is None else top
    return Column(name, image, window_of(image), tint=tint, tint_top=largest if largest > 0 else 1.0)


def fused_column(name: str, image: Array, other: Array) -> Column:
    """Two images in one: orange where the first is brighter, blue where the second is."""
    return Column(name, image, window_of(image), other=other, other_window=window_of(other))


def draw_sheet(
    study: Volume, columns: Sequence[Column], *, at_zyx: tuple[int, int, int], title: str = "", caption: str = ""
) -> Pillow.Image:
    """Draw the columns through one voxel of the study.

    Parameters
    ----------
    study : gives the grid.
    columns : all on it.
    at_zyx : the voxel that the views cut.
    """
    mark = np.zeros(study.shape_zyx, bool)
    mark[at_zyx] = True
    turned, turn = reorient(study, "LPS")
    at = tuple(int(i) for i in np.argwhere(turn.apply_array(mark))[0])
    size, spacing = turned.shape_zyx[::-1], turned.spacing_mm[::-1]
    views = views_of(size)
    extents = [(size[v.across] * spacing[v.across], size[v.down] * spacing[v.down]) for v in views]
    room = (WIDTH - 2 * MARGIN - GAP * (len(columns) - 1)) / len(columns)
    scale = min(room / max(w for w, _ in extents), TALLEST / max(h for _, h in extents))
    cells = [(max(1, round(w * scale)), max(1, round(h * scale))) for w, h in extents]
    top = HEAD + (LINE + 10 if title else 0) + 20
    height = top + sum(h + GAP for _, h in cells) + LINE * (2 if caption else 1) + 16
    canvas = Pillow.new("RGB", (WIDTH, height), BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    if title:
        draw.text((MARGIN, 18), title, TEXT, font(26))
    for number, column in enumerate(columns):
        left = round(MARGIN + number * (room + GAP))
        scale_text = f"  0 to {column.tint_top:.3g}" if column.tint is not None else ""
        draw.text((left, top - 12), column.name + scale_text, TEXT, font(19), anchor="ls")
        turned_column = _turned(column, turn.apply_array)
        y = top
        for view, (w, h) in zip(views, cells, strict=True):
            x = left + round((room - w) / 2)
            canvas.paste(_cell(view, turned_column, at[2 - view.through], (w, h)), (x, y))
            if turned.placed:
                _letters(draw, view, (x, y, x + w, y + h))
            y += h + GAP
    y = top + sum(h + GAP for _, h in cells)
    if caption:
        draw.text((MARGIN, y + 4), caption, TEXT, font(19))
        y += LINE
    draw.text((MARGIN, y + 4), directions_note(turned), QUIET, font(15))
    draw.text((WIDTH - MARGIN, y + 4), NOT_A_DEVICE, QUIET, font(15), anchor="ra")
    return canvas


def ramp(values: Array) -> Array:
    """Colours (..., 3), 0 to 1, of values from 0 to 1."""
    at = np.clip(values, 0, 1) * (len(RAMP) - 1)
    return np.stack([np.interp(at, np.arange(len(RAMP)), RAMP[:, k] / 255) for k in range(3)], axis=-1)


def _turned(column: Column, apply: Any) -> Column:
    parts = {name: getattr(column, name) for name in ("image", "tint", "other")}
    return replace(column, **{name: apply(np.asarray(part)) for name, part in parts.items() if part is not None})


def _cell(view: View, column: Column, index: int, size: tuple[int, int]) -> Pillow.Image:
    if column.other is None and column.image.ndim == 4:
        colours = np.stack([_scaled(view.cut(one, index), column.window, size) for one in column.image], axis=-1)
    elif column.other is not None:
        grey = _scaled(view.cut(column.image, index), column.window, size)
        second = _scaled(view.cut(column.other, index), column.other_window, size)
        colours = np.stack([grey, (grey + second) / 2, second], axis=-1)
    else:
        colours = np.repeat(_scaled(view.cut(column.image, index), column.window, size)[..., None], 3, axis=2)
    if column.tint is not None:
        tint = _scaled(view.cut(column.tint, index), (0.0, column.tint_top), size)
        strength = (np.sqrt(tint) * STRONGEST)[..., None]
        colours = colours * (1 - strength) + ramp(tint) * strength
    return Pillow.fromarray(np.round(np.clip(colours, 0, 1) * 255).astype(np.uint8))


def _scaled(cut: Array, window: tuple[float, float], size: tuple[int, int]) -> Array:
    low, high = window
    plain = np.nan_to_num(np.ascontiguousarray(cut, dtype=np.float32), nan=low, posinf=high, neginf=low)
    stretched = np.asarray(Pillow.fromarray(plain).resize(size, Pillow.Resampling.BICUBIC))
    scaled: Array = np.clip((stretched - low) / max(high - low, 1e-12), 0, 1)
    return scaled


def _letters(draw: ImageDraw.ImageDraw, view: View, box: tuple[int, int, int, int]) -> None:
    left, top, right, bottom = box
    places = (
        (left + 8, (top + bottom) // 2, "lm"),
        (right - 8, (top + bottom) // 2, "rm"),
        ((left + right) // 2, top + 6, "ma"),
        ((left + right) // 2, bottom - 8, "ms"),
    )
    for letter, (x, y, anchor) in zip(view.letters, places, strict=True):
        draw.text((x, y), letter, LETTER, font(18), anchor=anchor, stroke_width=2, stroke_fill=(0, 0, 0))
