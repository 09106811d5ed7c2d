"""NRRD (.nrrd, or .nhdr with its data beside it) in and out, its header by pynrrd (teem.sourceforge.net/nrrd).

pynrrd parses and writes headers; the voxels are read here, so that sizes are checked before memory is taken and a
header cannot name files elsewhere.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxelrt.errors import GeometryError, InputError, MissingExtraError, UsageError
from voxelrt.io.atomic import atomic_path
from voxelrt.io.image import GridSource, Image
from voxelrt.io.payload import DEFLATE_LEVEL, beside, read_header_text, read_payload, sentences, written
from voxelrt.volume import Volume

MAGIC = b"NRRD000"
TYPES = {
    "i1": ("signed char", "int8", "int8_t"),
    "u1": ("uchar", "unsigned char", "uint8", "uint8_t"),
    "i2": ("short", "short int", "signed short", "signed short int", "int16", "int16_t"),
    "u2": ("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
    "i4": ("int", "signed int", "int32", "int32_t"),
    "u4": ("uint", "unsigned int", "uint32", "uint32_t"),
    "i8": ("longlong", "long long", "long long int", "signed long long", "signed long long int", "int64", "int64_t"),
    "u8": ("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"),
    "f4": ("float",),
    "f8": ("double",),
}
# Of each named space the signs that bring it to LPS.
SPACES = {
    "left-posterior-superior": (1, 1, 1), "lps": (1, 1, 1), "right-anterior-superior": (-1, -1, 1), "ras": (-1, -1, 1),
    "left-anterior-superior": (1, -1, 1), "las": (1, -1, 1),
}  # fmt: skip


def is_nrrd(start: bytes) -> bool:
    """Whether a file that begins so is NRRD."""
    return start.startswith(MAGIC)


def read_nrrd(path: str | os.PathLike[str]) -> Image:
    """Read an NRRD of three dimensions in space, and at most one of channels.

    Returns
    -------
    image : volume (C, Z, Y, X) in the file's order and type, affine to LPS mm.

    Raises
    ------
    InputError : damaged, truncated, an encoding other than raw and gzip, data in another folder.
    GeometryError : no space and directions. MissingExtraError : pynrrd is not installed.
    """
    file = Path(path)
    name = repr(file.name)
    library = _library()
    try:
        start = read_header_text(file)
        end = min((at + len(mark) for mark in (b"\n\n", b"\r\n\r\n") if (at := start.find(mark)) >= 0), default=0)
        if not end and file.stat().st_size > len(start):
            raise InputError(f"{name} is damaged: its header does not end")
        header = _header(library, start[: end or len(start)], name)
        sizes = [int(size) for size in header["sizes"]]
        dtype = _dtype(header, name)
        affine, channel_axis = _grid(header, sizes, name)
        data, offset, deflated = _data(file, header, end, name)
        array = read_payload(data, offset, tuple(sizes[::-1]), dtype, name, deflated=deflated)
    except OSError as error:
        raise InputError(f"cannot read {name}: {error.strerror or type(error).__name__}") from error
    # The file's first axis is the array's last.
    array = array[None] if channel_axis is None else np.moveaxis(array, len(sizes) - 1 - channel_axis, 0)
    volume = Volume(np.ascontiguousarray(array), affine)
    return Image(volume, sentences(volume.array), GridSource(file, volume.affine, volume.shape_zyx))


def write_nrrd(volume: Volume, path: str | os.PathLike[str]) -> None:
    """Write an NRRD in one file, gzipped; whole or not at all. Several channels are the file's first axis.

    Raises
    ------
    UsageError : a name that does not end in .nrrd, or voxels that are no numbers.
    OutputError : it cannot be written. MissingExtraError : pynrrd is not installed.
    """
    target = Path(path)
    if not target.name.endswith(".nrrd"):
        raise UsageError(f"{target.name!r}: the name of an NRRD file ends in .nrrd")
    library = _library()
    array = written(volume.array)
    several = len(array) > 1
    directions = [list(column) for column in volume.affine[:3, :3].T]
    header = {
        "space": "left-posterior-superior",
        "space directions": np.array([[np.nan] * 3, *directions] if several else directions),
        "space origin": volume.affine[:3, 3].copy(),
        "kinds": ["list", *["domain"] * 3] if several else ["domain"] * 3,
        "encoding": "gzip",
    }
    voxels = np.moveaxis(array, 0, -1) if several else array[0]
    with atomic_path(target) as temporary:
        library.write(
            str(temporary), np.ascontiguousarray(voxels), header, index_order="C", compression_level=DEFLATE_LEVEL
        )


def _library() -> Any:
    try:
        import nrrd
    except ImportError as error:
        raise MissingExtraError("pynrrd", "nrrd", "reading and writing NRRD") from error
    return nrrd


def _header(library: Any, text: bytes, name: str) -> dict[str, Any]:
    try:
        header = dict(library.read_header(io.BytesIO(text)))
    # pynrrd's own errors quote the line, which may be anything.
    except (library.NRRDError, ValueError, KeyError, IndexError, TypeError, AttributeError, UnicodeError) as error:
        raise InputError(f"{name} is damaged: its header cannot be read ({type(error).__name__})") from None
    sizes = header.get("sizes", ())
    if len(sizes) not in (3, 4) or header.get("dimension") != len(sizes):
        raise InputError(f"{name} has {len(sizes)} dimensions; NRRDs of 3 and 4 are read")
    if min(sizes) < 1 or max(sizes) > 2**31:
        raise InputError(f"{name} is damaged: sizes {[int(size) for size in sizes]}")
    return header


def _dtype(header: dict[str, Any], name: str) -> np.dtype[Any]:
    kind = next((code for code, names in TYPES.items() if header.get("type") in names), None)
    if kind is None:
        raise InputError(f"{name}: voxels of type {str(header.get('type'))[:20]!r} are not read")
    return np.dtype((">" if header.get("endian") == "big" else "<") + kind)


def _grid(header: dict[str, Any], sizes: list[int], name: str) -> tuple[NDArray[np.float64], int | None]:
    """The affine to LPS mm, and which of the file's axes is no axis of space."""
    signs = SPACES.get(str(header.get("space", "")).lower())
    directions, origin = header.get("space directions"), header.get("space origin")
    if signs is None or directions is None or origin is None:
        raise GeometryError(f"{name} does not say its space, directions and origin, so its voxels cannot be placed")
    rows = [np.full(3, np.nan) if row is None else np.asarray(row, np.float64) for row in directions]
    in_space = [axis for axis, row in enumerate(rows) if np.isfinite(row).all()]
    if len(in_space) != 3 or len(rows) != len(sizes) or len(origin) != 3:
        raise GeometryError(f"{name} has not three directions in space")
    affine = np.eye(4)
    for column, axis in enumerate(in_space):
        affine[:3, column] = rows[axis] * signs
    affine[:3, 3] = np.asarray(origin, np.float64) * signs
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-12:
        raise GeometryError(f"{name}: its directions and origin give no usable grid")
    rest = [axis for axis in range(len(sizes)) if axis not in in_space]
    return affine, rest[0] if rest else None


def _data(file: Path, header: dict[str, Any], end: int, name: str) -> tuple[Path, int, bool]:
    """The file with the voxels, where they begin, and whether they are packed."""
    encoding = str(header.get("encoding", "")).lower()
    if encoding not in ("raw", "gzip", "gz"):
        raise InputError(f"{name}: the encoding {encoding[:12]!r} is not read; raw and gzip are")
    if int(header.get("line skip", 0)) or int(header.get("byte skip", 0)):
        raise InputError(f"{name} has bytes to skip before its voxels, which is not read")
    named = header.get("data file", header.get("datafile"))
    if named is None:
        return file, end, encoding != "raw"
    if not isinstance(named, str) or named.split()[:1] == ["LIST"] or "%" in named:
        raise InputError(f"{name} spreads its voxels over several files, which is not read; write it as one .nrrd")
    return beside(file, named, name), 0, encoding != "raw"
