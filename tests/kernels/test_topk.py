"""topk: what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

from voxelrt.errors import ShapeError
from voxelrt.kernels.topk import topk


def test_more_than_there_are() -> None:
    with pytest.raises(ShapeError, match="axis 1"):
        topk(np.ones((2, 3), np.float32), 4)
