"""gather: wrong indices are errors, never reads or writes elsewhere."""

from __future__ import annotations

import numpy as np
import pytest

from voxelrt.errors import ShapeError, VoxelRTError
from voxelrt.kernels.common import native
from voxelrt.kernels.gather import gather

DATA = np.arange(12, dtype=np.float32).reshape(3, 4)


@pytest.mark.parametrize("wrong", [3, -4, 2**31 - 1, -(2**31)])
@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_indices_out_of_range(wrong: int, dtype: type) -> None:
    index = np.array([0, wrong], dtype)
    with pytest.raises(VoxelRTError, match="out of range"):
        gather("Gather", DATA, index)
    with pytest.raises(VoxelRTError, match="out of range"):
        gather("GatherElements", DATA, index[:, None])
    with pytest.raises(VoxelRTError, match="out of range"):
        gather("GatherND", DATA, index[:, None])
    with pytest.raises(VoxelRTError, match="out of range"):
        gather("ScatterElements", DATA, index[:, None], np.ones((2, 1), np.float32))
    with pytest.raises(VoxelRTError, match="out of range"):
        gather("ScatterND", DATA, index[:, None], np.ones((2, 4), np.float32))


def test_nothing_can_be_picked_of_an_empty_axis() -> None:
    with pytest.raises(VoxelRTError, match="out of range"):
        gather("Gather", np.ones((0, 3), np.float32), np.array([0]))


def test_refusals() -> None:
    with pytest.raises(ShapeError, match="int32 or int64"):
        gather("Gather", DATA, np.array([0.0]))
    with pytest.raises(ShapeError):
        gather("GatherElements", DATA, np.zeros((3, 5), np.int64))
    with pytest.raises(ShapeError):
        gather("ScatterND", DATA, np.zeros((2, 1), np.int64), np.ones((2, 3), np.float32))
    out = np.ones((2, 4), np.float32)
    for start, step in ((2, 1), (0, 3), (1, -2), (-1, 1), (0, 2**62)):
        with pytest.raises(ShapeError, match="leaves the input"):
            native.run_kernel("gather.slice", [DATA], [out], start=[start, *[0] * 7], step=[step, *[1] * 7])
