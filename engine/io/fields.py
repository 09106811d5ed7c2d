"""Displacement fields on disk: NIfTI of five dimensions, intent 1007, vectors (x, y, z) in mm of LPS.

ITK, ANTs and Slicer write and read them like this. A field lies on the fixed image's grid and pulls back: the warped
image shows at p what the moving one has at p + u(p).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from voxelrt.errors import InputError, UsageError
from voxelrt.io import nifti_header
from voxelrt.io.atomic import atomic_path
from voxelrt.io.gzip_streams import DAMAGED, packed_writer
from voxelrt.io.nifti import (
    read_header_bytes,
    read_voxels,
    scaled,
    write_stream,
)
from voxelrt.volume import Volume

INTENT_VECTOR, INTENT_DISPLACEMENT = 1007, 1006


@dataclass(frozen=True, eq=False)
class Field:
    """A displacement field in space.

    Parameters
    ----------
    vectors_mm : (3, Z, Y, X) float32, components (x, y, z) of LPS in mm.
    affine : (4, 4), voxel (x, y, z, 1) of its grid to LPS mm.

    Raises
    ------
    UsageError : another shape.
    GeometryError : the affine is none.
    """

    vectors_mm: NDArray[np.float32]
    affine: NDArray[np.float64]

    def __post_init__(self) -> None:
        if self.vectors_mm.ndim != 4 or self.vectors_mm.shape[0] != 3:
            raise UsageError(f"a field is (3, Z, Y, X); this one has the shape {self.vectors_mm.shape}")
        placed = Volume(np.asarray(self.vectors_mm, np.float32), self.affine)
        object.__setattr__(self, "vectors_mm", placed.array)
        object.__setattr__(self, "affine", placed.affine)


def read_field(path: str | os.PathLike[str]) -> Field:
    """Read a displacement field.

    Raises
    ------
    InputError : not a NIfTI file of vectors, damaged, vectors that are not finite.
    GeometryError : no usable orientation.
    """
    file = Path(path)
    name = repr(file.name)
    try:
        raw = read_header_bytes(file)
        if not raw:
            raise InputError(f"{name} is not a NIfTI file: a displacement field is one of five dimensions")
        header = nifti_header.parse(raw)
        dim = [int(d) for d in header["dim"]]
        intent = int(header["intent_code"])
        if dim[0] != 5 or dim[4:6] != [1, 3] or intent not in (INTENT_VECTOR, INTENT_DISPLACEMENT):
            raise InputError(
                f"{name} is no displacement field: dimensions {tuple(dim[1 : dim[0] + 1])} with intent {intent}, "
                "where (X, Y, Z, 1, 3) with 1007 is wanted"
            )
        header["dim"] = [4, *dim[1:4], 3, 1, 1, 1]  # the components lie where channels would
        facts = nifti_header.check(header, name)
        array = scaled(read_voxels(file, facts, 0, 3, name), facts)
    except DAMAGED as error:
        raise InputError(f"{name} is truncated or damaged: its gzip stream cannot be read to the end") from error
    except OSError as error:
        raise InputError(f"cannot read {name}: {error.strerror or type(error).__name__}") from error
    if not np.isfinite(array).all():
        raise InputError(f"{name} holds vectors that are not finite: {int((~np.isfinite(array)).sum())} numbers")
    vectors = array.astype(np.float32)
    if intent == INTENT_DISPLACEMENT:  # ITK writes these, and only these, in NIfTI's own RAS
        vectors[:2] *= -1
    return Field(vectors, facts.affine)


def write_field(field: Field, path: str | os.PathLike[str]) -> None:
    """Write a displacement field, gzipped if the name ends in .gz. Whole or not at all.

    Raises
    ------
    UsageError : another suffix than .nii or .nii.gz.
    OutputError : the file cannot be written.
    """
    target = Path(path)
    if not target.name.endswith((".nii", ".nii.gz")):
        raise UsageError(f"{target.name!r}: the name of a NIfTI file ends in .nii or .nii.gz")
    dtype = np.dtype("<f4")
    header = nifti_header.for_result(Volume(field.vectors_mm, field.affine), dtype, None)
    sizes = field.vectors_mm.shape[:0:-1]
    header["dim"] = [5, *sizes, 1, 3, 1, 1]
    header["intent_code"] = INTENT_VECTOR
    with atomic_path(target) as temporary, open(temporary, "wb") as plain:
        if target.suffix == ".gz":
            with packed_writer(plain) as packed:
                write_stream(packed, header, field.vectors_mm, dtype)
        else:
            write_stream(plain, header, field.vectors_mm, dtype)
