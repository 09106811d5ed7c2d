"""How far two label volumes agree: over the union of foregrounds and class by class, and where they do not."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from voxelrt.errors import GeometryError
from voxelrt.postprocess.sheet import draw_sheet, grey_column, tinted_column
from voxelrt.volume import Volume

Labels = NDArray[Any]


@dataclass(frozen=True)
class ClassRow:
    """One class: its Dice coefficient, voxels and volumes in both."""

    value: int
    name: str
    dice: float
    ours_voxels: int
    reference_voxels: int
    ours_ml: float
    reference_ml: float


@dataclass(frozen=True)
class Agreement:
    """Of two label volumes.

    Parameters
    ----------
    equal : the share of the union of their foregrounds that has the same label; 1 where both are empty.
    differing : voxels.
    union : voxels of that union.
    classes : of all classes in either.
    """

    equal: float
    differing: int
    union: int
    classes: tuple[ClassRow, ...]

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def agree(ours: Volume, reference: Volume) -> Agreement:
    """Compare labels. Raises GeometryError where the grids have different sizes."""
    if ours.shape_zyx != reference.shape_zyx:
        raise GeometryError(f"labels of {ours.shape_zyx} and {reference.shape_zyx} voxels cannot be compared")
    a, b = np.asarray(ours.array[0]), np.rint(np.asarray(reference.array[0])).astype(np.int64)
    union = int(((a != 0) | (b != 0)).sum())
    differing = int((a != b).sum())
    millilitres = ours.voxel_volume_mm3 / 1000
    rows = []
    for value in sorted({int(v) for v in (*np.unique(a), *np.unique(b)) if v != 0}):
        first, second = a == value, b == value
        both, one, other = int((first & second).sum()), int(first.sum()), int(second.sum())
        name = ours.labels.get(value, reference.labels.get(value, f"label {value}"))
        dice = 2 * both / (one + other)
        rows.append(ClassRow(value, name, dice, one, other, one * millilitres, other * millilitres))
    return Agreement(1 - differing / union if union else 1.0, differing, union, tuple(rows))


def draw_agreement(image: Volume, ours: Volume, reference: Volume, title: str, caption: str) -> Pillow.Image:
    """The study, both label volumes and the voxels that differ, through the plane that has most of them."""
    a, b = np.asarray(ours.array[0]), np.rint(np.asarray(reference.array[0]))
    differ = a != b
    shown = differ if differ.any() else (a != 0)
    at = [int(np.argmax(shown.sum(axis=tuple(k for k in range(3) if k != axis)))) for axis in range(3)]
    most = float(max(1, a.max(initial=0), b.max(initial=0)))
    grey = image.array[0]
    columns = [
        grey_column("image", grey),
        tinted_column("VoxelRT", grey, a.astype(np.float32), top=most),
        tinted_column("reference", grey, b.astype(np.float32), top=most),
        tinted_column("differing voxels", grey, differ.astype(np.float32), top=1.0),
    ]
    return draw_sheet(image, columns, at_zyx=(at[0], at[1], at[2]), title=title, caption=caption)
