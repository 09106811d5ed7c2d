"""Volume: an image in space. An array and an affine, frozen; spacing and voxel volume are derived, never stored."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from voxelrt.errors import GeometryError, UsageError

Lengths = Literal["volume", "plane", "none"]


@dataclass(frozen=True, eq=False)
class Volume:
    """An image in space.

    Parameters
    ----------
    array : (C, Z, Y, X), any real dtype. A (Z, Y, X) array is given one channel.
    affine : (4, 4) float64; maps the voxel index (x, y, z, 1) to the world in mm, LPS+ (x to the patient's Left,
        y to Posterior, z to Superior: DICOM PS3.3 C.7.6.2.1.1). Not necessarily orthogonal.
    labels : names of the values of a label volume, value -> name; empty for an image.
    modality : DICOM's word where it is known ("MR", "CT", ...), else "".
    placed : whether the affine's directions are the patient's; False for pictures that say none, so that nothing made
        of them claims sides of the patient.
    lengths : which of the affine's lengths were measured: "volume" all; "plane" those of rows and columns, because a
        picture has no depth; "none", because the file tells none. What was not measured counts as 1 mm, so that a
        picture has a grid, and nothing made of it may claim millimetres or millilitres.
    colour : whether its three channels are red, green and blue.

    Raises
    ------
    UsageError : the array has not three or four axes.
    GeometryError : the affine is not (4, 4), not finite, or singular.
    """

    array: NDArray[np.generic]
    affine: NDArray[np.float64]
    labels: dict[int, str] = field(default_factory=dict)
    modality: str = ""
    placed: bool = True
    lengths: Lengths = "volume"
    colour: bool = False

    def __post_init__(self) -> None:
        array = np.asarray(self.array)
        if array.ndim == 3:
            array = array[None]
        if array.ndim != 4:
            raise UsageError(f"a volume has the axes (C, Z, Y, X); this array has shape {array.shape}")
        affine = np.array(self.affine, dtype=np.float64)
        if affine.shape != (4, 4) or not np.isfinite(affine).all():
            raise GeometryError(f"an affine is a finite 4×4 matrix; this one has shape {affine.shape}")
        if abs(np.linalg.det(affine[:3, :3])) < 1e-12:
            raise GeometryError("the affine is singular: its voxels have no volume")
        array = array.view()
        array.flags.writeable = False
        affine.flags.writeable = False
        object.__setattr__(self, "array", array)
        object.__setattr__(self, "affine", affine)

    @property
    def shape_zyx(self) -> tuple[int, int, int]:
        """The size of the grid (Z, Y, X) in voxels."""
        z, y, x = self.array.shape[1:]
        return (z, y, x)

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """The distance of neighbouring voxels along (z, y, x) in mm."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0)
        return (float(z), float(y), float(x))

    @property
    def voxel_volume_mm3(self) -> float:
        """The volume of one voxel in mm³: |det| of the affine's linear part, so right for sheared grids too."""
        return float(abs(np.linalg.det(self.affine[:3, :3])))

    @property
    def known_spacing_mm(self) -> tuple[float | None, float | None, float | None]:
        """`spacing_mm` with None for what nothing tells."""
        z, y, x = self.spacing_mm
        return (
            z if self.lengths == "volume" else None,
            None if self.lengths == "none" else y,
            None if self.lengths == "none" else x,
        )

    @property
    def voxel_ml(self) -> float | None:
        """The volume of one voxel in mL; None where a length of it is not known."""
        return self.voxel_volume_mm3 / 1000 if self.lengths == "volume" else None

    @property
    def in_space(self) -> bool:
        """Whether a voxel's place in the world, LPS mm, means one: false of pictures."""
        return self.placed and self.lengths == "volume"

    @property
    def pixel_mm2(self) -> float | None:
        """Of a picture that tells the lengths of its plane, the area of one pixel in mm²; else None.

        None of a cine too: an area summed over its frames is no area.
        """
        if self.lengths != "plane" or self.array.shape[1] != 1:
            return None
        return float(np.linalg.norm(np.cross(self.affine[:3, 0], self.affine[:3, 1])))

    def with_array(self, array: NDArray[np.generic], labels: dict[int, str] | None = None) -> Volume:
        """Another image on the same grid, not in colour. Raises GeometryError if (Z, Y, X) differs."""
        result = Volume(array, self.affine, labels or {}, self.modality, self.placed, self.lengths)
        if result.shape_zyx != self.shape_zyx:
            raise GeometryError(f"an array of {result.shape_zyx} voxels is not on the grid of {self.shape_zyx}")
        return result
