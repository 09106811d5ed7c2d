"""denoise: one door to all filters that take noise away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from voxelrt.kernels.common.kernel import Array, Case, Kernel
from voxelrt.kernels.denoise.choice import Choice, choose
from voxelrt.kernels.denoise.methods import METHODS
from voxelrt.kernels.denoise.noise import estimate_noise
from voxelrt.kernels.denoise.oracle import denoise as oracle

__all__ = ["KERNEL", "METHODS", "Choice", "choose", "denoise", "estimate_noise", "to_dtype"]


def _case(shape: tuple[int, ...], method: str, noise: str = "gaussian", bench: bool = False, **options: Any) -> Case:
    def make(rng: np.random.Generator) -> tuple[Sequence[Any], Mapping[str, Any]]:
        volume = (100 + rng.normal(0, 10, shape)).astype(np.float32)
        sigma: float | Literal["auto"] = 8.0 if METHODS[method].uses_sigma else "auto"
        return (volume, choose(volume, method, noise=noise, sigma=sigma, options=options)), {}

    words = [method, noise, "x".join(map(str, shape)), *map(str, options.values())]
    return Case("-".join(words).replace(" ", ""), make, 1e-5, 0.0, 8.0 * float(np.prod(shape)), bench)


KERNEL = Kernel(
    name="denoise",
    oracle=oracle,
    cases=(
        *(_case((1, 1, 1), method) for method in METHODS),
        *(_case((2, 3, 5, 7), method) for method in METHODS),
        *(_case((9, 21), method) for method in METHODS),
        _case((17, 34, 19), "nlm", "rician", radius=(1, 2, 2)),
        _case((24, 32, 48), "nlm", radius=2, bench=True),
    ),
)


def denoise(
    volume: Array,
    method: str = "nlm",
    *,
    noise: str = "auto",
    sigma: float | Literal["auto"] = "auto",
    modality: str = "",
    unit: str = "voxels",
    spacing_mm: Sequence[float] | None = None,
    backend: str = "auto",
    **options: Any,
) -> Array:
    """Take noise out of an image.

    Parameters
    ----------
    volume : (Y, X), (Z, Y, X), (C, Z, Y, X) or (N, C, Z, Y, X), finite; each volume is filtered on its own.
    method : a name of ``METHODS``; ``README.md`` says what each is good for.
    noise : ``"gaussian"``, ``"rician"``, or ``"auto"``: Rician for an MR image of magnitudes, else Gaussian.
    sigma : the noise's standard deviation in the image's units, or ``"auto"``: estimated, for each volume.
    modality : DICOM's word, such as ``"MR"`` or ``"CT"``; decides what noise ``"auto"`` is.
    unit : of radii and widths, ``"voxels"`` or ``"mm"``. In mm, a radius holds the voxels whose centres are within it,
        along each axis by its own spacing.
    spacing_mm : (z, y, x), for mm.
    backend : see ``Kernel``.
    options : the method's own, such as ``radius=3``; one number or (z, y, x) for lengths.

    Returns
    -------
    volume : the same shape and dtype. Everything is computed in float32; integers are rounded to the nearest (halves to
        even) and kept within what the dtype holds.

    Raises
    ------
    UsageError : an unknown method, noise, unit or option; a value out of range; voxels that are not finite; Rician
        noise asked for where voxels are negative or the method has no form for it; too few voxels for an estimate.
    ShapeError : other axes.
    """
    choice = choose(
        volume, method, noise=noise, sigma=sigma, modality=modality, unit=unit, spacing_mm=spacing_mm, options=options
    )
    return to_dtype(KERNEL.backend("cpu")(volume, choice, "cpu" if backend == "auto" else backend), volume.dtype)


def to_dtype(filtered: Array, dtype: np.dtype[Any]) -> Array:
    """A float32 answer in the image's own dtype: integers rounded to the nearest and kept within its range."""
    if dtype.kind not in "iu":
        return filtered.astype(dtype, copy=False)
    limits = np.iinfo(dtype)
    # Past 2^24 float32 has no fractions; the bounds are compared in float64, which holds those of 32 bits exactly.
    rounded = np.rint(filtered).astype(np.float64)
    top = np.nextafter(float(limits.max) + 1, 0) if dtype.itemsize == 8 else float(limits.max)
    return np.clip(rounded, float(limits.min), top).astype(dtype)
