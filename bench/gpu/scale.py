"""How large the rows are, in full and for a quick look, and what they work on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from bench.gpu.contest import Array
from voxelrt.models.architectures.unet3d import FEATURES, FEATURES_SMALL

Size = tuple[int, int, int]


@dataclass(frozen=True)
class Scale:
    """How large the rows are: a window's edge and the network's features, a study, and edges of volumes for kernels."""

    edge: int
    features: tuple[int, ...]
    study: Size
    warp: int
    velocity: int
    steps: int
    noisy: int
    search: int


FULL = Scale(128, FEATURES, (190, 400, 400), warp=256, velocity=128, steps=7, noisy=128, search=5)
QUICK = Scale(64, FEATURES_SMALL, (96, 128, 128), warp=64, velocity=32, steps=7, noisy=32, search=2)


@cache
def noise(shape: tuple[int, ...]) -> Array:
    """Normal noise, the same each time."""
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)
