"""DICOM in: a study is looked at (`open_dicom`), a series chosen, a volume of it read (`read_dicom_series`).

contents (files and zips) → header (elements) → frames (planes) → series, split (volumes) → geometry (one grid) →
pixels (decoding) → values (modality units) → read.
"""

from voxelrt.io.dicom.frames import Frame
from voxelrt.io.dicom.geometry import GeometryReport
from voxelrt.io.dicom.header import Header, looks_like_dicom
from voxelrt.io.dicom.read import read_dicom_series, read_series
from voxelrt.io.dicom.series import Series, SeriesVolume
from voxelrt.io.dicom.study import DicomStudy, open_dicom

__all__ = [
    "DicomStudy",
    "Frame",
    "GeometryReport",
    "Header",
    "Series",
    "SeriesVolume",
    "looks_like_dicom",
    "open_dicom",
    "read_dicom_series",
    "read_series",
]
