"""A multi-dimensional layer's weights as the native kernel wants them, and its parameters.

The input's part of all gates is one product, made before the recurrent part: ``x · input_weight + input_bias``. Its
columns are [direction][block of sixteen units][gate][16], zeros past the last unit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from voxelrt.errors import ShapeError
from voxelrt.kernels.common.kernel import Array

BLOCK = 16
MOST_AXES = 3


@dataclass(frozen=True)
class GridLayer:
    """A layer over a grid of ``axes`` axes, with ``hidden`` units in each direction."""

    axes: int
    hidden: int

    @classmethod
    def of(cls, x: Sequence[int], w: Sequence[int], r: Sequence[int], b: Sequence[int] | None = None) -> GridLayer:
        """The layer that takes operands of these shapes.

        Raises
        ------
        ShapeError : they do not go together.
        """
        axes = len(x) - 2
        if not 1 <= axes <= MOST_AXES:
            raise ShapeError(f"x has the shape {tuple(x)}; it is (grid, batch, inputs), the grid of one to three axes")
        layer = cls(axes, r[-1] // axes if len(r) == 3 else 0)
        rows = (layer.directions, layer.gates * layer.hidden)
        wanted = {"W": (w, (*rows, x[-1])), "R": (r, (*rows, axes * layer.hidden)), "B": (b, rows)}
        for name, (given, shape) in wanted.items():
            if given is not None and (tuple(given) != shape or not layer.hidden):
                raise ShapeError(f"{name} has the shape {tuple(given)}; a grid of {axes} axes takes {shape}")
        return layer

    @property
    def directions(self) -> int:
        """Directions the grid is gone through in."""
        return 1 << self.axes

    @property
    def gates(self) -> int:
        """Gates of a unit: i, o, a forget gate for each axis, g."""
        return self.axes + 3

    @property
    def columns(self) -> int:
        """Columns of the input's part of the gates."""
        return self.directions * self.gates * -(-self.hidden // BLOCK) * BLOCK

    def params(self) -> dict[str, Any]:
        """Of the kernel, and of packing R for it."""
        return {"axes": self.axes, "hidden": self.hidden}

    def input_weight(self, w: Array) -> Array:
        """W as the second operand of the product: (inputs, columns)."""
        return self._by_blocks(w.transpose(2, 0, 1))

    def input_bias(self, b: Array | None) -> Array | None:
        """The bias of the product: (columns)."""
        return None if b is None else self._by_blocks(b[None]).reshape(-1)

    def _by_blocks(self, rows: Array) -> Array:
        """(n, directions, gates · hidden) as (n, columns)."""
        count, blocks = rows.shape[0], -(-self.hidden // BLOCK)
        made = np.zeros((count, self.directions, self.gates, blocks * BLOCK), rows.dtype)
        made[..., : self.hidden] = rows.reshape(count, self.directions, self.gates, self.hidden)
        split = made.reshape(count, self.directions, self.gates, blocks, BLOCK).transpose(0, 1, 3, 2, 4)
        return np.ascontiguousarray(split).reshape(count, self.columns)
