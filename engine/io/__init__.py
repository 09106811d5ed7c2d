"""Readers and writers of images: a path in, a Volume out, and back.

The names are loaded when they are first used: writing a file needs no reader of DICOM.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from voxelrt.lazy import found_at

if TYPE_CHECKING:
    from voxelrt.io.dicom import DicomStudy as DicomStudy
    from voxelrt.io.dicom import open_dicom as open_dicom
    from voxelrt.io.dicom import read_dicom_series as read_dicom_series
    from voxelrt.io.image import DicomSource as DicomSource
    from voxelrt.io.image import GridSource as GridSource
    from voxelrt.io.image import Image as Image
    from voxelrt.io.image import NiftiSource as NiftiSource
    from voxelrt.io.image import PictureSource as PictureSource
    from voxelrt.io.image import Source as Source
    from voxelrt.io.nifti import read_nifti as read_nifti
    from voxelrt.io.nifti import write_nifti as write_nifti
    from voxelrt.io.picture import read_picture as read_picture
    from voxelrt.io.read_write import kind_of as kind_of
    from voxelrt.io.read_write import read_image as read_image
    from voxelrt.io.read_write import write_image as write_image

_HOMES = {
    "DicomSource": "voxelrt.io.image",
    "DicomStudy": "voxelrt.io.dicom",
    "GridSource": "voxelrt.io.image",
    "Image": "voxelrt.io.image",
    "NiftiSource": "voxelrt.io.image",
    "PictureSource": "voxelrt.io.image",
    "Source": "voxelrt.io.image",
    "kind_of": "voxelrt.io.read_write",
    "open_dicom": "voxelrt.io.dicom",
    "read_dicom_series": "voxelrt.io.dicom",
    "read_image": "voxelrt.io.read_write",
    "read_nifti": "voxelrt.io.nifti",
    "read_picture": "voxelrt.io.picture",
    "write_image": "voxelrt.io.read_write",
    "write_nifti": "voxelrt.io.nifti",
}

__all__ = [
    "DicomSource",
    "DicomStudy",
    "GridSource",
    "Image",
    "NiftiSource",
    "PictureSource",
    "Source",
    "kind_of",
    "open_dicom",
    "read_dicom_series",
    "read_image",
    "read_nifti",
    "read_picture",
    "write_image",
    "write_nifti",
]


if not TYPE_CHECKING:  # else every name would pass for one of this package

    def __getattr__(name: str) -> Any:
        return found_at(__name__, _HOMES, name)
