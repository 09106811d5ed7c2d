"""nnU-Net's networks as its planners configure them, with seeded weights: what benches compile.

Convolutions follow He et al. (2015) for LeakyReLU; gammas and betas of norms scatter as training leaves them. Sources:
Isensee et al., "nnU-Net", Nature Methods 18, 2021 (2d, 3d_fullres); "nnU-Net Revisited", MICCAI 2024 (ResEnc M).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from voxelrt.models.architectures.unet3d import FEATURES
from voxelrt.models.formats.nnunet_network import Architecture, network

FEATURES_2D = (32, 64, 128, 256, 512, 512, 512, 512)
RESIDUAL_BLOCKS = (1, 3, 4, 6, 6, 6)
Array = NDArray[Any]


def build_residual_unet3d(
    patch: Sequence[int] = (128, 128, 128), features: Sequence[int] = FEATURES, classes: int = 5, seed: int = 0
) -> ir.Model:
    """ResidualEncoderUNet as nnUNetPlannerResEncM does: "image" (1, 1, Z, Y, X) -> "logits" (1, classes, Z, Y, X)."""
    blocks = RESIDUAL_BLOCKS[: len(features)]
    return network(_architecture("ResidualEncoderUNet", 3, features, blocks, 1), [_drawn(seed)], 1, classes, patch)


def build_unet2d(
    patch: Sequence[int] = (512, 512), features: Sequence[int] = FEATURES_2D, classes: int = 5, seed: int = 0
) -> ir.Model:
    """PlainConvUNet as nnU-Net plans 2d for 512²: "image" (1, 1, Y, X) -> "logits" (1, classes, Y, X)."""
    blocks = (2,) * len(features)
    return network(_architecture("PlainConvUNet", 2, features, blocks, 2), [_drawn(seed)], 1, classes, patch)


def _architecture(
    kind: Any, dimensions: int, features: Sequence[int], encoder: Sequence[int], decoder: int
) -> Architecture:
    stages = len(features)
    strides = ((1,) * dimensions, *((2,) * dimensions,) * (stages - 1))
    kernels = ((3,) * dimensions,) * stages
    return Architecture(kind, dimensions, tuple(features), kernels, strides, tuple(encoder), (decoder,) * (stages - 1))


def _drawn(seed: int) -> Callable[[str, tuple[int, ...]], Array]:
    """Weights by name and shape, in the order they are asked for; each is drawn once."""
    rng, known = np.random.default_rng(seed), dict[str, Array]()

    def draw(name: str, shape: tuple[int, ...]) -> Array:
        if name.endswith(".norm.weight"):
            return np.exp(rng.normal(0.0, 0.25, shape))
        if name.endswith(".bias"):
            return rng.normal(0.0, 0.2 if name.endswith(".norm.bias") else 0.05, shape)
        is_up = ".transpconvs." in name
        fan_in = shape[0] if is_up else math.prod(shape[1:])
        gain = 1.0 if is_up or ".seg_layers." in name else math.sqrt(2.0)
        return rng.standard_normal(shape) * (gain / math.sqrt(fan_in))

    def get(name: str, shape: tuple[int, ...]) -> Array:
        if name not in known:
            known[name] = np.ascontiguousarray(draw(name, shape), np.float32)
        return known[name]

    return get
