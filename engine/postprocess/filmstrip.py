"""Pictures of a sequence: some of its frames, and the probability of each class over all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageDraw

from voxelrt.postprocess.overlay import BACKGROUND, MARGIN, NOT_A_DEVICE, PALETTE, QUIET, TEXT, font, window_of

Array = NDArray[Any]
WIDTH, GAP, LINE, PLOT = 1400, 10, 28, 260
SHOWN = 6  # frames
CURVES = 10


def draw_filmstrip(
    frames: Sequence[Array], curves: Mapping[str, Sequence[float]], *, title: str = "", caption: str = ""
) -> Pillow.Image:
    """Frames (Y, X) in a row, evenly taken, over a plot of the curves (class -> 0 to 1 for each frame).

    Keep patient identifiers out of title and caption.
    """
    chosen = sorted({round(at) for at in np.linspace(0, len(frames) - 1, min(SHOWN, len(frames)))})
    low, high = window_of(np.stack([frames[at] for at in chosen]))
    side = (WIDTH - 2 * MARGIN - GAP * (SHOWN - 1)) // SHOWN
    rows, columns = frames[0].shape
    scale = min(side / columns, 2 * side / rows)
    cell = (max(1, round(columns * scale)), max(1, round(rows * scale)))
    top = 30 + (LINE + 14 if title else 0)
    plot_top = top + cell[1] + 54
    height = plot_top + PLOT + LINE * (3 if caption else 2) + 26
    canvas = Pillow.new("RGB", (WIDTH, height), BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    if title:
        draw.text((MARGIN, 18), title, TEXT, font(26))
    for number, at in enumerate(chosen):
        grey = np.clip((np.nan_to_num(frames[at].astype(np.float32)) - low) / max(high - low, 1e-12), 0, 1) * 255
        x = MARGIN + number * (side + GAP)
        canvas.paste(Pillow.fromarray(grey.astype(np.uint8)).resize(cell, Pillow.Resampling.BICUBIC), (x, top))
        draw.text((x, top + cell[1] + 20), f"frame {at + 1}", QUIET, font(15), anchor="ls")
    _plot(draw, curves, plot_top, len(frames))
    y = plot_top + PLOT + 34
    if caption:
        draw.text((MARGIN, y), caption, TEXT, font(19))
        y += LINE
    draw.text((WIDTH - MARGIN, y + 4), NOT_A_DEVICE, QUIET, font(15), anchor="ra")
    return canvas


def _plot(draw: ImageDraw.ImageDraw, curves: Mapping[str, Sequence[float]], top: int, frames: int) -> None:
    left, right, bottom = MARGIN + 44, WIDTH - MARGIN - 220, top + PLOT
    for value in (0.0, 0.5, 1.0):
        y = round(bottom - value * PLOT)
        draw.line((left, y, right, y), (60, 66, 76))
        draw.text((left - 8, y), f"{value:g}", QUIET, font(15), anchor="rm")
    draw.text((left, bottom + 8), "frame 1", QUIET, font(15))
    draw.text((right, bottom + 8), f"{frames}", QUIET, font(15), anchor="ra")
    for number, (name, values) in enumerate(list(curves.items())[:CURVES]):
        colour = PALETTE[number % len(PALETTE)]
        points = [
            (left + (right - left) * at / max(1, frames - 1), bottom - min(1.0, max(0.0, value)) * PLOT)
            for at, value in enumerate(values)
        ]
        if len(points) > 1:
            draw.line(points, colour, 3, joint="curve")
        for at_x, at_y in points if len(points) <= 40 else ():
            draw.ellipse((at_x - 4, at_y - 4, at_x + 4, at_y + 4), colour)
        draw.rounded_rectangle((right + 24, top + number * 24, right + 38, top + 14 + number * 24), 3, colour)
        draw.text((right + 46, top - 3 + number * 24), name, TEXT, font(17))
    if len(curves) > CURVES:
        draw.text((right + 24, top + CURVES * 24), f"and {len(curves) - CURVES} more", QUIET, font(15))
