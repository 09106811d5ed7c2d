"""Offsets past 2³¹ elements: arrays that the system promises and only few pages of which are ever touched."""

from __future__ import annotations

import numpy as np
import pytest

from voxelrt.errors import MissingExtraError
from voxelrt.kernels import stitch, warp3d
from voxelrt.kernels.common.kernel import Array

EDGE = 1300  # cubed is 1.02 · 2³¹


def _promised(shape: tuple[int, ...], dtype: type) -> Array:
    try:
        return np.zeros(shape, dtype)
    except MemoryError:
        pytest.skip(f"the system does not promise {np.prod(shape) * np.dtype(dtype).itemsize / 2**30:.0f} GiB")


@pytest.mark.parametrize(("order", "labels"), [(0, False), (1, False), (1, True)])
def test_warp_of_a_volume_of_more(order: int, labels: bool) -> None:
    volume = _promised((1, 1, EDGE, EDGE, EDGE), np.uint8)
    corner = np.random.default_rng(0).integers(1, 255, (3, 4, 40), np.uint8)
    volume[0, 0, -3:, -4:, -40:] = corner
    affine = np.concatenate([np.eye(3), [[EDGE - 3.0], [EDGE - 4.0], [EDGE - 40.0]]], axis=1)
    found = warp3d(volume, affine=affine, shape=corner.shape, order=order, labels=labels)
    np.testing.assert_array_equal(found[0, 0], corner)


@pytest.mark.parametrize("backend", ["cpu", "numba"])
def test_stitch_into_a_slab_of_more(backend: str) -> None:
    slab = _promised((3, 2, 24000, 24000), np.float32)
    window = slab[:, :, -5:, -37:]  # the last plane begins 2.3e9 elements behind the first
    rng = np.random.default_rng(0)
    logits, weights = rng.normal(size=(2, 3, 5, 37)).astype(np.float32), rng.random((3, 5, 37)).astype(np.float32)
    try:
        stitch(window, logits, weights, out=window, backend=backend)
    except MissingExtraError as error:
        pytest.skip(str(error))
    np.testing.assert_allclose(slab[:, :, -5:, -37:], logits.swapaxes(0, 1) * weights[:, None], rtol=1e-6)
    assert not slab[:, :, -6].any()
