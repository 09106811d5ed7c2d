"""Axis order and direction: which way the voxel axes point, and turning a volume to another order exactly.

Only permutations and flips happen here: no voxel value changes, and the way back gives the same bytes and the same
affine. Codes name, for the voxel axes x, y, z (x is the array's *last* axis), the side of the patient that a growing
index goes to: L/R, P/A, S/I. "LPS" is DICOM's own order; NIfTI tools' "RAS" means the same kind of thing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from voxelrt.errors import GeometryError, UsageError
from voxelrt.volume import Volume

POSITIVE = "LPS"
NEGATIVE = "RAI"

# NIfTI's world is RAS+, ours LPS+: the first two axes change sign. The matrix is its own inverse.
LPS_FROM_RAS: NDArray[np.float64] = np.diag([-1.0, -1.0, 1.0, 1.0])


def axis_codes(affine: NDArray[np.float64]) -> str:
    """The three letters of the voxel axes (x, y, z) of an LPS+ affine; for oblique grids the nearest axes.

    Parameters
    ----------
    affine
        (4, 4) voxel (x, y, z) -> LPS mm.

    Returns
    -------
    codes : such as "LPS"; each of the three axes of the patient occurs once, however oblique the grid is.
    """
    linear = np.asarray(affine, dtype=np.float64)[:3, :3]
    cosines = linear / np.linalg.norm(linear, axis=0)
    # Of the six assignments of voxel axes to patient axes take the best as a whole: the largest entry of each column
    # alone could name one patient axis twice at 45 degrees.
    best = max(permutations(range(3)), key=lambda order: sum(abs(cosines[order[a], a]) for a in range(3)))
    return "".join(POSITIVE[w] if cosines[w, a] > 0 else NEGATIVE[w] for a, w in enumerate(best))


@dataclass(frozen=True, eq=False)
class Reorientation:
    """A permutation and flips of the voxel axes, with the way back.

    Parameters
    ----------
    axes
        For each new voxel axis (x, y, z) the old one it was.
    flips
        For each new voxel axis whether its direction was turned.
    source_affine, source_shape_zyx
        The grid before, kept so that the way back restores it bit for bit.
    """

    axes: tuple[int, int, int]
    flips: tuple[bool, bool, bool]
    source_affine: NDArray[np.float64]
    source_shape_zyx: tuple[int, int, int]

    def apply_array(self, array: NDArray[np.generic]) -> NDArray[np.generic]:
        """Turn (..., Z, Y, X); a view, no copy."""
        lead = array.ndim - 3
        # Voxel axis a (0 is x) is array axis lead + 2 - a.
        order = [*range(lead), *(lead + 2 - self.axes[a] for a in (2, 1, 0))]
        steps = [slice(None)] * lead + [slice(None, None, -1 if self.flips[a] else None) for a in (2, 1, 0)]
        turned: NDArray[np.generic] = array.transpose(order)[tuple(steps)]
        return turned

    def undo_array(self, array: NDArray[np.generic]) -> NDArray[np.generic]:
        """Turn (..., Z, Y, X) back; a view, no copy."""
        lead = array.ndim - 3
        steps = [slice(None)] * lead + [slice(None, None, -1 if self.flips[a] else None) for a in (2, 1, 0)]
        order = [*range(lead), *(lead + 2 - self.axes.index(a) for a in (2, 1, 0))]
        turned: NDArray[np.generic] = array[tuple(steps)].transpose(order)
        return turned

    def undo(self, volume: Volume) -> Volume:
        """Bring a volume on the turned grid back to the source's grid, with the source's own affine.

        Raises
        ------
        GeometryError : the volume has not the size of the turned grid.
        """
        array = self.undo_array(volume.array)
        if array.shape[1:] != self.source_shape_zyx:
            raise GeometryError(
                f"a volume of {volume.shape_zyx} voxels does not go back to a grid of {self.source_shape_zyx}"
            )
        return replace(volume, array=array, affine=self.source_affine)


def reorient(volume: Volume, codes: str = "LPS") -> tuple[Volume, Reorientation]:
    """Turn a volume so that its voxel axes (x, y, z) point as nearly as possible to `codes`.

    Parameters
    ----------
    volume
        (C, Z, Y, X).
    codes
        Three letters, one of each pair L/R, P/A, S/I, for the voxel axes x, y, z.

    Returns
    -------
    turned : the same voxels, as a view, with the affine that keeps each voxel at its place.
    undo : ``undo.undo(turned)`` has the source's array order and, bit for bit, its affine.

    Raises
    ------
    UsageError : `codes` are not three letters of the three pairs.
    """
    wanted = codes.upper()
    pairs = [_patient_axis(letter) for letter in wanted]
    if sorted(pairs) != [0, 1, 2]:
        raise UsageError(f"axis codes are one letter of each pair L/R, P/A, S/I, such as LPS; these are {codes!r}")
    present = axis_codes(volume.affine)
    have = [_patient_axis(letter) for letter in present]
    x, y, z = (have.index(pair) for pair in pairs)
    fx, fy, fz = (present[old] != letter for old, letter in zip((x, y, z), wanted, strict=True))
    undo = Reorientation((x, y, z), (fx, fy, fz), volume.affine, volume.shape_zyx)

    size_xyz = volume.shape_zyx[::-1]
    affine = np.eye(4)
    affine[:3, 3] = volume.affine[:3, 3]
    for new, (old, flip) in enumerate(zip(undo.axes, undo.flips, strict=True)):
        step = volume.affine[:3, old]
        affine[:3, new] = -step if flip else step
        if flip:
            affine[:3, 3] += step * (size_xyz[old] - 1)
    return replace(volume, array=undo.apply_array(volume.array), affine=affine), undo


def _patient_axis(letter: str) -> int:
    """0 for L and R, 1 for P and A, 2 for S and I, -1 for any other letter."""
    if len(letter) != 1:
        return -1
    return max(POSITIVE.find(letter), NEGATIVE.find(letter))
