"""The noise that deepbrain's network was shown under TensorFlow: integer arithmetic, the same with every NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np

SIZE = 128


def noise(seed: int = 1) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Coarse noise, one value for each block of 32 voxels, with fine noise on top; a quarter-million brain voxels.

    Every voxel is (9 coarse + fine) / 2560 with both on 0..255: SplitMix64 of the voxel's number (Steele, Lea and
    Flood 2014). Fine noise alone would say little: the network answers 0 nearly everywhere.
    """
    z = np.arange(1, SIZE**3 + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(seed)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    fine = (z >> np.uint64(56)).astype(np.float32)
    coarse = fine[:64].reshape(4, 4, 4).repeat(32, 0).repeat(32, 1).repeat(32, 2)
    return ((9 * coarse + fine.reshape(coarse.shape)) / np.float32(2560)).reshape(1, SIZE, SIZE, SIZE, 1)
