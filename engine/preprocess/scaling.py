"""A channel's intensities as nnU-Net v2 scales them (its ``normalization/default_normalization_schemes.py``)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxelrt.errors import InputError
from voxelrt.models.nnunet_settings import Normalisation

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]
Scaling = Callable[[int], Floats]  # plane -> (Y, X), scaled


def scaling(image: NDArray[Any], mask: Mask | None, how: Normalisation, name: str) -> Scaling:
    """How the planes of one channel (Z, Y, X) are scaled by its scheme. Raises InputError."""
    lowest, highest = float(image.min()), float(image.max())
    if how.scheme == "z-score":
        inside = mask if how.only_inside_mask else None
        mean, deviation = _moments(image, inside)
        divisor = max(deviation, 1e-8)

        def z_score(z: int) -> Floats:
            plane: Floats = (image[z].astype(np.float32) - np.float32(mean)) / np.float32(divisor)
            if inside is not None:
                plane[~inside[z]] = image[z][~inside[z]]
            return plane

        return z_score
    if how.scheme == "rgb-to-0-1" and (lowest < 0 or highest > 255):
        raise InputError(f"{name}: an RGB channel has values from 0 to 255, not {lowest:g} to {highest:g}")
    shift, divisor = {
        "ct": (how.mean, max(how.deviation, 1e-8)),
        "rescale-0-1": (lowest, max(highest - lowest, 1e-8)),
        "rgb-to-0-1": (0.0, 255.0),
        "none": (0.0, 1.0),
    }[how.scheme]

    def linear(z: int) -> Floats:
        plane = image[z].astype(np.float32)
        if how.scheme == "ct":
            np.clip(plane, how.lower, how.upper, out=plane)
        scaled: Floats = (plane - np.float32(shift)) / np.float32(divisor)
        return scaled

    return linear


def _moments(image: NDArray[Any], mask: Mask | None) -> tuple[float, float]:
    """Mean and deviation inside the mask, in two passes over its planes; 0 and 1 where there is nothing."""

    def planes() -> Iterator[NDArray[np.float64]]:
        for z in range(len(image)):
            plane = image[z] if mask is None else image[z][mask[z]]
            yield plane.astype(np.float64)

    count = image.size if mask is None else int(mask.sum())
    if count == 0:
        return 0.0, 1.0
    mean = sum(float(plane.sum()) for plane in planes()) / count
    return mean, (sum(float(((plane - mean) ** 2).sum()) for plane in planes()) / count) ** 0.5
