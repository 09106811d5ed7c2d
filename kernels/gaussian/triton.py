"""gaussian in Triton: one launch an axis, the weights read from memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import triton
import triton.language as tl

from voxelrt.kernels.common.gpu.program import Program
from voxelrt.kernels.common.gpu.triton_volume import BLOCK, blocks, clamped, lanes
from voxelrt.kernels.common.kernel import Array
from voxelrt.kernels.common.volumes import as_volumes, spatial_values
from voxelrt.kernels.gaussian.weights import gaussian_weights


@triton.jit
def _along(out, volume, weights, count, size, stride, radius, BLOCK: tl.constexpr):
    i = lanes(BLOCK)
    inside = i < count
    here = i // stride % size
    total = tl.zeros((BLOCK,), tl.float32)
    for k in range(-radius, radius + 1):
        value = tl.load(volume + i + (clamped(here + k, size) - here) * stride, mask=inside, other=0.0)
        total = tl.fma(value, tl.load(weights + k + radius), total)
    tl.store(out + i, total, mask=inside)


def program(volume: Array, sigma: float | Sequence[float], *, truncate: float = 4.0) -> Program:
    sigmas = spatial_values(sigma, "sigma")
    if volume.ndim == 2:
        sigmas = (0.0, *sigmas[1:])
    made = Program(__file__)
    here = made.input(as_volumes(volume))
    answer = made.output(here.shape)
    made.finish(lambda found: found.reshape(volume.shape))
    for axis in (2, 1, 0):
        weights = gaussian_weights(sigmas[axis], truncate).astype(np.float32)
        there = answer if axis == 0 else made.scratch(here.shape)
        if weights.size == 1 and axis:
            continue
        numbers = (answer.size, here.shape[1 + axis], here.strides[1 + axis], weights.size // 2)
        made.launch(_along, blocks(answer.size), there, here, made.input(weights), *numbers, BLOCK=BLOCK)
        here = there
    return made
