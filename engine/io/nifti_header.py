"""The NIfTI header: parse it, check it before anything is allocated by its word, and make one for a result.

NIfTI-1 and NIfTI-2, both byte orders, single file (.nii) and pair (.hdr/.img). The fields and their meaning are those
of nifti1.h and nifti2.h (https://nifti.nimh.nih.gov); nibabel lays out the fields, the checks are ours, because a
damaged file must end in a sentence for the user and not in a stack trace or in 100 GB of zeros.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import nibabel
import nibabel.spatialimages
import numpy as np
from numpy.typing import NDArray

from voxelrt.errors import GeometryError, InputError, UsageError
from voxelrt.io.image import NiftiSource
from voxelrt.io.orientation import LPS_FROM_RAS
from voxelrt.volume import Volume

NIFTI1_BYTES = 348
NIFTI2_BYTES = 540

# The voxel types we read. Colour (128, 2304), complex (32, 1792, 2048) and 128-bit floats (1536) are refused by name.
DTYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"}
UNREADABLE = {1: "binary", 32: "complex", 128: "RGB colour", 1536: "128-bit float", 1792: "complex", 2048: "complex",
              2304: "RGBA colour"}  # fmt: skip

# Forms that differ by more than this anywhere on the grid are worth a word to the user (mm).
FORMS_DIFFER_MM = 1e-3

MILLIMETRES = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}

INTENT_LABEL = 1002

# The fields that place voxels in space. Copied raw, so that a result lines up bit for bit with its source.
GEOMETRY_FIELDS = (
    "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z",
    "srow_x", "srow_y", "srow_z", "xyzt_units", "dim_info",
)  # fmt: skip

# Free text that scanners and converters fill with whatever they have, patients' names included.
TEXT_FIELDS = ("descrip", "aux_file", "intent_name", "db_name")


@dataclass(frozen=True, eq=False)
class HeaderFacts:
    """What a checked header says.

    Parameters
    ----------
    shape_xyz
        The size of the grid.
    volumes
        How many volumes the file holds (dim[4]).
    dtype
        Of the voxels in the file, with its byte order.
    slope, inter
        Stored value -> value, or None where the stored values are the values.
    offset
        Byte of the first voxel in the file that holds them.
    single_file
        False for the header of a .hdr/.img pair.
    affine
        (4, 4) voxel (x, y, z) -> LPS mm.
    warnings
        What was assumed.
    """

    shape_xyz: tuple[int, int, int]
    volumes: int
    dtype: np.dtype[Any]
    slope: float | None
    inter: float | None
    offset: int
    single_file: bool
    affine: NDArray[np.float64]
    warnings: tuple[str, ...]


def header_size(start: bytes) -> int:
    """How long the NIfTI header is that begins with `start`; 0 if it is none. Needs the first 348 bytes."""
    for order in ("<", ">"):
        size = int(np.frombuffer(start[:4], f"{order}i4")[0]) if len(start) >= 4 else 0
        if size == NIFTI1_BYTES and start[344:348] in (b"n+1\0", b"ni1\0"):
            return NIFTI1_BYTES
        if size == NIFTI2_BYTES and start[4:8] in (b"n+2\0", b"ni2\0"):
            return NIFTI2_BYTES
    return 0


def parse(raw: bytes) -> Any:
    """The fields of a header of :func:`header_size` bytes, as a nibabel header, nothing checked yet."""
    kind = nibabel.Nifti1Header if len(raw) == NIFTI1_BYTES else nibabel.Nifti2Header
    order = "<" if int(np.frombuffer(raw[:4], "<i4")[0]) == len(raw) else ">"
    return kind(raw, endianness=order, check=False)


def without_text(header: Any) -> bytes:
    """The bytes of a header with the free-text fields blanked."""
    clean = header.copy()
    for name in TEXT_FIELDS:
        if name in clean:  # NIfTI-2 has no db_name
            clean[name] = b""
    return bytes(clean.binaryblock)


def check(header: Any, name: str) -> HeaderFacts:
    """Read a header's facts, refusing what is damaged or not an image.

    Raises
    ------
    InputError : sizes, voxel type, scaling or offset that cannot be.
    GeometryError : no usable orientation.
    """
    warnings: list[str] = []
    shape, volumes = _shape(header, name)
    code = int(header["datatype"])
    if code not in DTYPES:
        kind = UNREADABLE.get(code, "unknown")
        raise InputError(f"{name}: voxel type {code} ({kind}) is not read; convert the file to integers or floats")
    dtype = np.dtype(header.endianness + DTYPES[code])
    offset = float(header["vox_offset"])
    single = bytes(header["magic"].tobytes())[:2] == b"n+"
    if not math.isfinite(offset) or offset < 0 or offset > 2**40 or offset != int(offset):
        raise InputError(f"{name}: the header puts the voxels at byte {offset:g}; the file is damaged")
    smallest = int(header["sizeof_hdr"]) + 4 if single else 0
    slope, inter = _scaling(header, name)
    affine = _affine(header, shape, name, warnings)
    return HeaderFacts(shape, volumes, dtype, slope, inter, max(int(offset), smallest), single, affine, tuple(warnings))


def _shape(header: Any, name: str) -> tuple[tuple[int, int, int], int]:
    dim = [int(d) for d in header["dim"]]
    if not 1 <= dim[0] <= 7:
        raise InputError(f"{name}: the header says {dim[0]} dimensions; 1 to 7 are possible; the file is damaged")
    sizes = dim[1 : dim[0] + 1] + [1] * (7 - dim[0])
    if min(sizes) < 1:
        raise InputError(f"{name}: the header says a size of {min(sizes)} voxels; the file is empty or damaged")
    if any(size > 1 for size in sizes[4:]):
        raise InputError(f"{name}: a NIfTI of size {tuple(dim[1 : dim[0] + 1])} holds vectors or more; give an image")
    return (sizes[0], sizes[1], sizes[2]), sizes[3]


def _scaling(header: Any, name: str) -> tuple[float | None, float | None]:
    """slope and inter, or (None, None): a slope of 0 or NaN means "not scaled" by the standard and by custom."""
    slope, inter = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or math.isnan(slope):
        return None, None
    inter = 0.0 if math.isnan(inter) else inter
    if not math.isfinite(slope) or not math.isfinite(inter):
        raise InputError(f"{name}: the header scales by {slope:g} and adds {inter:g}; the file is damaged")
    return (None, None) if (slope, inter) == (1.0, 0.0) else (slope, inter)


def _affine(header: Any, shape: tuple[int, int, int], name: str, warnings: list[str]) -> NDArray[np.float64]:
    """The voxel -> LPS mm map: sform if its code is > 0, else qform, else the zoom alone with a warning."""
    s_code, q_code = int(header["sform_code"]), int(header["qform_code"])
    ras: NDArray[np.float64]
    if s_code > 0:
        ras = np.asarray(header.get_sform(), dtype=np.float64)
        _refuse_flat(ras, f"{name}: the sform")
        if q_code > 0:
            _compare_forms(ras, header, shape, warnings)
    elif q_code > 0:
        ras = _qform(header, name)
        _refuse_flat(ras, f"{name}: the qform")
    else:
        # The standard's "method 1" leaves the sides open. nibabel, FSL and SPM all take x to run to the left.
        ras = np.asarray(header.get_base_affine(), dtype=np.float64)
        _refuse_flat(ras, f"{name}: the voxel size")
        warnings.append(
            "the file has neither sform nor qform, so it does not say which side is left; x is taken to run from "
            "right to left, as FSL and nibabel do"
        )
    unit = int(header["xyzt_units"]) & 7
    factor = MILLIMETRES.get(unit)
    if factor is None:
        raise InputError(f"{name}: unknown unit of length {unit} in the header; the file is damaged")
    if factor != 1.0:
        warnings.append(f"lengths in the file are in {'metres' if unit == 1 else 'micrometres'}; turned into mm")
        ras = np.diag([factor, factor, factor, 1.0]) @ ras
    return LPS_FROM_RAS @ ras


def _qform(header: Any, name: str) -> NDArray[np.float64]:
    """The qform, with pixdim[0] of 0 read as 1 (nifti1.h says so; nibabel alone refuses it)."""
    copy = header.copy()
    if float(copy["pixdim"][0]) not in (-1.0, 1.0):
        copy["pixdim"][0] = 1.0
    try:
        return np.asarray(copy.get_qform(), dtype=np.float64)
    except (ValueError, nibabel.spatialimages.HeaderDataError) as error:
        raise GeometryError(
            f"{name}: the qform's quaternion or voxel size is not valid; the file is damaged"
        ) from error


def _refuse_flat(affine: NDArray[np.float64], what: str) -> None:
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-12:
        raise GeometryError(f"{what} gives voxels without volume or is not finite; the file has no usable orientation")


def _compare_forms(sform: NDArray[np.float64], header: Any, shape: tuple[int, int, int], warnings: list[str]) -> None:
    """Warn if sform and qform put some corner of the grid at different places."""
    try:
        qform = _qform(header, "")
    except GeometryError:
        warnings.append("the qform is not valid; the sform is used")
        return
    corners = np.array([(*[(shape[a] - 1) * (n >> a & 1) for a in range(3)], 1) for n in range(8)], dtype=np.float64)
    apart = float(np.linalg.norm(corners @ (sform - qform).T, axis=1).max())
    if not apart <= FORMS_DIFFER_MM:
        warnings.append(f"sform and qform differ by up to {apart:.3g} mm; the sform is used")


def for_result(volume: Volume, dtype: np.dtype[Any], source: NiftiSource | None) -> Any:
    """A header for `volume`: on the source's own form fields if there is a source, else on the volume's affine.

    Raises
    ------
    GeometryError : the volume is not on the source's grid.
    UsageError : the grid is too large for a NIfTI file.
    """
    channels = volume.array.shape[0]
    sizes = (*volume.shape_zyx[::-1], *((channels,) if channels > 1 else ()))
    original = parse(source.header) if source else None
    kind = type(original) if original is not None else nibabel.Nifti1Header
    if max(sizes) > 32767:
        kind = nibabel.Nifti2Header
    header = kind(endianness="<")
    header.set_data_dtype(dtype)
    header["dim"] = [len(sizes), *sizes] + [1] * (7 - len(sizes))
    header["descrip"] = b"VoxelRT"
    header["vox_offset"] = int(header["sizeof_hdr"]) + 4
    header["scl_slope"], header["scl_inter"] = 1, 0
    if volume.labels:
        header["intent_code"] = INTENT_LABEL
    if source is not None and original is not None:
        _refuse_other_grid(volume, source)
        for field in GEOMETRY_FIELDS:
            header[field] = original[field]
        header["pixdim"][:4] = original["pixdim"][:4]
        return header
    ras = LPS_FROM_RAS @ volume.affine
    header["xyzt_units"] = 2
    header.set_sform(ras, code=1)
    header["pixdim"][1:4] = volume.spacing_mm[::-1]
    columns = ras[:3, :3] / np.linalg.norm(ras[:3, :3], axis=0)
    # A qform cannot hold shear: for a sheared grid its code stays 0, so that no reader takes it for the truth.
    if np.abs(columns.T @ columns - np.eye(3)).max() < 1e-5:
        header.set_qform(ras, code=1)
    return header


def _refuse_other_grid(volume: Volume, source: NiftiSource) -> None:
    apart = np.abs(volume.affine - source.affine).max()
    if volume.shape_zyx != source.shape_zyx or apart > FORMS_DIFFER_MM:
        raise GeometryError(
            f"a result of {volume.shape_zyx} voxels is not on the source's grid of {source.shape_zyx} (the affines "
            f"differ by {apart:.3g}); bring it back to the source's grid, or write it without the source"
        )


def refuse_unwritable(dtype: np.dtype[Any]) -> None:
    """Raise UsageError for a voxel type that NIfTI has no code for."""
    if dtype.newbyteorder("=").str[1:] not in DTYPES.values():
        raise UsageError(f"NIfTI has no voxel type for {dtype}; convert to integers, float32 or float64 first")
