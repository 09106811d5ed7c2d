"""Intensity scaling that recipes name."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxelrt.errors import InputError
from voxelrt.models.recipe_schema import Intensity


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


def scale(array: NDArray[Any], intensity: Intensity) -> NDArray[Any]:
    """Scale the intensities of each channel as a recipe's ``[input.intensity]`` says.

    Parameters
    ----------
    array
        (C, Z, Y, X), any real dtype.
    intensity
        ``divide-by-maximum``; ``minimum-maximum`` to 0..1; ``z-score``, mean 0 and standard deviation 1;
        ``z-score-nonzero``, the same over the voxels that are not 0, which stay 0; ``window``, cut to lower..upper and
        brought to 0..1; ``none``.

    Returns
    -------
    scaled : float32 (float64 stays), its own memory unless nothing is done.

    Raises
    ------
    InputError : the image is constant, or empty, so that the scaling has no meaning.
    """
    if intensity.scaling == "none":
        return array
    return np.stack([_scale_channel(channel, intensity) for channel in array])


def _scale_channel(channel: NDArray[Any], intensity: Intensity) -> NDArray[Any]:
    if intensity.scaling == "divide-by-maximum":
        return divide_by_maximum(channel)
    scaled: NDArray[Any] = channel.astype(np.float64 if channel.dtype == np.float64 else np.float32)
    if intensity.scaling == "window":
        assert intensity.lower is not None
        assert intensity.upper is not None
        np.clip(scaled, intensity.lower, intensity.upper, out=scaled)
        return (scaled - intensity.lower) / (intensity.upper - intensity.lower)
    if intensity.scaling == "minimum-maximum":
        low, width = float(scaled.min()), float(np.ptp(scaled))
        return (scaled - low) / _not_constant(width, "minimum-maximum")
    counted = scaled[scaled != 0] if intensity.scaling == "z-score-nonzero" else scaled
    # Sums of millions of voxels need more digits than float32 has.
    width = float(counted.std(dtype=np.float64)) if counted.size else 0.0
    centred = (scaled - float(counted.mean(dtype=np.float64) if counted.size else 0)) / _not_constant(width, "z-score")
    return np.where(scaled != 0, centred, 0) if intensity.scaling == "z-score-nonzero" else centred


def _not_constant(width: float, scaling: str) -> float:
    if not np.isfinite(width) or width <= 0:
        raise InputError(f"the image is constant (spread {width:g}); scaling {scaling} needs different values")
    return width
