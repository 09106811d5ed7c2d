"""Between a volume (C, Z, Y, X) and a network's tensor, whose axes a recipe names, outermost first.

A layout with Z is a 3-D network: N is 1. A layout without Z is a 2-D network: every plane z is a sample of the batch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxelrt.errors import ShapeError

Array = NDArray[Any]


def to_layout(array: Array, layout: str) -> Array:
    """A volume (C, Z, Y, X) as a tensor with the axes ``layout``, contiguous."""
    given, present = (array[None], "NCZYX") if "Z" in layout else (array, "CNYX")
    return np.ascontiguousarray(given.transpose([present.index(letter) for letter in layout]))


def from_layout(tensor: Array, layout: str) -> Array:
    """A tensor with the axes ``layout`` as a volume (C, Z, Y, X); a view.

    Raises
    ------
    ShapeError : the tensor has another number of axes, or a 3-D network gave several samples.
    """
    if tensor.ndim != len(layout):
        raise ShapeError(
            f"the network's output has {tensor.ndim} axes, and the recipe's layout {layout} has {len(layout)}"
        )
    wanted = "NCZYX" if "Z" in layout else "CNYX"
    turned = tensor.transpose([layout.index(letter) for letter in wanted])
    if "Z" not in layout:
        return turned
    if turned.shape[0] != 1:
        raise ShapeError(f"the network gave {turned.shape[0]} samples for one study")
    result: Array = turned[0]
    return result


def layout_shape(layout: str, channels: int, zyx: tuple[int | None, int | None, int | None]) -> tuple[int | None, ...]:
    """The tensor's shape for a batch of one; None where an axis is open."""
    sizes: dict[str, int | None] = {"N": 1, "C": channels, "Z": zyx[0], "Y": zyx[1], "X": zyx[2]}
    return tuple(sizes[letter] for letter in layout)


def zyx_of(dims: tuple[int | None, ...], layout: str) -> tuple[int | None, int | None, int | None]:
    """The sizes (z, y, x) of a tensor's shape; None where the layout has no such axis."""
    z, y, x = (
        dims[layout.index(letter)] if letter in layout and len(dims) == len(layout) else None for letter in "ZYX"
    )
    return (z, y, x)
