"""Colour pictures of DICOM as red, green and blue: YBR is converted by pydicom, palettes are looked up."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.pixels import apply_color_lut

from voxelrt import environment
from voxelrt.errors import InputError
from voxelrt.io.dicom.frames import Frame
from voxelrt.io.dicom.header import DAMAGE, Header
from voxelrt.io.dicom.pixels import Job, Shelf, decode_picture, jobs_of, refuse_what_is_not_read
from voxelrt.io.dicom.quiet import quiet_pydicom
from voxelrt.io.image import MAX_VOLUME_BYTES

Array = NDArray[Any]
PALETTE = "PALETTE COLOR"


def is_colour(header: Header) -> bool:
    """Whether a file's pixels are colours."""
    photometric = header.text("PhotometricInterpretation").upper()
    return header.integer("SamplesPerPixel", 1) == 3 or photometric == PALETTE


def read_colours(frames: Sequence[Frame]) -> Array:
    """The frames of pictures of one size.

    Returns
    -------
    colours : (3, frames, rows, columns), red, green and blue; uint8, or uint16 where more bits are stored.

    Raises
    ------
    InputError : damaged, truncated, more than is read.
    MissingExtraError : compressed pixels without a decoder.
    """
    rows, columns = frames[0].size
    for header in {id(frame.header): frame.header for frame in frames}.values():
        refuse_what_is_not_read(header, colour=True)
    wide = any(frame.header.integer("BitsAllocated") > 8 and not _is_palette(frame.header) for frame in frames)
    dtype = np.dtype(np.uint16 if wide else np.uint8)
    if 3 * len(frames) * rows * columns * dtype.itemsize > MAX_VOLUME_BYTES:
        raise InputError(f"{len(frames)} colour pictures of {rows} × {columns} are more than is read into memory")
    made: Array = np.empty((3, len(frames), rows, columns), dtype)
    jobs = jobs_of(frames)
    shelf = Shelf(jobs)
    palettes = {
        id(job.header): job.header.source_elements() for job in jobs if _is_palette(job.header)
    }  # fmt: skip

    def fill(job: Job) -> None:
        picture = decode_picture(job.header, job.index, shelf)
        if id(job.header) in palettes:
            picture = _looked_up(picture, palettes[id(job.header)], job.header)
        if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype.itemsize > dtype.itemsize:
            raise InputError(f"{job.header.number} is damaged: its pixels are {picture.shape}, not three colours each")
        for plane, _ in job.planes:
            made[:, plane] = np.moveaxis(picture, 2, 0)

    with ThreadPoolExecutor(max(1, min(len(jobs), environment.threads())), "voxelrt-dicom") as pool:
        list(pool.map(fill, jobs))
    return made


def _is_palette(header: Header) -> bool:
    return header.text("PhotometricInterpretation").upper() == PALETTE


def _looked_up(picture: Array, elements: Any, header: Header) -> Array:
    """The colours of a palette, 8 bits each."""
    try:
        with quiet_pydicom():
            colours = np.asarray(apply_color_lut(picture, elements))
    except DAMAGE:
        raise InputError(f"{header.number} is damaged: its palette cannot be read") from None
    return (colours >> 8).astype(np.uint8) if colours.dtype.itemsize > 1 else colours
