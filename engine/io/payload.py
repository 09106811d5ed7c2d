"""The voxels of a file with a text header: raw or deflated, checked against the file before memory is taken."""

from __future__ import annotations

import math
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from voxelrt.errors import InputError, UsageError
from voxelrt.io.image import MAX_VOLUME_BYTES

# Deflate packs at most 1032 bytes into one (258 bytes in 2 bits); a header that claims more is lying.
DEFLATE_RATIO = 1032
CHUNK_BYTES = 4 * 2**20
HEADER_BYTES = 2**20  # no text header is longer
EITHER_WRAPPER = 47  # zlib's number for: zlib or gzip, told by the first bytes
DEFLATE_LEVEL = 4  # twice as quick as the usual 6, and a few per cent larger


def read_payload(
    file: Path, offset: int, shape: tuple[int, ...], dtype: np.dtype[Any], name: str, *, deflated: bool
) -> NDArray[Any]:
    """Read an array of `shape` from `offset` bytes into the file, native byte order.

    Raises
    ------
    InputError : truncated, damaged, larger than what is read.
    OSError : the file cannot be read.
    """
    needed = math.prod(shape) * dtype.itemsize
    on_disk = file.stat().st_size - offset
    if needed > MAX_VOLUME_BYTES:
        raise InputError(f"{name}: {needed} bytes of voxels are more than the {MAX_VOLUME_BYTES} that are read")
    if needed > on_disk * (DEFLATE_RATIO if deflated else 1):
        raise InputError(f"{name} is truncated or damaged: its header needs {needed} bytes, and {on_disk} are there")
    array = np.empty(shape, dtype)
    view = array.reshape(-1).view(np.uint8).data
    unpack = zlib.decompressobj(EITHER_WRAPPER) if deflated else None
    done = 0
    with open(file, "rb") as stream:
        stream.seek(offset)
        while done < needed:
            chunk = stream.read(CHUNK_BYTES)
            if not chunk:
                raise InputError(f"{name} is truncated: {done} bytes of {needed}")
            while chunk and done < needed:
                got = chunk if unpack is None else _unpacked(unpack, chunk, needed - done, name)
                chunk = b"" if unpack is None else unpack.unconsumed_tail
                got = got[: needed - done]
                view[done : done + len(got)] = got
                done += len(got)
        if unpack is not None:
            _finish(unpack, stream, name)
    return array if array.dtype.isnative else array.byteswap(inplace=True).view(array.dtype.newbyteorder("="))


def _unpacked(unpack: Any, chunk: bytes, room: int, name: str) -> bytes:
    try:
        made: bytes = unpack.decompress(chunk, min(room, CHUNK_BYTES) or 1)
    except zlib.error:
        raise InputError(f"{name} is damaged: its voxels cannot be unpacked") from None
    if unpack.eof and len(made) < room:
        raise InputError(f"{name} is truncated: its packed voxels end early")
    return made


def _finish(unpack: Any, stream: IO[bytes], name: str) -> None:
    """Read what is behind the last voxel: the checksum, which is compared, and nothing more."""
    while not unpack.eof:
        chunk = unpack.unconsumed_tail or stream.read(CHUNK_BYTES)
        if not chunk:
            raise InputError(f"{name} is truncated: its packed voxels do not end")
        if _unpacked(unpack, chunk, 0, name):
            raise InputError(f"{name} is damaged: it holds more voxels than its header says")


def read_header_text(file: Path) -> bytes:
    """The first bytes of a file, as many as a header may have."""
    with open(file, "rb") as stream:
        return stream.read(HEADER_BYTES)


def beside(file: Path, named: str, name: str) -> Path:
    """The data file that a header names: only one in the same folder. Raises InputError for any other."""
    if not named or Path(named).name != named or named in (".", ".."):
        raise InputError(f"{name} names a data file in another place; only one in its own folder is read")
    found = file.parent / named
    if not found.is_file():
        raise InputError(f"{name}: the data file that it names is not beside it")
    return found


def written(array: NDArray[Any]) -> NDArray[Any]:
    """The array in a type that every reader knows, little-endian; no value changes. Raises UsageError for no number."""
    dtype = array.dtype
    if dtype.kind not in "biuf" or dtype.itemsize > 8:
        raise UsageError(f"voxels of type {dtype} cannot be written")
    if dtype == np.bool_:
        dtype = np.dtype(np.uint8)
    elif dtype == np.float16:
        dtype = np.dtype(np.float32)
    return np.ascontiguousarray(array, dtype.newbyteorder("<"))


def sentences(array: NDArray[Any]) -> tuple[str, ...]:
    """What to say of values that are no numbers."""
    if array.dtype.kind != "f":
        return ()
    bad = sum(int(plane.size - np.isfinite(plane).sum()) for channel in array for plane in channel)
    return (f"{bad} of {array.size} voxels are NaN or infinite",) if bad else ()
