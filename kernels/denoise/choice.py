"""What "auto" means: the noise's kind from the modality, its strength from the image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from voxelrt.errors import UsageError
from voxelrt.kernels.common.kernel import Array
from voxelrt.kernels.common.volumes import as_volumes, check_volume, positive
from voxelrt.kernels.denoise.methods import NOISES, method_of, resolve_options
from voxelrt.kernels.denoise.noise import estimate_noise


@dataclass(frozen=True)
class Choice:
    """All that decides an answer.

    Parameters
    ----------
    method, noise : resolved names.
    sigmas : the noise's deviation in each volume of the array, in image units; empty where the method needs none. 0
        means that nothing varies and nothing is done.
    options : of the method, lengths in voxels.
    reasons : why, for people, one sentence for each automatic choice.
    """

    method: str
    noise: str
    sigmas: tuple[float, ...]
    options: Mapping[str, Any]
    reasons: tuple[str, ...]


def choose(
    volume: Array,
    method: str,
    *,
    noise: str = "auto",
    sigma: float | Literal["auto"] = "auto",
    modality: str = "",
    unit: str = "voxels",
    spacing_mm: Sequence[float] | None = None,
    options: Mapping[str, Any] | None = None,
) -> Choice:
    """Settle everything that is "auto". Arguments and errors are those of ``denoise``."""
    check_volume(volume, "denoise")
    if volume.dtype == np.bool_:
        raise UsageError("denoise takes an image; this array is a mask (bool)")
    _check_finite(volume)
    way = method_of(method)
    made = resolve_options(method, options or {}, unit=unit, spacing_mm=spacing_mm)
    reasons = []
    if noise == "auto":
        noise, reason = _noise_of(volume, method, modality)
        reasons.append(reason)
    elif noise not in NOISES:
        raise UsageError(f"noise is {noise!r}; it is auto, {' or '.join(NOISES)}")
    elif noise == "rician" and not way.rician:
        raise UsageError(f"{method} has no form for Rician noise; use nlm, or noise='gaussian'")
    if noise == "rician" and volume.size and float(volume.min()) < 0:
        count = int(np.count_nonzero(volume < 0))
        raise UsageError(
            f"noise='rician' is of magnitudes, and {count} voxels are negative (lowest {float(volume.min()):g}); "
            "use noise='gaussian'"
        )
    sigmas: tuple[float, ...] = ()
    if not way.uses_sigma:
        if sigma != "auto":
            raise UsageError(f"{method} does not use sigma; leave it away")
    elif sigma == "auto":
        sigmas = tuple(estimate_noise(one, noise) for one in as_volumes(volume))
        reasons.append(f"sigma {', '.join(f'{s:.4g}' for s in sigmas)}: estimated from the image")
    else:
        sigmas = (positive(sigma, "sigma"),) * len(as_volumes(volume))
    return Choice(method, noise, sigmas, made, tuple(reasons))


def _noise_of(volume: Array, method: str, modality: str) -> tuple[str, str]:
    if not method_of(method).rician:
        return "gaussian", f"noise gaussian: {method} has no other form"
    if modality != "MR":
        return "gaussian", f"noise gaussian: the modality is {modality or 'not known'}"
    if volume.size and float(volume.min()) < 0:
        return "gaussian", "noise gaussian: an MR image, but with negative voxels, so not of magnitudes"
    return "rician", "noise rician: an MR image of magnitudes"


def _check_finite(volume: Array) -> None:
    if volume.dtype.kind in "iu":
        return
    bad = int(volume.size - np.count_nonzero(np.isfinite(volume.astype(np.float32, copy=False))))
    if bad:
        raise UsageError(f"{bad} of {volume.size} voxels are NaN, infinite or past float32; replace them first")
