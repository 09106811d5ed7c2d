"""What the demo's answer is held against: masks that know nothing, and TensorFlow's stored answers."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxelrt.errors import InputError
from voxelrt.plan.plan import Plan

Mask = NDArray[np.bool_]


def dice(a: Mask, b: Mask) -> float:
    """2 |a and b| / (|a| + |b|)."""
    return 2.0 * float((a & b).sum()) / float(a.sum() + b.sum())


def ellipsoid_in_box(mask: Mask) -> Mask:
    """The ellipsoid that fills the bounding box of a mask."""
    distance = np.zeros(mask.shape)
    for axis, size in enumerate(mask.shape):
        occupied = np.flatnonzero(mask.any(axis=tuple(a for a in range(mask.ndim) if a != axis)))
        low, high = occupied[0] - 0.5, occupied[-1] + 0.5
        scaled = (np.arange(size) - (low + high) / 2) / ((high - low) / 2)
        distance = distance + (scaled**2).reshape([-1 if a == axis else 1 for a in range(mask.ndim)])
    return np.asarray(distance <= 1)


def mirrored(mask: Mask) -> Mask:
    """The mask (Z, Y, X) with x reversed, which is left to right in a head whose x runs so."""
    return mask[:, :, ::-1]


@dataclass(frozen=True)
class Parity:
    """One comparison with TensorFlow: the largest difference, and the share of mask voxels that are equal."""

    name: str
    maximum: float | None
    equal: float

    @property
    def text(self) -> str:
        figure = f"maximum difference {self.maximum:.1e}, " if self.maximum is not None else ""
        return f"TensorFlow's stored output, {self.name}: {figure}{self.equal:.3%} of the mask's voxels equal"


@dataclass(frozen=True, eq=False)
class TensorFlowAnswers:
    """The fixture that ``tests/models/make_deepbrain_reference.py`` made in an environment with TensorFlow.

    Parameters
    ----------
    levels
        A network input, (1, 128, 128, 128, 1): the stretched head in 256 levels.
    sample
        Every fourth voxel of TensorFlow's probability for it.
    mask
        Its probability over 0.5, (128, 128, 128).
    native_bits
        deepbrain's own final mask on the head's grid, packed, in the file's order x, y, z.
    """

    levels: NDArray[np.float32]
    sample: NDArray[np.float32]
    mask: Mask
    native_bits: NDArray[np.uint8]

    @classmethod
    def read(cls, path: Path) -> TensorFlowAnswers:
        """Raises InputError if the file is not there or is not what TensorFlow was given."""
        if not path.is_file():
            raise InputError(
                f"{path.name!r}, TensorFlow's stored answers, is not there; run the demo from a full clone"
            )
        with np.load(path) as stored:
            levels: Any = stored["levels"].astype(np.float32) / np.float32(255)
            levels = levels.reshape(1, *levels.shape, 1)
            if hashlib.sha256(levels.tobytes()).hexdigest() != str(stored["levels_sha256"]):
                raise InputError(f"{path.name!r} is damaged: its input is not the one that TensorFlow was given")
            mask = np.unpackbits(stored["levels_mask"]).astype(bool).reshape(levels.shape[1:4])
            return cls(levels, stored["levels_sample"], mask, stored["head_native_mask"])


def against_tensorflow(plan: Plan, stored: TensorFlowAnswers, result: Mask) -> list[Parity]:
    """The network's output for a stored input, and the whole pipeline's mask (Z, Y, X).

    Equal voxels are counted over the union of the two masks, never over the background.
    """
    answer = plan.run({plan.inputs[0].name: stored.levels})[plan.outputs[0].name][0, ..., 0]
    maximum = float(np.abs(answer[1::4, 1::4, 1::4] - stored.sample).max())
    shape_xyz = result.shape[::-1]
    native = np.unpackbits(stored.native_bits)[: result.size].astype(bool).reshape(shape_xyz).T
    return [
        Parity("network", maximum, _equal(answer > 0.5, stored.mask)),
        Parity("whole way, mask on the head's grid", None, _equal(result, native)),
    ]


def _equal(a: Mask, b: Mask) -> float:
    union = a | b
    return float((a == b)[union].mean()) if union.any() else 1.0
