"""pad in plans: blocked volumes."""

from __future__ import annotations

import numpy as np
import pytest

from tests.kernels.blocked import answer, blocked, output
from voxelrt.errors import ShapeError
from voxelrt.kernels.common import native
from voxelrt.kernels.pad import pad
from voxelrt.kernels.pad.codes import MODES


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("channels", [16, 19])
def test_blocked_volumes(mode: str, channels: int) -> None:
    x = np.random.default_rng(0).normal(size=(2, channels, 3, 4, 5)).astype(np.float32)
    expected = pad(x, ((0, 0), (0, 0), (1, 2), (0, 3), (2, 0)), mode=mode)
    out = output(expected.shape)
    native.run_kernel("pad", [blocked(x)], [out], mode=MODES.index(mode), begin=[0, 0, 1, 0, 2, 0, 0, 0])
    np.testing.assert_array_equal(answer(out), expected)


def test_refusals() -> None:
    with pytest.raises(ShapeError, match="empty"):
        pad(np.ones((0, 3), np.float32), ((1, 0), (0, 0)), mode="edge")
    x = blocked(np.ones((1, 3, 2, 2, 2), np.float32))
    with pytest.raises(ShapeError, match="in space"):
        native.run_kernel("pad", [x], [output((1, 4, 2, 2, 2))], mode=0, begin=[0] * 8)
