"""non_local_means in numba: of one offset a whole plane at a time, with box sums along z, y and x."""

from __future__ import annotations

import math

import numba
import numpy as np

from voxelrt.kernels.common.kernel import Array
from voxelrt.kernels.common.numba_parts import in_parts
from voxelrt.kernels.common.volumes import as_volumes, radii
from voxelrt.kernels.common.windows import Triple


@numba.njit(nogil=True, cache=True)
def _planes(begin, end, volume, mirrored, search, near, width, bias, squares, noise, out):
    """Planes begin to end; `mirrored` is the volume with the patches' radii added at every face."""
    depth, rows, columns = volume.shape
    pz, py, px = near
    share = np.float32(1.0 / ((2 * pz + 1) * (2 * py + 1) * (2 * px + 1)))
    along_z = np.empty((rows + 2 * py, columns + 2 * px), np.float32)
    along_y = np.empty(columns + 2 * px, np.float32)
    total, weights = np.empty((rows, columns), np.float32), np.empty((rows, columns), np.float32)
    for z in range(begin, end):
        total[:, :] = 0
        weights[:, :] = 0
        for oz in range(max(-search[0], -z), min(search[0], depth - 1 - z) + 1):
            for oy in range(-min(search[1], rows - 1), min(search[1], rows - 1) + 1):
                for ox in range(-min(search[2], columns - 1), min(search[2], columns - 1) + 1):
                    # Voxels (y, x) whose partner (y + oy, x + ox) is in the volume, and their patches.
                    y0, y1, x0, x1 = max(0, -oy), rows - max(0, oy), max(0, -ox), columns - max(0, ox)
                    for y in range(y0, y1 + 2 * py):
                        for x in range(x0, x1 + 2 * px):
                            along_z[y, x] = 0
                        for k in range(2 * pz + 1):
                            for x in range(x0, x1 + 2 * px):
                                d = mirrored[z + k, y, x] - mirrored[z + oz + k, y + oy, x + ox]
                                along_z[y, x] += d * d
                    for y in range(y0, y1):
                        for x in range(x0, x1 + 2 * px):
                            along_y[x] = along_z[y, x]
                        for k in range(1, 2 * py + 1):
                            for x in range(x0, x1 + 2 * px):
                                along_y[x] += along_z[y + k, x]
                        for x in range(x0, x1):
                            d = along_y[x]
                            for k in range(1, 2 * px + 1):
                                d += along_y[x + k]
                            weight = math.exp(-max(d * share - bias, np.float32(0.0)) * width)
                            value = volume[z + oz, y + oy, x + ox]
                            total[y, x] += weight * (value * value if squares else value)
                            weights[y, x] += weight
        for y in range(rows):
            for x in range(columns):
                mean = total[y, x] / weights[y, x]
                out[z, y, x] = math.sqrt(max(mean - noise, np.float32(0.0))) if squares else mean


def run(
    volume: Array,
    sigma: float,
    *,
    search: Triple = 5,
    patch: Triple = 1,
    strength: float = 1.0,
    noise: str = "gaussian",
    subtract_noise: bool = False,
) -> Array:
    given = as_volumes(volume)
    near = radii(patch, volume, "patch")
    out = np.empty(given.shape, np.float32)
    noise_of = np.float32(2 * sigma**2)
    options = (np.float32(1 / (strength * sigma) ** 2), noise_of if subtract_noise else np.float32(0))
    for one, answer in zip(given, out, strict=True):
        if one.size:
            mirrored = np.pad(one, [(r, r) for r in near], mode="reflect")
            far = radii(search, volume, "search")
            in_parts(_planes, one.shape[0], one, mirrored, far, near, *options, noise == "rician", noise_of, answer)
    return out.reshape(volume.shape)
