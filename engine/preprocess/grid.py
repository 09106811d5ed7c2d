"""From a study's grid to the network's and back, as a recipe's ``[input.grid]`` says.

Turning is exact (a permutation and flips). Stretching, resampling, padding and cropping are linear and work along one
axis at a time, so the whole way is one small matrix an axis in each direction. An axis that does not change is not
touched: what goes in comes out bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxelrt.errors import InputError
from voxelrt.io.orientation import Reorientation, reorient
from voxelrt.models.recipe_schema import Grid
from voxelrt.preprocess.interpolation import Interpolation, Matrix, interpolation_matrix
from voxelrt.preprocess.spatial import axis_matrix, sample_positions
from voxelrt.volume import Volume

Array = NDArray[Any]

SLAB_BYTES = 64 * 2**20


@dataclass(frozen=True, eq=False)
class _Axis:
    """One axis: ``source`` voxels are resampled to ``resized``, of which ``network`` from ``begin`` on are kept."""

    source: int
    resized: int
    network: int

    @property
    def begin(self) -> int:
        """The resized voxel that the network sees first; below 0 where there is padding."""
        return (self.resized - self.network) // 2

    def forward(self, grid: Grid) -> Matrix | None:
        """(network, source), None where nothing changes."""
        if self.source == self.resized == self.network:
            return None
        matrix = _resize(self.source, self.resized, grid, grid.interpolation, zeros_outside=grid.padding != "border")
        kept = np.arange(self.network) + self.begin
        padded = matrix[np.clip(kept, 0, self.resized - 1)]
        if grid.padding != "border":
            padded[(kept < 0) | (kept >= self.resized)] = 0
        return padded

    def backward(self, grid: Grid, interpolation: Interpolation, zeros_outside: bool) -> Matrix | None:
        """(source, network), None where nothing changes. What was cropped away repeats the last voxel kept."""
        if self.source == self.resized == self.network:
            return None
        matrix = _resize(self.resized, self.source, grid, interpolation, zeros_outside=zeros_outside)
        embedding = np.zeros((self.resized, self.network))
        embedding[np.arange(self.resized), np.clip(np.arange(self.resized) - self.begin, 0, self.network - 1)] = 1
        return matrix @ embedding

    def seen(self, grid: Grid) -> slice:
        """The source voxels that the network saw."""
        at = sample_positions(self.resized, self.source, grid.sampling) - self.begin
        inside = np.flatnonzero((at >= -0.5) & (at < self.network - 0.5))
        return slice(int(inside[0]), int(inside[-1]) + 1) if inside.size else slice(0, 0)


def _resize(source: int, target: int, grid: Grid, interpolation: Interpolation, *, zeros_outside: bool) -> Matrix:
    if source == target:
        return np.eye(source)
    if interpolation == "linear":
        boundary: Any = "constant" if zeros_outside else "edge"
        return axis_matrix(source, target, grid=grid.sampling, boundary=boundary, anti_aliasing=grid.antialiasing)
    positions = sample_positions(source, target, grid.sampling)
    return interpolation_matrix(positions, source, interpolation, zeros_outside=zeros_outside)


@dataclass(frozen=True, eq=False)
class GridMap:
    """The way of one study to the network's grid and back.

    Parameters
    ----------
    grid
        What the recipe says.
    turn
        The permutation and flips, None for the stored order.
    axes
        z, y, x of the turned study.
    """

    grid: Grid
    turn: Reorientation | None
    axes: tuple[_Axis, _Axis, _Axis]

    @property
    def network_zyx(self) -> tuple[int, int, int]:
        z, y, x = (axis.network for axis in self.axes)
        return (z, y, x)

    @property
    def turned_zyx(self) -> tuple[int, int, int]:
        z, y, x = (axis.source for axis in self.axes)
        return (z, y, x)

    def forward(self, array: Array) -> Array:
        """A study's (C, Z, Y, X) on the network's grid, (C, *network_zyx) float32."""
        turned = array if self.turn is None else self.turn.apply_array(array)
        result: Array = turned.astype(np.float32)
        floor = np.zeros((result.shape[0], 1, 1, 1), np.float32)
        if self.grid.padding == "minimum":
            floor = result.min(axis=(1, 2, 3), keepdims=True)
        matrices = [axis.forward(self.grid) for axis in self.axes]
        if self.grid.padding == "minimum" and any(m is not None for m in matrices):
            return _apply(matrices, result - floor) + floor
        return _apply(matrices, result)

    def backward(
        self, array: Array, *, interpolation: Interpolation = "linear", zeros_outside: bool = False
    ) -> Iterator[tuple[slice, Array]]:
        """The network's (C, *network_zyx) on the turned study's grid, slab by slab so that it never exists whole.

        Yields
        ------
        slice, slab : the planes z of the turned study, and their (C, planes, Y, X) in the array's dtype if nothing is
            resampled, else float32.
        """
        matrices = [axis.backward(self.grid, interpolation, zeros_outside) for axis in self.axes]
        depth, height, width = self.turned_zyx
        planes = max(1, SLAB_BYTES // max(1, 4 * array.shape[0] * height * width))
        for first in range(0, depth, planes):
            chosen = slice(first, min(first + planes, depth))
            along_z = matrices[0]
            part = array[:, chosen] if along_z is None else _along(along_z[chosen], array, 1)
            yield chosen, _apply([None, *matrices[1:]], part)

    def seen(self) -> tuple[slice, slice, slice]:
        """The box (z, y, x) of the turned study that the network saw; less than all where it was cropped."""
        z, y, x = (axis.seen(self.grid) for axis in self.axes)
        return (z, y, x)

    def turn_back(self, array: Array) -> Array:
        """(C, Z, Y, X) of the turned study in the study's own order; a view."""
        return array if self.turn is None else self.turn.undo_array(array)


def map_grid(volume: Volume, grid: Grid, fixed_zyx: Sequence[int | None]) -> GridMap:
    """The way from a study's grid to the network's.

    Parameters
    ----------
    volume
        The study.
    grid
        What the recipe says.
    fixed_zyx
        The network's own input size, None for an axis that it leaves open.

    Raises
    ------
    InputError : ``fit`` is "pad" and the study is larger than the network's grid.
    """
    turned, turn = (volume, None) if grid.orientation == "stored" else reorient(volume, grid.orientation)
    axes = []
    for index, name in enumerate("zyx"):
        source, which = turned.shape_zyx[index], 2 - index
        wanted = grid.shape_xyz[which] if which < len(grid.shape_xyz) else None
        resized = source
        if which < len(grid.spacing_mm_xyz):
            resized = max(1, round(source * turned.spacing_mm[index] / grid.spacing_mm_xyz[which]))
        if grid.fit == "stretch":
            axes.append(_Axis(source, wanted or resized, wanted or resized))
            continue
        network = wanted or fixed_zyx[index] or resized
        if grid.fit == "pad" and resized > network:
            raise InputError(
                f"the study has {resized} voxels along {name} of the network's grid and the network takes {network}; "
                'the recipe pads and does not crop (fit = "crop-or-pad" would)'
            )
        axes.append(_Axis(source, resized, network))
    return GridMap(grid, turn, (axes[0], axes[1], axes[2]))


def _apply(matrices: Sequence[Matrix | None], array: Array) -> Array:
    """Multiply the last three axes; the axis that shrinks most goes first, so that the others have less to do."""
    order = sorted(range(3), key=lambda a: 1.0 if (m := matrices[a]) is None else m.shape[0] / m.shape[1])
    for axis in order:
        matrix = matrices[axis]
        if matrix is not None:
            array = _along(matrix, array, axis + 1)
    return array


def _along(matrix: Matrix, array: Array, axis: int) -> Array:
    """Multiply one axis of (C, Z, Y, X), summing the few values that each row of the matrix uses.

    Not a matrix product: that would bring in the BLAS, whose threads know nothing of our thread count and spin.
    """
    used = matrix != 0
    first = used.argmax(axis=1)
    width = int((matrix.shape[1] - used[:, ::-1].argmax(axis=1) - first)[used.any(axis=1)].max(initial=1))
    result = np.zeros((*array.shape[:axis], matrix.shape[0], *array.shape[axis + 1 :]), np.float32)
    across = [-1 if a == axis else 1 for a in range(4)]
    for tap in range(width):
        column = np.minimum(first + tap, matrix.shape[1] - 1)
        weights = np.where(first + tap < matrix.shape[1], matrix[np.arange(matrix.shape[0]), column], 0)
        if not weights.any():
            continue
        part = np.take(array, column, axis=axis).astype(np.float32, copy=False)
        part *= weights.astype(np.float32).reshape(across)
        result += part
    return result
