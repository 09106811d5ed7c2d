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
from pydicom.uid import JPEG2000, HTJ2KLossless, HTJ2KLosslessRPCL, JPEG2000Lossless, JPEGLSLossless, JPEGLSNearLossless

from voxelrt.io.dicom.header import Header

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
    name = DECODERS.get(header.syntax)
    return _decoder(name) if name else None


@functools.cache
def _decoder(name: str) -> Callable[[bytes], NDArray[Any]] | None:
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
