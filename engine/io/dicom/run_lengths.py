"""Frames of labels in RLE Lossless (PS3.5 annex G): runs of one value, the kind that every reader decodes."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxelrt import environment

HEADER_BYTES, MOST_PLANES = 64, 15
LONGEST = 128  # of a run


def encode_frames(frames: Sequence[NDArray[Any]]) -> list[bytes]:
    """The code of each frame, on threads.

    Parameters
    ----------
    frames
        (rows, columns) of uint8 or uint16.
    """
    with ThreadPoolExecutor(environment.threads(), thread_name_prefix="voxelrt-dicom") as pool:
        return list(pool.map(encode_frame, frames))


def encode_frame(frame: NDArray[Any]) -> bytes:
    """The code of one frame: a plane for each byte of a value, the highest first."""
    width = frame.dtype.itemsize
    octets = np.ascontiguousarray(frame, frame.dtype.newbyteorder("<")).view(np.uint8)
    planes = [_plane(octets.reshape(*frame.shape, width)[..., byte]) for byte in reversed(range(width))]
    starts, place = [], HEADER_BYTES
    for plane in planes:
        starts.append(place)
        place += len(plane)
    header = np.array([width, *starts, *[0] * (MOST_PLANES - width)], "<u4").tobytes()
    return b"".join([header, *planes])


def _plane(octets: NDArray[np.uint8]) -> bytes:
    """Pairs of a length and a value; a run ends with its row, as the standard asks, and after 128."""
    begins = np.ones(octets.shape, bool)
    begins[:, 1:] = octets[:, 1:] != octets[:, :-1]
    at = np.flatnonzero(begins)
    lengths = np.diff(at, append=octets.size)
    parts = -(-lengths // LONGEST)
    values = np.repeat(octets.reshape(-1)[at], parts)
    pieces = np.full(len(values), LONGEST)
    pieces[np.cumsum(parts) - 1] = lengths - (parts - 1) * LONGEST
    # 257 - n stands for n times the next byte; 0 for the next byte alone.
    pairs = np.stack([np.where(pieces > 1, 257 - pieces, 0).astype(np.uint8), values], axis=1)
    return pairs.tobytes()
