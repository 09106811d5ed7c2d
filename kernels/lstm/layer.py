"""A recurrent layer's weights as the native kernel wants them, and its parameters.

The input's part of all gates of all steps is one product, made before the recurrent part: ``x · input_weight + bias``.
Its columns are [direction][block of sixteen units][gate][16], zeros past the last unit, so that the recurrent part
finds all gates of sixteen units side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from voxelrt.errors import ShapeError, UsageError
from voxelrt.kernels.common.kernel import Array
from voxelrt.kernels.lstm.codes import ACTIVATIONS, CELLS, DIRECTIONS, GATES, USUAL

BLOCK = 16
Activation = tuple[str, float | None, float | None]


@dataclass(frozen=True)
class RecurrentLayer:
    """What a layer does, apart from its weights; see ``lstm`` for the meaning of the fields."""

    cell: str
    hidden: int
    direction: str = "forward"
    activations: tuple[Activation, ...] | None = None
    clip: float | None = None
    input_forget: bool = False
    linear_before_reset: bool = False

    def __post_init__(self) -> None:
        if self.cell not in CELLS:
            raise UsageError(f"there is no cell {self.cell!r}; there are {', '.join(CELLS)}")
        if self.direction not in DIRECTIONS:
            raise UsageError(f"there is no direction {self.direction!r}; there are {', '.join(DIRECTIONS)}")
        if self.clip is not None and not self.clip > 0:
            raise UsageError(f"the clip is {self.clip}; it must be positive")
        if self.activations is not None:
            wanted = len(USUAL[self.cell]) * self.directions
            if len(self.activations) != wanted:
                raise UsageError(f"{len(self.activations)} activations; a {self.direction} {self.cell} takes {wanted}")
            for name, _, _ in self.activations:
                if name not in ACTIVATIONS:
                    raise UsageError(f"there is no activation {name!r}; there are {', '.join(ACTIVATIONS)}")

    @property
    def directions(self) -> int:
        return 2 if self.direction == "bidirectional" else 1

    @property
    def gates(self) -> int:
        return GATES[self.cell]

    @property
    def padded(self) -> int:
        """The units in whole blocks."""
        return -(-self.hidden // BLOCK) * BLOCK

    @property
    def columns(self) -> int:
        """Of the product with the input."""
        return self.directions * self.gates * self.padded

    @property
    def resets_behind(self) -> bool:
        return self.cell == "gru" and self.linear_before_reset

    def params(self) -> dict[str, Any]:
        """The parameters of a step of the kernel."""
        functions, alphas, betas = [0] * 6, [0.0] * 6, [0.0] * 6
        usual = USUAL[self.cell]
        given = self.activations or tuple((name, None, None) for name in usual * self.directions)
        names = list(ACTIVATIONS)
        for d in range(2):
            for i in range(3):
                index = (d % self.directions) * len(usual) + i
                name, alpha, beta = given[index] if i < len(usual) else ("Tanh", None, None)
                defaults = ACTIVATIONS[name]
                functions[3 * d + i] = names.index(name)
                alphas[3 * d + i] = float((defaults[0] if alpha is None else alpha) or 0.0)
                betas[3 * d + i] = float((defaults[1] if beta is None else beta) or 0.0)
        return {
            "cell": CELLS.index(self.cell),
            "direction": DIRECTIONS.index(self.direction),
            "hidden": self.hidden,
            "reset_behind": self.resets_behind,
            "input_forget": self.input_forget,
            "clip": float("inf") if self.clip is None else self.clip,
            "functions": functions,
            "alpha": alphas,
            "beta": betas,
        }

    def check(self, w: Sequence[int], r: Sequence[int], b: Sequence[int] | None, p: Sequence[int] | None) -> None:
        """Raise ShapeError where weights of these shapes are not those of the layer."""
        D, rows = self.directions, self.gates * self.hidden
        if len(w) != 3 or tuple(w[:2]) != (D, rows):
            raise ShapeError(f"W has the shape {tuple(w)}; a {self.direction} {self.cell} takes ({D}, {rows}, inputs)")
        for name, shape, wanted in (
            ("R", r, (D, rows, self.hidden)),
            ("B", b, (D, 2 * rows)),
            ("P", p, (D, 3 * self.hidden)),
        ):
            if shape is not None and tuple(shape) != wanted:
                raise ShapeError(f"{name} has the shape {tuple(shape)}; a {self.direction} {self.cell} takes {wanted}")
        if p is not None and self.cell != "lstm":
            raise ShapeError(f"a {self.cell} has no peepholes")

    def input_weight(self, w: Array) -> Array:
        """W (directions, gates · hidden, inputs) as the right-hand side (inputs, columns) of the product."""
        return np.ascontiguousarray(self._by_blocks(w.transpose(2, 0, 1)).reshape(w.shape[2], self.columns))

    def input_bias(self, b: Array | None) -> Array | None:
        """The biases (directions, 2 · gates · hidden) that are added to the product: (columns,)."""
        if b is None:
            return None
        rows = self.gates * self.hidden
        both = b[:, :rows] + b[:, rows:]
        if self.resets_behind:
            both[:, 2 * self.hidden :] = b[:, 2 * self.hidden : rows]
        return self._by_blocks(both[None]).reshape(self.columns)

    def state_bias(self, b: Array | None, dtype: Any = np.float32) -> Array | None:
        """What a GRU with its reset gate behind the state's product adds to that product: (directions · padded,)."""
        if not self.resets_behind:
            return None
        made = np.zeros((self.directions, self.padded), dtype)
        if b is not None:
            made[:, : self.hidden] = b[:, -self.hidden :]
        return made.reshape(-1)

    def peepholes(self, p: Array | None) -> Array | None:
        """P (directions, 3 · hidden) with the units in whole blocks, flat."""
        if p is None:
            return None
        made = np.zeros((self.directions, 3, self.padded), p.dtype)
        made[:, :, : self.hidden] = p.reshape(self.directions, 3, self.hidden)
        return made.reshape(-1)

    def _by_blocks(self, rows: Array) -> Array:
        """(n, directions, gates · hidden) as (n, directions, blocks, gates, 16)."""
        n, D = rows.shape[:2]
        made = np.zeros((n, D, self.gates, self.padded), rows.dtype)
        made[..., : self.hidden] = rows.reshape(n, D, self.gates, self.hidden)
        return made.reshape(n, D, self.gates, self.padded // BLOCK, BLOCK).transpose(0, 1, 3, 2, 4)
