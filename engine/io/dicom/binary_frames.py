"""The frames of a binary segmentation: packed on threads, and described by bytes that are encoded once for each plane.

A segmentation of 118 classes on 600 slices has some ten thousand frames. To build a dataset for each, and to compare
each slice with each class, is what takes the time elsewhere. Here highdicom describes each plane once; the frames of a
plane differ in two numbers, which are written into its bytes, and only classes that are on a plane are looked for.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import DataElement, Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_data_element
from pydicom.tag import Tag

from voxelrt import environment
from voxelrt.errors import UsageError

Planes = NDArray[Any]

GROUPS, PIXELS = Tag("PerFrameFunctionalGroupsSequence"), Tag("PixelData")
CONTENT, SEGMENT = Tag("FrameContentSequence"), Tag("SegmentIdentificationSequence")
ITEM = struct.Struct("<HHI")
MARK = 0x5A17C3E9  # stands for a dimension's index until it is known


def take_frames(made: Dataset, planes: Sequence[Planes], segments: int) -> list[bytes]:
    """Take a segmentation's frames, one on each plane, out of it, and make one for each segment where it is.

    Parameters
    ----------
    made
        Of highdicom, explicit VR little endian. Loses its functional groups for each frame, and its pixels.
    planes
        Of each of its frames the segment numbers (Y, X), 0 for none.
    segments
        How many there are; they are numbered from 1.

    Returns
    -------
    tail : the two elements that `made` has lost, encoded; they are its last, so a file of it ends with them.

    Raises
    ------
    UsageError : more than the 4 GiB that an element can have.
    """
    there = np.stack([np.bincount(plane.reshape(-1), minlength=segments + 1)[1:] > 0 for plane in planes], axis=1)
    items = list(made.PerFrameFunctionalGroupsSequence)
    # Planes are numbered, from 1, as they lie; those without a frame are not counted.
    ranks = np.cumsum(there.any(axis=0))
    described = [_Plane(item) for item in items]
    groups = bytearray()
    for segment, on in enumerate(there, start=1):
        for z in np.flatnonzero(on):
            groups += described[z].frame(segment, int(ranks[z]))
    made.Rows, made.Columns = planes[0].shape
    made.NumberOfFrames = int(there.sum())
    del made[GROUPS], made[PIXELS]
    pixels = _packed(planes, there)
    if max(len(groups), len(pixels)) >= 2**32 - 1:
        raise UsageError("a binary segmentation of so many voxels is larger than DICOM allows; use --seg labelmap")
    return [_header(GROUPS, b"SQ", len(groups)), bytes(groups), _header(PIXELS, b"OB", len(pixels)), pixels]


def _header(tag: int, vr: bytes, length: int) -> bytes:
    return struct.pack("<HH2sHI", tag >> 16, tag & 0xFFFF, vr, 0, length)


class _Plane:
    """The functional groups of one plane as bytes, in the order of their tags."""

    def __init__(self, item: Dataset) -> None:
        content = item.FrameContentSequence[0]
        count = 1 if isinstance(content.DimensionIndexValues, int) else len(content.DimensionIndexValues)
        content.DimensionIndexValues = [MARK] * count
        self._count = count
        encoded = [(element.tag, _encoded(element)) for element in item]
        # Derivation and position lie around the content; the segment's number is the last of all.
        self._before = b"".join(raw for tag, raw in encoded if tag < CONTENT)
        self._content = next(raw for tag, raw in encoded if tag == CONTENT)
        self._mark = self._content.index(struct.pack(f"<{count}I", *[MARK] * count))
        self._between = b"".join(raw for tag, raw in encoded if CONTENT < tag < SEGMENT)
        self._segment = next((raw for tag, raw in encoded if tag == SEGMENT), b"")

    def frame(self, segment: int, rank: int) -> bytes:
        """The item of a segment's frame on this plane."""
        dimensions = struct.pack("<II", segment, rank) if self._count == 2 else struct.pack("<I", rank)
        content = self._content[: self._mark] + dimensions + self._content[self._mark + len(dimensions) :]
        number = self._segment[:-2] + struct.pack("<H", segment) if self._segment else b""
        body = self._before + content + self._between + number
        return ITEM.pack(0xFFFE, 0xE000, len(body)) + body


def _encoded(element: DataElement) -> bytes:
    stream = DicomBytesIO()
    stream.is_little_endian, stream.is_implicit_VR = True, False
    write_data_element(stream, element, ["utf-8"])
    made: bytes = stream.getvalue()
    return made


def _packed(planes: Sequence[Planes], there: NDArray[np.bool_]) -> bytes:
    """All frames bit by bit, the first in the lowest bit, without gaps between them (PS3.5 8.1.1, D.1)."""
    size = planes[0].size
    numbers = np.cumsum(there.reshape(-1)).reshape(there.shape) - 1
    count = int(there.sum())
    length = (count * size + 7) // 8
    packed = np.zeros(length + length % 2, np.uint8)
    if size % 8:
        # Frames begin within bytes: eight of them end on one.
        where = np.argwhere(there)
        for begin in range(0, count, 8):
            bits = np.stack([planes[z] == segment + 1 for segment, z in where[begin : begin + 8]])
            some = np.packbits(bits, bitorder="little")
            packed[begin * size // 8 :][: len(some)] = some
        return packed.tobytes()
    rows = packed[: count * size // 8].reshape(count, size // 8)

    def pack(z: int) -> None:
        for segment in np.flatnonzero(there[:, z]):
            rows[numbers[segment, z]] = np.packbits(planes[z] == segment + 1, bitorder="little")

    with ThreadPoolExecutor(environment.threads(), thread_name_prefix="voxelrt-seg") as pool:
        list(pool.map(pack, range(len(planes))))
    return packed.tobytes()
