"""Intensity scaling that recipes name."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxelrt.errors import InputError


def divide_by_maximum(array: NDArray[Any]) -> NDArray[Any]:
    """Divide by the largest value, so that it becomes 1. Float64 stays, all else becomes float32.

    Raises
    ------
    InputError : the largest value is not a positive finite number (an empty or damaged image).
    """
    highest = float(array.max()) if array.size else 0.0
    if not np.isfinite(highest) or highest <= 0:
        raise InputError(f"the image's largest value is {highest:g}; dividing by the maximum needs a positive one")
    scaled: NDArray[Any] = array.astype(np.float64 if array.dtype == np.float64 else np.float32)
    np.divide(scaled, highest, out=scaled)
    return scaled
