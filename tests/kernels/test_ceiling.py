"""ceiling: by hand, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

from voxelrt.errors import ShapeError
from voxelrt.kernels.ceiling import ceiling
from voxelrt.kernels.ceiling.oracle import ceiling as oracle
from voxelrt.kernels.common import native


def test_by_hand() -> None:
    x = np.array([1.0, -2.0, 0.5], np.float32)
    for function in (ceiling, oracle):  # x/2 + 2, twice: 1 -> 2.5 -> 3.25
        np.testing.assert_array_equal(function(x, rounds=2, factor=0.5, addend=2.0), [3.25, 2.5, 3.125])
        np.testing.assert_array_equal(function(x), x)


def test_refusals() -> None:
    with pytest.raises(ShapeError):
        ceiling(np.ones((2, 3), np.float32), rounds=1)
    with pytest.raises(ShapeError):
        ceiling(np.ones(8, np.float64))
    x = np.ones(8, np.float32)
    with pytest.raises(ShapeError, match="negative"):
        native.run_kernel("ceiling.fma", [x], [x.copy()], rounds=-1, factor=1.0, addend=0.0)
    with pytest.raises(ShapeError, match="elements"):
        native.run_kernel("ceiling.copy", [x], [np.ones(7, np.float32)], streaming=1)
