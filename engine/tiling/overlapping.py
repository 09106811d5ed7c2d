"""Sliding windows as MONAI lays and weighs them (``monai.inferers.sliding_window_inference``), in a recipe's words.

Beside nnU-Net's rules (``tiling/windows.py``): steps are whole and not evened out, the last window is drawn back to
the volume's end, and the Gaussian's smallest weight is 0.001.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxelrt.errors import InputError
from voxelrt.models.recipe_tables import Sliding

Floats = NDArray[np.float32]
Triple = tuple[int, int, int]
SMALLEST_WEIGHT = 1e-3
PAD_MODES = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def each(values: Sequence[float], axes: int) -> tuple[float, ...]:
    """One value for each of z, y, x; of a network of two axes the first is never looked at."""
    given = tuple(values) * axes if len(values) == 1 else tuple(values)
    return (0.0,) * (3 - len(given)) + given


def starts(size: int, window: int, overlap: float) -> list[int]:
    """Where the windows along one axis begin; the window is not larger than the axis.

    Parameters
    ----------
    size, window : in voxels.
    overlap : the share of the window that neighbours have in common, 0 to below 1.
    """
    step = size if window == size else max(1, int(window * (1 - overlap)))
    found = []
    for at in range(0, size, step):
        found.append(min(at, size - window))
        if at + window >= size:
            break
    return found


def weights(window: Triple, sliding: Sliding) -> Floats:
    """How much each voxel of a window (z, y, x) counts, (*window) float32; a plane's is one voxel deep."""
    if sliding.mode == "constant":
        return np.ones(tuple(window), np.float32)
    total = np.ones((), np.float32)
    for size, scale in zip(window, each(sliding.sigma_scale, 2 if window[0] == 1 else 3), strict=True):
        distance = np.arange(size, dtype=np.float32) - np.float32((size - 1) / 2)
        sigma = size * scale if size > 1 else 1.0
        total = total[..., None] * np.exp(distance**2 / np.float32(-2 * sigma**2), dtype=np.float32)
    floor = max(float(total.min()), SMALLEST_WEIGHT)
    made: Floats = np.maximum(total, np.float32(floor))
    return made


def padded(data: NDArray[Any], window: Triple, sliding: Sliding) -> tuple[NDArray[Any], tuple[slice, slice, slice]]:
    """(C, Z, Y, X) at least as large as a window, and where the data lie in it.

    Raises
    ------
    InputError : there are too few voxels to mirror or repeat.
    """
    pads = []
    for size, wanted in zip(data.shape[1:], window, strict=True):
        missing = max(0, wanted - size)
        pads.append((missing // 2, missing - missing // 2))
    inside = tuple(slice(low, low + size) for (low, _), size in zip(pads, data.shape[1:], strict=True))
    if any(pad != (0, 0) for pad in pads):
        _refuse_short(data.shape[1:], pads, sliding.padding_mode)
        if sliding.padding_mode == "constant":
            data = np.pad(data, [(0, 0), *pads], constant_values=sliding.cval)
        else:
            mode: Any = PAD_MODES[sliding.padding_mode]
            data = np.pad(data, [(0, 0), *pads], mode=mode)
    return data, (inside[0], inside[1], inside[2])


def _refuse_short(sizes: Sequence[int], pads: Sequence[tuple[int, int]], mode: str) -> None:
    """What torch refuses too: NumPy would mirror, or repeat, several times over."""
    for name, size, pad in zip("zyx", sizes, pads, strict=True):
        most = size - 1 if mode == "reflect" else size
        if mode in ("reflect", "circular") and max(pad) > most:
            raise InputError(
                f"the study has {size} voxels along {name} of the network's grid, too few to pad {max(pad)} by "
                f'padding_mode = "{mode}"; "replicate" and "constant" do not ask how many there are'
            )
