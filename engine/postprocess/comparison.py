"""One picture of an image before and after a filter, and of what was taken away: three views each."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageDraw

from voxelrt.errors import GeometryError, UsageError
from voxelrt.io.atomic import atomic_path
from voxelrt.io.orientation import reorient
from voxelrt.postprocess.overlay import BACKGROUND, CONVENTION, MARGIN, NOT_A_DEVICE, QUIET, TEXT, font, window_of
from voxelrt.postprocess.views import VIEWS, View
from voxelrt.volume import Volume

GAP, HEAD, LINE = 12, 40, 28
WIDTH = 1400
# The difference is drawn grey at zero, black and white at this many of its own standard deviations.
DIFFERENCE_DEVIATIONS = 3.0
COLUMNS = ("before", "after", "before less after")  # the font has no minus sign


def comparison_picture(
    before: Volume, after: Volume, path: str | os.PathLike[str], *, title: str = "", caption: str = "", channel: int = 0
) -> None:
    """Write a PNG of rows (axial, coronal, sagittal, through the grid's middle) and columns before, after, difference.

    Both images are drawn with the same window. Keep patient identifiers out of title and caption.

    Raises
    ------
    GeometryError : the two are not on one grid.
    UsageError : a channel that does not exist.
    OutputError : the file cannot be written.
    """
    picture = draw_comparison(before, after, title=title, caption=caption, channel=channel)
    with atomic_path(path) as temporary:
        picture.save(temporary, format="PNG")


def draw_comparison(
    before: Volume, after: Volume, *, title: str = "", caption: str = "", channel: int = 0
) -> Pillow.Image:
    """See :func:`comparison_picture`."""
    if before.shape_zyx != after.shape_zyx or np.abs(before.affine - after.affine).max() > 1e-3:
        raise GeometryError("the two images are not on one grid")
    if not 0 <= channel < min(before.array.shape[0], after.array.shape[0]):
        raise UsageError(f"channel {channel} of images with {before.array.shape[0]} and {after.array.shape[0]}")
    turned, turned_after = (reorient(volume, "LPS")[0] for volume in (before, after))
    first, second = (volume.array[channel].astype(np.float32) for volume in (turned, turned_after))
    difference = first - second
    spread = DIFFERENCE_DEVIATIONS * float(difference.std()) or 1.0
    windows = (window_of(first), window_of(first), (-spread, spread))
    sizes, spacing = turned.shape_zyx[::-1], turned.spacing_mm[::-1]
    extents = [(sizes[v.across] * spacing[v.across], sizes[v.down] * spacing[v.down]) for v in VIEWS]
    scale = (WIDTH - 2 * MARGIN - 2 * GAP) / 3 / max(w for w, _ in extents)
    cells = [(max(1, round(w * scale)), max(1, round(h * scale))) for w, h in extents]
    column = max(w for w, _ in cells)
    top = HEAD + (LINE + 10 if title else 0) + 20
    height = top + sum(h + GAP for _, h in cells) + LINE * (2 if caption else 1) + 16
    canvas = Pillow.new("RGB", (WIDTH, height), BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    if title:
        draw.text((MARGIN, 18), title, TEXT, font(26))
    for number, name in enumerate(COLUMNS):
        draw.text((MARGIN + number * (column + GAP), top - 12), name, TEXT, font(19), anchor="ls")
    y = top
    for view, (width, height) in zip(VIEWS, cells, strict=True):
        for number, (image, window) in enumerate(zip((first, second, difference), windows, strict=True)):
            x = MARGIN + number * (column + GAP) + (column - width) // 2
            canvas.paste(_shade(view, image, window, (width, height)), (x, y))
        y += height + GAP
    if caption:
        draw.text((MARGIN, y + 4), caption, TEXT, font(19))
        y += LINE
    draw.text((MARGIN, y + 4), CONVENTION, QUIET, font(15))
    draw.text((WIDTH - MARGIN, y + 4), NOT_A_DEVICE, QUIET, font(15), anchor="ra")
    return canvas


def _shade(view: View, image: NDArray[Any], window: tuple[float, float], size: tuple[int, int]) -> Pillow.Image:
    low, high = window
    cut = view.cut(image, (image.shape[2 - view.through] - 1) // 2)
    grey = np.clip((np.ascontiguousarray(cut) - low) / max(high - low, 1e-12), 0, 1) * 255
    stretched = Pillow.fromarray(grey.astype(np.float32)).resize(size, Pillow.Resampling.BICUBIC)
    return Pillow.fromarray(np.clip(np.asarray(stretched), 0, 255).round().astype(np.uint8)).convert("RGB")
