"""What both GPU backends of norm3d do alike: which calls they take, and the channels-last form of the volume."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from voxelrt.errors import UnsupportedError
from voxelrt.kernels.common.activation import activation_number
from voxelrt.kernels.common.gpu.program import Program, Tensor
from voxelrt.kernels.common.kernel import Array

DTYPES = (np.dtype(np.float32), np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16))
# Voxels whose moments one block takes; a thread keeps its share of them in registers.
CHUNK = 128


@dataclass
class Volume:
    """(N, C, ...) as (N, S, C) on the device, with everything that a launch needs of it."""

    program: Program
    x: Tensor
    batch: int
    channels: int
    voxels: int
    activation: tuple[int, float, float]

    def vector(self, given: Array | None, fill: float) -> Tensor:
        """A vector over the channels, or over items and channels, as (N, C) float32 with a stride over items."""
        shape = (self.batch, self.channels)
        values = np.full(self.channels, fill, np.float32) if given is None else np.asarray(given, np.float32)
        return self.program.input(np.broadcast_to(values, shape))

    def output(self, shape: tuple[int, ...]) -> Tensor:
        """The answer, channels last, handed back in the order of ``shape``."""
        out = self.program.output((self.batch, self.voxels, self.channels), self.x.dtype)
        last = (shape[0], *shape[2:], shape[1])
        self.program.finish(lambda y: np.moveaxis(y.reshape(last), -1, 1))
        return out


def volume(program: Program, x: Array, kind: str, activation: tuple[str, float, float]) -> Volume:
    """Put a volume on the device, channels last.

    Raises
    ------
    UnsupportedError : a kind of norm or a type that the GPU backends do not have.
    """
    if kind not in ("instance", "affine"):
        raise UnsupportedError(f"norm3d on the GPU has no kind {kind!r}: use backend='cpu'")
    if x.dtype not in DTYPES or x.ndim < 2:
        raise UnsupportedError(f"norm3d on the GPU takes no {x.dtype} of {x.ndim} dimensions: use backend='cpu'")
    voxels = int(np.prod(x.shape[2:]))
    last = np.ascontiguousarray(np.moveaxis(x, 1, -1)).reshape(x.shape[0], voxels, x.shape[1])
    name, alpha, beta = activation
    number = (activation_number(name), float(alpha), float(beta))
    return Volume(program, program.input(last), x.shape[0], x.shape[1], voxels, number)


def group_size(channels: int, groups: int) -> int:
    """Channels that share their statistics."""
    if groups and channels % groups:
        raise UnsupportedError(f"{channels} channels do not divide into {groups} groups")
    return channels // groups if groups else 1


def options_only(given: dict[str, Any]) -> None:
    """The options of other kinds of norm do not matter to these."""
    unknown = set(given) - {"axes", "p", "response", "moments", "layout"}
    if unknown:
        raise TypeError(f"norm3d has no option {', '.join(sorted(unknown))}")
