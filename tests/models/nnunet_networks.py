"""Random networks as plans of nnU-Net describe them, with weights that depend on their names alone.

Shared by the test against torch, the script that stores torch's answers, and the test against those.
"""

from __future__ import annotations

import json
import math
import random
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST_VOXELS = 1 << 12


@dataclass(frozen=True)
class Described:
    """A configuration of plans.json (what concerns the network), and what the dataset adds."""

    config: dict[str, Any]
    patch: tuple[int, ...]
    channels: int
    outputs: int

    def image(self) -> NDArray[np.float32]:
        """An input of the network."""
        seed = zlib.crc32(json.dumps(self.config, sort_keys=True).encode())
        size = (1, self.channels, *self.patch)
        return np.random.default_rng(seed).normal(size=size).astype(np.float32)


def described(rng: random.Random) -> Described:
    """2-D or 3-D, 2 to 7 stages, kernels and strides that differ from axis to axis, every norm and activation."""
    dimensions, stages = rng.choice((2, 3)), rng.randint(2, 7)
    residual = rng.random() < 0.5
    strides = [[1] * dimensions]
    total = [1] * dimensions
    for _ in range(stages - 1):
        stride = [rng.choice((1, 2, 2, 3)) for _ in range(dimensions)]
        if math.prod(total) * math.prod(stride) > MOST_VOXELS // 4:
            stride = [1] * dimensions
        strides.append(stride)
        total = [a * b for a, b in zip(total, stride, strict=True)]
    # What is never strided may be of any size; the coarsest stage must keep more than a voxel for a norm.
    patch = [rng.choice((2, 5, 7)) if n == 1 else n for n in total]
    axis = rng.randrange(dimensions)
    patch[axis] *= rng.choice((2, 3))
    kwargs: dict[str, Any] = {
        "n_stages": stages,
        "features_per_stage": [rng.randint(2, 7) for _ in range(stages)],
        "conv_op": f"torch.nn.modules.conv.Conv{dimensions}d",
        "kernel_sizes": [[rng.choice((1, 3, 3, 5)) for _ in range(dimensions)] for _ in range(stages)],
        "strides": strides,
        "n_blocks_per_stage" if residual else "n_conv_per_stage": [rng.randint(1, 3) for _ in range(stages)],
        "n_conv_per_stage_decoder": [rng.randint(1, 2) for _ in range(stages - 1)],
        "conv_bias": rng.random() < 0.7,
        "dropout_op": None,
        "dropout_op_kwargs": None,
        **_norm(rng, dimensions),
        **_activation(rng),
    }
    kind = "ResidualEncoderUNet" if residual else "PlainConvUNet"
    architecture = {
        "network_class_name": f"dynamic_network_architectures.architectures.unet.{kind}",
        "arch_kwargs": kwargs,
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }
    return Described({"architecture": architecture}, tuple(patch), rng.randint(1, 3), rng.randint(2, 5))


def _norm(rng: random.Random, dimensions: int) -> dict[str, Any]:
    kind = rng.choice(("instance", "instance", "batch", "none"))
    if kind == "none":
        return {"norm_op": None, "norm_op_kwargs": None}
    name = {"instance": "instancenorm.InstanceNorm", "batch": "batchnorm.BatchNorm"}[kind]
    affine = kind == "batch" or rng.random() < 0.8
    return {
        "norm_op": f"torch.nn.modules.{name}{dimensions}d",
        "norm_op_kwargs": {"eps": rng.choice((1e-5, 1e-3)), "affine": affine},
    }


def _activation(rng: random.Random) -> dict[str, Any]:
    if rng.random() < 0.25:
        return {"nonlin": "torch.nn.ReLU", "nonlin_kwargs": {"inplace": True}}
    given = rng.choice(({}, {"negative_slope": 0.2}))
    return {"nonlin": "torch.nn.LeakyReLU", "nonlin_kwargs": {"inplace": True, **given}}


def weight(name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """A weight of that name: convolutions that keep the size of their input, norms around one, variances above zero."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    values = rng.normal(size=shape)
    if len(shape) > 1:
        values *= math.sqrt(2 / math.prod(shape[1:]))
    elif name.endswith("running_var"):
        values = 0.5 + np.abs(values)
    elif name.endswith("norm.weight"):
        values = 1 + 0.2 * values
    else:
        values *= 0.2
    return values.astype(np.float32)
