"""NIfTI in and out: RAS+ becomes LPS+ at this door, and a result goes back on the source's grid bit for bit.

Sizes are checked against the file before memory is taken, also for .gz: what the header claims must be within what
deflate can pack into the bytes that are there, and a decompressed stream is read no further than the claim.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray

from voxelrt.errors import InputError, UsageError
from voxelrt.io import nifti_header
from voxelrt.io.atomic import atomic_path
from voxelrt.io.gzip_streams import DAMAGED, packed_reader, packed_writer
from voxelrt.io.image import MAX_VOLUME_BYTES, Image, NiftiSource
from voxelrt.io.nifti_header import HeaderFacts
from voxelrt.volume import Volume

# Deflate packs at most 1032 bytes into one (258 bytes in 2 bits); a header that claims more is lying.
DEFLATE_RATIO = 1032

CHUNK_BYTES = 4 * 2**20


def read_nifti(path: str | os.PathLike[str], *, volume_index: int | Literal["all"] | None = None) -> Image:
    """Read a NIfTI-1 or NIfTI-2 file, gzipped or not, single or the .hdr of a pair.

    Parameters
    ----------
    path
        The file; what it is is told by its content, not by its name.
    volume_index
        Which volume of a 4-D file; "all" makes them channels. A file with one volume needs none.

    Returns
    -------
    image : volume (C, Z, Y, X) in the file's own order (x is the file's fastest axis), affine to LPS mm. Stored
        integers stay integers unless the header scales them; scaled values are float32 (float64 where the stored
        type is wider than 16 bits).

    Raises
    ------
    InputError : not a NIfTI file, damaged, truncated, a type that is not read, several volumes and no index.
    GeometryError : no usable orientation.
    UsageError : `volume_index` is not in the file.
    """
    file = Path(path)
    name = repr(file.name)
    try:
        raw = read_header_bytes(file)
        if not raw:
            raise InputError(f"{name} is not a NIfTI file (or it is ANALYZE, which does not say where left is)")
        header = nifti_header.parse(raw)
        facts = nifti_header.check(header, name)
        chosen, count = _choose(facts, volume_index, name)
        array = read_voxels(_voxel_file(file, facts), facts, chosen, count, name)
    except DAMAGED as error:
        raise InputError(f"{name} is truncated or damaged: its gzip stream cannot be read to the end") from error
    except OSError as error:
        raise InputError(f"cannot read {name}: {error.strerror or type(error).__name__}") from error
    warnings = list(facts.warnings)
    array = scaled(array, facts)
    bad = _count_not_finite(array)
    if bad:
        warnings.append(f"{bad} of {array.size} voxels are NaN or infinite")
    volume = Volume(array, facts.affine)
    source = NiftiSource(file, nifti_header.without_text(header), volume.affine, volume.shape_zyx)
    return Image(volume, tuple(warnings), source)


def write_nifti(volume: Volume, path: str | os.PathLike[str], *, source: NiftiSource | None = None) -> None:
    """Write a NIfTI file; gzipped if the name ends in .gz. Whole or not at all.

    Parameters
    ----------
    volume
        (C, Z, Y, X); several channels become the fourth dimension. bool becomes uint8, float16 float32, 64-bit
        integers the smallest type that holds the values (many viewers read no others).
    path
        Ends in .nii or .nii.gz.
    source
        The file that `volume` lies on. Its sform and qform are copied raw, so that the two files line up voxel
        for voxel in any viewer. Without it the volume's affine is written (as float32: NIfTI-1 has no more).

    Raises
    ------
    UsageError : another suffix, or a voxel type that NIfTI does not have.
    GeometryError : the volume is not on the source's grid.
    OutputError : the file cannot be written; whatever was there before is untouched.
    """
    target = Path(path)
    if not target.name.endswith((".nii", ".nii.gz")):
        raise UsageError(f"{target.name!r}: the name of a NIfTI file ends in .nii or .nii.gz")
    dtype = _written_dtype(volume.array)
    header = nifti_header.for_result(volume, dtype, source)
    with atomic_path(target) as temporary, open(temporary, "wb") as plain:
        if target.suffix == ".gz":
            with packed_writer(plain) as packed:
                write_stream(packed, header, volume.array, dtype)
        else:
            write_stream(plain, header, volume.array, dtype)


def read_header_bytes(file: Path) -> bytes:
    """The header's bytes, unpacked if the file is gzipped; empty if the file is not NIfTI.

    Raises OSError or one of ``DAMAGED`` where the file cannot be read.
    """
    with _open(file) as stream:
        start = stream.read(nifti_header.NIFTI1_BYTES)
        size = nifti_header.header_size(start)
        raw = start + stream.read(size - len(start)) if size else b""
    return raw if len(raw) == size else b""


def is_nifti(file: Path) -> bool:
    """Whether the content begins like NIfTI; of a gzip stream that cannot be read, whether the name says so."""
    try:
        return bool(read_header_bytes(file))
    except DAMAGED:
        return file.name.endswith(".nii.gz")
    except OSError:
        return False


def is_gzip(file: Path) -> bool:
    """Whether the content is gzip, whatever the name says."""
    with open(file, "rb") as stream:
        return stream.read(2) == b"\x1f\x8b"


def _open(file: Path) -> IO[bytes]:
    return packed_reader(file) if is_gzip(file) else open(file, "rb")


def _choose(facts: HeaderFacts, index: int | Literal["all"] | None, name: str) -> tuple[int, int]:
    """The first volume to read and how many."""
    if index == "all":
        return 0, facts.volumes
    if index is None:
        if facts.volumes > 1:
            raise InputError(
                f"{name} holds {facts.volumes} volumes; choose one with volume_index=0 to {facts.volumes - 1}, or "
                'volume_index="all" if they are the channels of one image'
            )
        return 0, 1
    if not 0 <= index < facts.volumes:
        raise UsageError(f"{name} holds {facts.volumes} volumes, counted from 0; volume_index is {index}")
    return index, 1


def _voxel_file(file: Path, facts: HeaderFacts) -> Path:
    """The file itself, or the .img that belongs to a .hdr."""
    if facts.single_file:
        return file
    stem = file.name.removesuffix(".gz")
    if not stem.endswith(".hdr"):
        raise InputError(f"{file.name!r} is the header of a .hdr/.img pair; its name must end in .hdr")
    for candidate in (stem[:-4] + ".img", stem[:-4] + ".img.gz"):
        if (file.parent / candidate).is_file():
            return file.parent / candidate
    raise InputError(f"{file.name!r} is the header of a pair, and there is no .img beside it")


def read_voxels(file: Path, facts: HeaderFacts, first: int, count: int, name: str) -> NDArray[Any]:
    """Read `count` volumes into (count, Z, Y, X), native byte order, after checking that they can be there."""
    one = int(np.prod(facts.shape_xyz, dtype=object)) * facts.dtype.itemsize
    begin = facts.offset + first * one
    needed = facts.offset + facts.volumes * one
    on_disk = file.stat().st_size
    packed = is_gzip(file)
    if needed > on_disk * (DEFLATE_RATIO if packed else 1):
        raise InputError(
            f"{name} is truncated or damaged: its header needs {needed} bytes and the file has {on_disk}"
            + (", gzipped" if packed else "")
        )
    if count * one > MAX_VOLUME_BYTES:
        raise InputError(f"{name}: {count * one} bytes of voxels are more than the {MAX_VOLUME_BYTES} that are read")
    # Empty memory is only claimed from the system as the bytes arrive, so a false claim costs nothing.
    array = np.empty((count, *facts.shape_xyz[::-1]), dtype=facts.dtype)
    view = array.reshape(-1).view(np.uint8).data
    with _open(file) as stream:
        if packed:
            _skip(stream, begin, name)
        else:
            stream.seek(begin)
        done = 0
        while done < len(view):
            got = stream.readinto(view[done : done + CHUNK_BYTES])  # type: ignore[attr-defined]
            if not got:
                raise InputError(f"{name} is truncated: {begin + done} bytes of {needed}")
            done += got
        # Reading past the end is what makes gzip compare its checksum.
        stream.read(1)
    return array if array.dtype.isnative else array.byteswap(inplace=True).view(array.dtype.newbyteorder("="))


def _skip(stream: IO[bytes], count: int, name: str) -> None:
    """Go forward in a gzip stream, which can only be done by unpacking, in small pieces."""
    while count:
        got = len(stream.read(min(count, CHUNK_BYTES)))
        if not got:
            raise InputError(f"{name} is truncated: it ends before its first voxel")
        count -= got


def scaled(array: NDArray[Any], facts: HeaderFacts) -> NDArray[Any]:
    """The values that stored numbers stand for."""
    if facts.slope is None or facts.inter is None:
        return array
    values = array.astype(np.result_type(array.dtype, np.float32))
    values *= values.dtype.type(facts.slope)
    values += values.dtype.type(facts.inter)
    return values


def _count_not_finite(array: NDArray[Any]) -> int:
    if array.dtype.kind != "f":
        return 0
    return sum(int(plane.size - np.isfinite(plane).sum()) for channel in array for plane in channel)


def _written_dtype(array: NDArray[Any]) -> np.dtype[Any]:
    """The type to write, little-endian; no value changes."""
    dtype = array.dtype
    if dtype == np.bool_:
        dtype = np.dtype(np.uint8)
    elif dtype == np.float16:
        dtype = np.dtype(np.float32)
    elif dtype in (np.int64, np.uint64) and array.size:
        low, high = int(array.min()), int(array.max())
        for smaller in (np.uint8, np.int16, np.int32):
            if np.iinfo(smaller).min <= low and high <= np.iinfo(smaller).max:
                dtype = np.dtype(smaller)
                break
    nifti_header.refuse_unwritable(dtype)
    return dtype.newbyteorder("<")


def write_stream(stream: IO[bytes], header: Any, array: NDArray[Any], dtype: np.dtype[Any]) -> None:
    """Header and voxels (C, Z, Y, X), a plane at a time."""
    stream.write(header.binaryblock)
    # Four bytes that say: no extensions. A source's extensions are not copied: they may hold a DICOM header.
    stream.write(b"\0\0\0\0")
    for channel in array:
        for plane in channel:
            stream.write(np.ascontiguousarray(plane, dtype=dtype).data.cast("B") if plane.size else b"")
