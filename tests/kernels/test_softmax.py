"""softmax in plans: the channels of a blocked volume."""

from __future__ import annotations

import numpy as np
import pytest

from tests.kernels.blocked import answer, blocked, output
from voxelrt.errors import ShapeError
from voxelrt.kernels.common import native
from voxelrt.kernels.softmax import softmax
from voxelrt.kernels.softmax.codes import FUNCTIONS


@pytest.mark.parametrize("channels", [1, 5, 16, 19, 40])
@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax"])
def test_channels_of_a_blocked_volume(op: str, channels: int) -> None:
    x = np.random.default_rng(0).normal(-4, 3, size=(2, channels, 3, 5, 7)).astype(np.float32)
    out = output(x.shape)
    native.run_kernel("softmax", [blocked(x)], [out], op=FUNCTIONS.index(op), axis=1)
    np.testing.assert_allclose(answer(out), softmax(x, axis=1, op=op), rtol=2e-6, atol=1e-7)


def test_refusals() -> None:
    with pytest.raises(ShapeError):
        softmax(np.ones((2, 3), np.int32))
    x = np.ones((1, 3, 2, 2, 2), np.float32)
    with pytest.raises(ShapeError):
        native.run_kernel("softmax", [blocked(x)], [output(x.shape)], op=0, axis=2)
