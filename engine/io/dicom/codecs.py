"""Grey codes that imagecodecs decodes: it lets go of the interpreter's lock, so that frames are decoded side by side.

The plugins of pydicom do not, and remain the way for colours, for JPEG of the DCT kind, and where imagecodecs is not
installed.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.uid import (
    JPEG2000,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from voxelrt.io.dicom.header import Header

END_OF_CODE = b"\xff\xd9"
DECODERS = {
    JPEG2000: "jpeg2k_decode",
    JPEG2000Lossless: "jpeg2k_decode",
    HTJ2KLossless: "jpeg2k_decode",
    HTJ2KLosslessRPCL: "jpeg2k_decode",
    JPEGLSLossless: "jpegls_decode",
    JPEGLSNearLossless: "jpegls_decode",
}


def side_by_side(header: Header) -> Callable[[bytes], NDArray[Any]] | None:
    """The decoder of a file's frames, None where there is none. What it raises on damaged codes is any exception."""
    if header.integer("SamplesPerPixel", 1) != 1 or header.integer("BitsAllocated") not in (8, 16):
        return None
    if header.syntax == RLELossless:
        unpack = _decoder("packbits_decode")
        return None if unpack is None else functools.partial(_of_planes, header=header, unpack=unpack)
    name = DECODERS.get(header.syntax)
    return _decoder(name) if name else None


def is_whole(header: Header, code: bytes) -> bool:
    """Whether a code ends as it should. imagecodecs fills in what is missing of a cut one; pydicom's plugins refuse."""
    return header.syntax == RLELossless or code.rstrip(b"\0").endswith(END_OF_CODE)


def _of_planes(code: bytes, *, header: Header, unpack: Callable[[bytes], bytes]) -> NDArray[Any]:
    """A frame of RLE (PS3.5 annex G): a plane for each byte of a value, the highest first, each packed on its own.

    Raises
    ------
    ValueError : places or lengths that do not fit.
    """
    width = header.integer("BitsAllocated") // 8
    places = np.frombuffer(code, "<u4", 16)
    starts = [int(place) for place in places[1 : 1 + width]]
    ends = [*starts[1:], len(code)]
    if int(places[0]) != width or starts[0] < 64 or any(a >= b for a, b in zip(starts, ends, strict=True)):
        raise ValueError("the planes of the frame are not where it says")
    size = (header.integer("Rows"), header.integer("Columns"))
    made = np.empty((*size, width), np.uint8)
    for byte, (start, end) in enumerate(zip(starts, ends, strict=True)):
        plane = np.frombuffer(unpack(code[start:end]), np.uint8)
        # A plane may be padded to an even length; one byte too many is no damage.
        if not 0 <= len(plane) - size[0] * size[1] <= 1:
            raise ValueError("a plane of the frame has another size")
        made[..., width - 1 - byte] = plane[: size[0] * size[1]].reshape(size)
    return made.reshape(-1).view(f"<u{width}").reshape(size)


@functools.cache
def _decoder(name: str) -> Callable[[bytes], Any] | None:
    try:
        import imagecodecs
    except ImportError:
        return None
    found = getattr(imagecodecs, name)
    if not getattr(imagecodecs, name.split("_")[0].upper()).available:
        return None
    if name == "jpeg2k_decode":
        return functools.partial(found, numthreads=1)
    return found  # type: ignore[no-any-return]


def as_stored(values: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Decoded values in the dtype that the header states: the code's own sign and width may be others."""
    if values.dtype.itemsize == dtype.itemsize:
        return values.view(dtype)
    return values.astype(dtype)
