"""Readers and writers of images: a path in, a Volume out, and back."""

from __future__ import annotations

from voxelrt.io.image import DicomSource, Image, NiftiSource
from voxelrt.io.nifti import read_nifti, write_nifti

__all__ = ["DicomSource", "Image", "NiftiSource", "read_nifti", "write_nifti"]
