"""Phantoms whose every flip and permutation shows, and DICOM series made of them."""

from __future__ import annotations

from itertools import permutations, product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

PATIENT_NAME = "Doe^Confidential"
PATIENT_ID = "SECRET-4711"


def octants(shape_zyx: tuple[int, int, int] = (6, 8, 10), dtype: Any = np.int16) -> NDArray[Any]:
    """A different label in each octant, 1 to 8, of three different sizes: no flip or permutation maps it to itself."""
    z, y, x = np.indices(shape_zyx)
    depth, height, width = shape_zyx
    label = 1 + (x >= width // 2) + 2 * (y >= height // 2) + 4 * (z >= depth // 2)
    return label.astype(dtype)


def forty_eight() -> list[NDArray[np.float64]]:
    """The signed permutation matrices: all ways that voxel axes can lie along patient axes."""
    found = []
    for order in permutations(range(3)):
        for signs in product((1.0, -1.0), repeat=3):
            matrix = np.zeros((3, 3))
            for axis, (to, sign) in enumerate(zip(order, signs, strict=True)):
                matrix[to, axis] = sign
            found.append(matrix)
    return found


def rotation(degrees: float = 20.0) -> NDArray[np.float64]:
    """A rotation about no axis in particular."""
    angle = np.radians(degrees)
    axis = np.array([1.0, 2.0, 3.0]) / np.sqrt(14.0)
    cross = np.cross(np.eye(3), axis)
    return np.asarray(np.eye(3) + np.sin(angle) * -cross + (1 - np.cos(angle)) * cross @ cross)


def dicom_slice(pixels: NDArray[Any], position: NDArray[np.float64], **changes: Any) -> FileDataset:
    """One CT slice (rows, columns), 16 bits, with a patient whose name must appear nowhere.

    `changes` set elements by keyword; a value of None deletes the element.
    """
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = CTImageStorage
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.PatientName, dataset.PatientID = PATIENT_NAME, PATIENT_ID
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, generate_uid()
    dataset.Modality, dataset.SeriesNumber, dataset.ImageType = "CT", 3, ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.SeriesDescription = PATIENT_NAME
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.ImagePositionPatient = [f"{value:.10g}"[:16] for value in position]
    dataset.PixelSpacing, dataset.SliceThickness = [0.5, 0.75], 99
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.BitsAllocated = dataset.BitsStored = 8 * pixels.dtype.itemsize
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.PixelData = np.ascontiguousarray(pixels).tobytes()
    for name, value in changes.items():
        if value is None:
            delattr(dataset, name)
        else:
            setattr(dataset, name, value)
    return dataset


def dicom_series(
    volume: NDArray[Any],
    *,
    orientation: tuple[float, ...] = (1, 0, 0, 0, 1, 0),
    spacing_mm: float = 2.0,
    origin: tuple[float, float, float] = (-30.0, 10.0, 5.0),
    **changes: Any,
) -> list[FileDataset]:
    """A series of (Z, Y, X), stacked along the normal of `orientation`."""
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    normal = np.cross(row, column)
    common = {"StudyInstanceUID": generate_uid(), "SeriesInstanceUID": generate_uid(),
              "FrameOfReferenceUID": generate_uid(), "ImageOrientationPatient": [f"{v:.12f}"[:16] for v in orientation],
              **changes}  # fmt: skip
    return [dicom_slice(plane, np.array(origin) + k * spacing_mm * normal, **common) for k, plane in enumerate(volume)]


def save_series(datasets: list[FileDataset], folder: Path, *, order: list[int] | None = None) -> Path:
    """Write the slices under names without suffix whose order says nothing about their place."""
    folder.mkdir(exist_ok=True, parents=True)
    for name, index in enumerate(order or [(7 * k + 3) % len(datasets) for k in range(len(datasets))]):
        dataset = datasets[index]
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.save_as(folder / f"IM{name:04d}", enforce_file_format=True)
    return folder
