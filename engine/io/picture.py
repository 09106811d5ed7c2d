"""Pictures in: PNG and JPEG by Pillow, TIFF by tifffile. They have no place in the patient.

Which format a file is in is told by its first bytes. Sizes are looked at before anything is decoded.
"""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from voxelrt.errors import InputError, UnsupportedError, UsageError
from voxelrt.io.image import Image, PictureSource
from voxelrt.io.tiff import is_tiff, read_tiff
from voxelrt.io.tiff_slide import open_tiff_slide
from voxelrt.volume import Lengths, Volume

Array = NDArray[Any]

PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
EXIF_ORIENTATION = 0x0112
NO_PLACE = "a picture has no place in the patient"
NO_LENGTHS = "the file tells no lengths: a pixel counts as 1 mm, and 1 mm deep"

# What Pillow raises on damaged files; its messages may quote them.
DAMAGE = (
    OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, EOFError, OverflowError, MemoryError,
    struct.error, zlib.error, AttributeError, ZeroDivisionError, Pillow.DecompressionBombError,
)  # fmt: skip


def is_picture(start: bytes) -> bool:
    """Whether a file that begins so is a PNG, JPEG or TIFF."""
    return start.startswith((PNG, JPEG)) or is_tiff(start)


def read_picture(path: str | os.PathLike[str], *, level: int | str | None = None) -> Image:
    """Read a picture, a stack of pictures in a TIFF, or a level of a slide.

    Parameters
    ----------
    path
        A PNG, JPEG or TIFF.
    level
        Of a slide with several levels: the number of the one to read, from 1, the finest.

    Returns
    -------
    image : (1, 1, Y, X) of grey or (3, 1, Y, X) of colours, red, green and blue, as stored (uint8, uint16 ...); of a
        TIFF with several pages (1, pages, Y, X). Transparency is left out. Affine in LPS mm with the file's lengths, or
        1 mm where it has none.

    Raises
    ------
    InputError : no such picture, damaged, larger than is read, a slide of several levels and none named.
    UsageError : a level of what has none.
    UnsupportedError : a PNG of 16 bits a colour.
    MissingExtraError : a TIFF whose compression needs a decoder.
    """
    place = Path(path)
    try:
        with open(place, "rb") as stream:
            start = stream.read(32)
    except OSError as error:
        raise InputError(f"cannot read {place.name!r}: {error.strerror or type(error).__name__}") from None
    slide = open_tiff_slide(place) if is_tiff(start) else None
    if slide is not None:
        if level is None and len(slide.levels) > 1:
            raise slide.several()
        one = slide.chosen(level)
        whole = slide.whole(one)
        source = PictureSource(place, slide.kind, whole.affine, whole.shape_zyx)
        return Image(whole, (NO_PLACE, f"level {one + 1}: {slide.levels[one].words}"), source)
    if level is not None:
        raise UsageError(
            f"{place.name!r} is a picture without levels; series=, volume=, repair= are for DICOM and slides"
        )
    if is_tiff(start):
        array, spacing, notes, colour = read_tiff(place)
        kind = "TIFF"
    else:
        array, notes = _decoded(place, start)
        kind, spacing, colour = "PNG" if start.startswith(PNG) else "JPEG", None, len(array) == 3
    if spacing is None:
        notes = [*notes, NO_LENGTHS]
    z, y, x = spacing or (1.0, 1.0, 1.0)
    lengths: Lengths = "none" if spacing is None else "plane" if z is None else "volume"
    affine = np.diag([x, y, 1.0 if z is None else z, 1.0])
    volume = Volume(array, affine, placed=False, lengths=lengths, colour=colour)
    source = PictureSource(place, kind, volume.affine, volume.shape_zyx)
    return Image(volume, (NO_PLACE, *notes), source)


def _decoded(place: Path, start: bytes) -> tuple[Array, list[str]]:
    """(C, 1, Y, X) of a PNG or JPEG, and what there is to say."""
    if start.startswith(PNG) and len(start) > 25 and start[24] == 16 and start[25] in (2, 6):
        raise UnsupportedError(
            f"{place.name!r} is a PNG of 16 bits a colour, which is not read; save it as TIFF, or with 8 bits a colour"
        )
    try:
        # Only these two decoders: others of Pillow start programs or follow links.
        with Pillow.open(place, formats=("PNG", "JPEG")) as opened:
            turned = opened.getexif().get(EXIF_ORIENTATION, 1) not in (0, 1)
            array, alpha = _colours(opened)
    except DAMAGE as error:
        if isinstance(error, Pillow.DecompressionBombError):
            raise InputError(f"{place.name!r} has more pixels than a picture that is read as a whole") from None
        raise InputError(f"{place.name!r} is damaged: the picture cannot be decoded") from None
    notes = ["transparency is left out"] if alpha else []
    if turned:
        notes.append("the camera's note how to turn the picture (EXIF orientation) is not followed")
    return array, notes


def _colours(opened: Any) -> tuple[Array, bool]:
    """(C, 1, Y, X), and whether something was transparent."""
    mode = opened.mode
    if mode == "P":
        opened = opened.convert("RGBA" if "transparency" in opened.info else "RGB")
    elif mode == "1":
        opened = opened.convert("L")
    elif mode in ("CMYK", "YCbCr", "LAB", "HSV", "RGBX"):
        opened = opened.convert("RGB")
    array = np.asarray(opened)
    if array.ndim == 2:
        grey = array.astype(np.uint16) if array.dtype == np.int32 and 0 <= array.min() <= array.max() < 2**16 else array
        return grey[None, None], False
    colours = array.shape[2] - 1 if array.shape[2] in (2, 4) else array.shape[2]
    transparent = colours < array.shape[2] and bool((array[..., colours] != 255).any())
    return np.ascontiguousarray(np.moveaxis(array[..., :colours], 2, 0))[:, None], transparent
