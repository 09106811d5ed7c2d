"""Image: what a reader returns: the volume, what the reader had to say about it, and where it came from."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from voxelrt.io.orientation import axis_codes
from voxelrt.volume import Volume

if TYPE_CHECKING:
    from voxelrt.io.dicom.geometry import GeometryReport
    from voxelrt.io.dicom.series import SeriesVolume

# No volume of medicine is larger; a file that asks for more is refused rather than tried.
MAX_VOLUME_BYTES = 16 * 2**30


@dataclass(frozen=True, eq=False)
class NiftiSource:
    """What a result needs to be written on the grid of a NIfTI file, bit for bit.

    Parameters
    ----------
    path
        The file that was read.
    header
        Its 348 (NIfTI-1) or 540 (NIfTI-2) bytes, with the free-text fields blanked (they may name a patient).
    affine
        (4, 4) voxel (x, y, z) -> LPS mm, as in the volume.
    shape_zyx
        The size of its grid.
    """

    path: Path = field(repr=False)
    header: bytes = field(repr=False)
    affine: NDArray[np.float64]
    shape_zyx: tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class DicomSource:
    """What a result needs to refer to the DICOM series it was made from. The UIDs are kept out of ``repr``.

    Parameters
    ----------
    files
        One file for each slice, in the order of the volume's z.
    sop_instance_uids, sop_class_uid
        Of these files, for the references of a derived object.
    study_uid, series_uid, frame_of_reference_uid
        Of the series; "" where the files do not say.
    affine
        (4, 4) voxel (x, y, z) -> LPS mm, as in the volume.
    shape_zyx
        The size of its grid.
    body_part
        DICOM's BodyPartExamined, "" where the files do not say.
    series_description
        Free text that may name anybody: only for comparing with a recipe's patterns, never to be shown.
    volume
        The planes: of each its file, its frame in the file, its place (``volume.frames``), and from
        ``frame.header.source_elements()`` all that a derived object copies; of "all" volumes of a series the first.
    """

    files: tuple[Path, ...] = field(repr=False)
    sop_instance_uids: tuple[str, ...] = field(repr=False)
    sop_class_uid: str
    study_uid: str = field(repr=False)
    series_uid: str = field(repr=False)
    frame_of_reference_uid: str = field(repr=False)
    affine: NDArray[np.float64]
    shape_zyx: tuple[int, int, int]
    body_part: str = ""
    series_description: str = field(default="", repr=False)
    volume: SeriesVolume | None = field(default=None, repr=False)

    @property
    def report(self) -> GeometryReport | None:
        """What was found of the geometry and done about it; None for a source without a volume."""
        return None if self.volume is None else self.volume.report


@dataclass(frozen=True, eq=False)
class GridSource:
    """The file that a volume was read from, of a format whose header says nothing but the grid: MetaImage, NRRD.

    Parameters
    ----------
    path
        The file.
    affine
        (4, 4) voxel (x, y, z) -> LPS mm, as in the volume.
    shape_zyx
        The size of its grid.
    """

    path: Path = field(repr=False)
    affine: NDArray[np.float64]
    shape_zyx: tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class PictureSource:
    """The picture that a volume was read from; it has no place in the patient.

    Parameters
    ----------
    path
        The file.
    kind
        "PNG", "JPEG" or "TIFF".
    affine
        (4, 4) voxel (x, y, z) -> mm; the directions mean nothing.
    shape_zyx
        The size of its grid.
    """

    path: Path = field(repr=False)
    kind: str
    affine: NDArray[np.float64]
    shape_zyx: tuple[int, int, int]


Source = NiftiSource | DicomSource | GridSource | PictureSource


@dataclass(frozen=True, eq=False)
class Image:
    """An image as it was read.

    Parameters
    ----------
    volume
        The voxels in the order of the file, with the affine to LPS mm.
    warnings
        Sentences for the user: what was assumed, skipped or found odd. No patient identifiers.
    source
        What is needed to write a result on the same grid.
    """

    volume: Volume
    warnings: tuple[str, ...]
    source: Source

    @property
    def orientation_xyz(self) -> str:
        """Where growing indices x, y, z point to, the nearest of L/R, P/A, S/I; "-" for what nothing tells."""
        if isinstance(self.source, PictureSource):
            return "---"
        if isinstance(self.source, DicomSource):  # a level of a whole slide has no report
            return "---" if self.source.report is None else self.source.report.orientation_xyz
        return axis_codes(self.volume.affine)
