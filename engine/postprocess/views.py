"""Three views of a volume in radiological convention: which voxel is drawn where, and which letter goes to which side.

A volume is first turned to LPS order (voxel axes x, y, z growing to the patient's Left, Posterior, Superior). Then
all three views follow from one table: axial and coronal have the patient's right on the left of the picture, axial
has anterior at the top, coronal and sagittal have superior at the top, sagittal has anterior on the left.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxelrt.io.orientation import NEGATIVE, POSITIVE


@dataclass(frozen=True)
class View:
    """One view of a volume in LPS order.

    Parameters
    ----------
    name
        For the reader of the picture.
    through, across, down
        Voxel axes (0 is x, 1 is y, 2 is z): the one that is cut, the one that grows to the right of the picture, and
        the one that runs along its height.
    upwards
        True where the index along `down` grows to the top of the picture.
    """

    name: str
    through: int
    across: int
    down: int
    upwards: bool

    @property
    def letters(self) -> tuple[str, str, str, str]:
        """The sides of the patient at the (left, right, top, bottom) of the picture."""
        top, bottom = NEGATIVE[self.down], POSITIVE[self.down]
        if self.upwards:
            top, bottom = bottom, top
        return NEGATIVE[self.across], POSITIVE[self.across], top, bottom

    def cut(self, array: NDArray[Any], index: int) -> NDArray[Any]:
        """The picture (rows, columns) of (Z, Y, X) at `index` along the axis that is cut."""
        # The array's axes run z, y, x, so the two that are left begin with the higher voxel axis: `down`, in all views.
        plane: NDArray[Any] = np.take(array, index, axis=2 - self.through)
        return plane[::-1] if self.upwards else plane

    def place(self, voxel_xyz: tuple[float, float, float], size_xyz: tuple[int, int, int]) -> tuple[float, float]:
        """Where a voxel's centre lies in the picture of :meth:`cut`, (column, row) in voxels from the top left."""
        row = voxel_xyz[self.down]
        return voxel_xyz[self.across], size_xyz[self.down] - 1 - row if self.upwards else row


AXIAL = View("Axial", through=2, across=0, down=1, upwards=False)
CORONAL = View("Coronal", through=1, across=0, down=2, upwards=True)
SAGITTAL = View("Sagittal", through=0, across=1, down=2, upwards=True)

VIEWS = (AXIAL, CORONAL, SAGITTAL)


def views_of(size_xyz: tuple[int, ...]) -> tuple[View, ...]:
    """The views that show a plane of a volume in LPS order: three, or the one of a single slice or picture."""
    return tuple(view for view in VIEWS if size_xyz[view.across] > 1 and size_xyz[view.down] > 1) or (AXIAL,)


def centre_of(mask: NDArray[np.bool_]) -> tuple[int, int, int]:
    """The voxel (x, y, z) nearest to the centroid of (Z, Y, X); of an empty mask, the middle of the grid."""
    total = int(np.count_nonzero(mask))
    centre = []
    for axis in (2, 1, 0):
        size = mask.shape[axis]
        if total:
            counts = np.count_nonzero(mask, axis=tuple(a for a in range(3) if a != axis))
            centre.append(round(float(counts @ np.arange(size)) / total))
        else:
            centre.append((size - 1) // 2)
    x, y, z = centre
    return x, y, z


def obliquity_degrees(affine: NDArray[np.float64]) -> float:
    """The largest angle between a voxel axis and the patient axis it is named after, for an affine in LPS order."""
    columns = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return float(np.degrees(np.arccos(np.clip(np.abs(np.diag(columns)), 0.0, 1.0))).max())
