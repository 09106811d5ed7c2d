"""MetaImage (.mha, or .mhd with its data beside it) in and out, as ITK, Slicer and elastix read it.

Written from the format's description (itk.org/Wiki/MetaIO/Documentation): lines of "Key = value", then the voxels, x
fastest. There is no light library for it. TransformMatrix lists the direction of the first axis first, so its rows are
the columns of a direction matrix; Offset is the centre of the first voxel; both are LPS, which ITK takes for granted
whatever AnatomicalOrientation says. Sheared grids are written as they are: directions need not be at right angles.
"""

from __future__ import annotations

import os
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxelrt.errors import GeometryError, InputError, UsageError
from voxelrt.io.atomic import atomic_path
from voxelrt.io.image import GridSource, Image
from voxelrt.io.payload import DEFLATE_LEVEL, beside, read_header_text, read_payload, sentences, written
from voxelrt.volume import Volume

START = re.compile(rb"\s*(ObjectType|NDims|ObjectSubType|Comment|TransformType|Name|ID)\s*=")
TYPES = {
    "MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4", "MET_UINT": "u4",
    "MET_LONG_LONG": "i8", "MET_ULONG_LONG": "u8", "MET_FLOAT": "f4", "MET_DOUBLE": "f8",
}  # fmt: skip
NAMES = {code: name for name, code in TYPES.items()}
SUFFIXES = (".mha", ".mhd")
MAX_CHANNELS = 4096


def is_metaimage(start: bytes) -> bool:
    """Whether a file that begins so is a MetaImage."""
    return START.match(start) is not None and b"\0" not in start[:64]


def read_metaimage(path: str | os.PathLike[str]) -> Image:
    """Read a MetaImage of two or three dimensions, any number of channels.

    Returns
    -------
    image : volume (C, Z, Y, X) in the file's order and type, affine to LPS mm. A plane has one slice, 1 mm thick.

    Raises
    ------
    InputError : damaged, truncated, text data, a list of files, data in another folder. GeometryError : no usable grid.
    """
    file = Path(path)
    name = repr(file.name)
    try:
        start = read_header_text(file)
        fields, offset = _fields(start, name)
        count = _integers(fields, "NDims", 1, name)[0]
        if count not in (2, 3):
            raise InputError(f"{name} has {count} dimensions; MetaImages of 2 and 3 are read")
        size = _integers(fields, "DimSize", count, name)
        channels = _integers(fields, "ElementNumberOfChannels", 1, name, "1")[0]
        if min(size) < 1 or max(size) > 2**31 or not 1 <= channels <= MAX_CHANNELS:
            raise InputError(f"{name} is damaged: DimSize {size}, {channels} channels")
        shape = (*([1] * (3 - count)), *size[::-1], channels)
        data, offset = _data(file, fields, offset, name)
        array = read_payload(data, offset, shape, _dtype(fields, name), name, deflated=_flag(fields, "CompressedData"))
    except OSError as error:
        raise InputError(f"cannot read {name}: {error.strerror or type(error).__name__}") from error
    array = np.ascontiguousarray(np.moveaxis(array, -1, 0))
    volume = Volume(array, _affine(fields, count, name))
    return Image(volume, sentences(array), GridSource(file, volume.affine, volume.shape_zyx))


def write_metaimage(volume: Volume, path: str | os.PathLike[str]) -> None:
    """Write a MetaImage in one file, deflated; whole or not at all.

    Raises
    ------
    UsageError : a name that does not end in .mha, or voxels that are no numbers. OutputError : it cannot be written.
    """
    target = Path(path)
    if not target.name.endswith(".mha"):
        raise UsageError(f"{target.name!r}: the name of a MetaImage ends in .mha")
    array = written(volume.array)
    pack = zlib.compressobj(DEFLATE_LEVEL)
    pieces = [pack.compress(plane.data) for plane in np.moveaxis(array, 0, -1).reshape(volume.shape_zyx[0], -1)]
    pieces.append(pack.flush())
    columns = volume.affine[:3, :3]
    spacing = np.linalg.norm(columns, axis=0)
    lines = {
        "ObjectType": "Image",
        "NDims": "3",
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": "False",
        "CompressedData": "True",
        "CompressedDataSize": str(sum(len(piece) for piece in pieces)),
        "TransformMatrix": _text((columns / spacing).T.reshape(-1)),
        "Offset": _text(volume.affine[:3, 3]),
        "CenterOfRotation": "0 0 0",
        "ElementSpacing": _text(spacing),
        "DimSize": " ".join(str(n) for n in volume.shape_zyx[::-1]),
        **({"ElementNumberOfChannels": str(len(array))} if len(array) > 1 else {}),
        "ElementType": NAMES[array.dtype.str[1:]],
        "ElementDataFile": "LOCAL",
    }
    with atomic_path(target) as temporary, open(temporary, "wb") as stream:
        stream.write("".join(f"{key} = {value}\n" for key, value in lines.items()).encode("ascii"))
        for piece in pieces:
            stream.write(piece)


def _text(numbers: NDArray[np.float64]) -> str:
    return " ".join(repr(float(value)) for value in numbers)


def _fields(start: bytes, name: str) -> tuple[dict[str, str], int]:
    """The header's lines, and where it ends: behind ElementDataFile."""
    found: dict[str, str] = {}
    position = 0
    while position < len(start):
        end = start.find(b"\n", position)
        if end < 0:
            break
        key, equals, value = start[position:end].decode("ascii", "replace").partition("=")
        position = end + 1
        if not equals:
            raise InputError(f"{name} is damaged: a line of its header is no 'Key = value'")
        found[key.strip()] = value.strip()
        if key.strip() == "ElementDataFile":
            return found, position
    raise InputError(f"{name} is damaged or no MetaImage: its header has no ElementDataFile")


def _data(file: Path, fields: dict[str, str], offset: int, name: str) -> tuple[Path, int]:
    """The file with the voxels, and where they begin."""
    if fields.get("BinaryData", "True").lower() != "true":
        raise InputError(f"{name} holds its voxels as text, which is not read")
    if fields["ElementDataFile"] in ("LOCAL", "Local", "local"):
        return file, offset
    if fields["ElementDataFile"].split()[:1] == ["LIST"] or "%" in fields["ElementDataFile"]:
        raise InputError(f"{name} spreads its voxels over several files, which is not read; write it as one .mha")
    skip = _integers(fields, "HeaderSize", 1, name, "0")[0]
    if skip < 0:
        raise InputError(f"{name}: a HeaderSize of {skip} is not read; write it as one .mha")
    return beside(file, fields["ElementDataFile"], name), skip


def _dtype(fields: dict[str, str], name: str) -> np.dtype[Any]:
    kind = TYPES.get(fields.get("ElementType", ""))
    if kind is None:
        raise InputError(f"{name}: voxels of ElementType {fields.get('ElementType', '')[:20]!r} are not read")
    big = _flag(fields, "BinaryDataByteOrderMSB") or _flag(fields, "ElementByteOrderMSB")
    return np.dtype((">" if big else "<") + kind)


def _flag(fields: dict[str, str], key: str) -> bool:
    return fields.get(key, "").lower() in ("true", "1", "yes")


def _affine(fields: dict[str, str], count: int, name: str) -> NDArray[np.float64]:
    def first(*keys: str) -> str:
        return next((fields[key] for key in keys if key in fields), "")

    made = np.eye(4)
    spacing = _floats(first("ElementSpacing", "ElementSize"), count, name, np.ones(count))
    matrix = _floats(first("TransformMatrix", "Rotation", "Orientation"), count**2, name, np.eye(count).reshape(-1))
    made[:count, :count] = matrix.reshape(count, count).T * spacing
    made[:count, 3] = _floats(first("Offset", "Position", "Origin"), count, name, np.zeros(count))
    if not np.isfinite(made).all() or abs(np.linalg.det(made[:3, :3])) < 1e-12:
        raise GeometryError(f"{name}: TransformMatrix, ElementSpacing and Offset give no usable grid")
    return made


def _floats(text: str, count: int, name: str, default: NDArray[np.float64]) -> NDArray[np.float64]:
    if not text:
        return default
    try:
        values = np.array([float(part) for part in text.split()])
    except ValueError:
        values = np.empty(0)
    if values.size != count:
        raise InputError(f"{name} is damaged: {count} numbers were expected in a line of its header")
    return values


def _integers(fields: dict[str, str], key: str, count: int, name: str, default: str = "") -> list[int]:
    parts = fields.get(key, default).split()
    if len(parts) != count or not all(part.lstrip("-").isdigit() and len(part) < 12 for part in parts):
        raise InputError(f"{name} is damaged: {key} is not made of {count} whole numbers")
    return [int(part) for part in parts]
