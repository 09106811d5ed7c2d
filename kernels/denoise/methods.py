"""The methods of denoise: what each is called, which options it has, and what it does with the noise."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from voxelrt.errors import UsageError
from voxelrt.kernels.anisotropic_diffusion import KERNEL as DIFFUSION
from voxelrt.kernels.bilateral import KERNEL as BILATERAL
from voxelrt.kernels.common.kernel import Array
from voxelrt.kernels.curvature_flow import KERNEL as CURVATURE_FLOW
from voxelrt.kernels.gaussian import KERNEL as GAUSSIAN
from voxelrt.kernels.median import KERNEL as MEDIAN
from voxelrt.kernels.non_local_means import KERNEL as NON_LOCAL_MEANS
from voxelrt.kernels.non_local_means_blocks import KERNEL as NON_LOCAL_MEANS_BLOCKS
from voxelrt.kernels.total_variation import KERNEL as TOTAL_VARIATION

NOISES = ("gaussian", "rician")
UNITS = ("voxels", "mm")


@dataclass(frozen=True)
class Method:
    """One way to denoise.

    Parameters
    ----------
    title : for people.
    call : (function of the kernel, volume (B, Z, Y, X), sigma, noise, options) -> volume.
    kernel : whose oracle and backends `call` is given.
    options : name -> default.
    radii, widths : which options are lengths, in whole voxels and in fractions.
    uses_sigma : whether the noise's strength matters.
    rician : whether the bias of magnitudes is taken away.
    slow : whether the native kernel works in pieces and tells its progress.
    """

    title: str
    call: Callable[..., Array]
    kernel: Any
    options: Mapping[str, Any] = field(default_factory=dict)
    radii: tuple[str, ...] = ()
    widths: tuple[str, ...] = ()
    uses_sigma: bool = False
    rician: bool = False
    slow: bool = False


def _non_local(run: Callable[..., Array], volume: Array, sigma: float, noise: str, options: Mapping[str, Any]) -> Array:
    return run(
        volume,
        sigma,
        search=options["radius"],
        patch=options["patch"],
        strength=options["strength"],
        noise=noise,
    )


def _median(run: Callable[..., Array], volume: Array, sigma: float, noise: str, options: Mapping[str, Any]) -> Array:
    return run(volume, radius=options["radius"])


def _gaussian(run: Callable[..., Array], volume: Array, sigma: float, noise: str, options: Mapping[str, Any]) -> Array:
    return run(volume, options["width"], truncate=4.0)


def _bilateral(run: Callable[..., Array], volume: Array, sigma: float, noise: str, options: Mapping[str, Any]) -> Array:
    return run(volume, options["width"], options["strength"] * sigma)


def _total_variation(
    run: Callable[..., Array], volume: Array, sigma: float, noise: str, options: Mapping[str, Any]
) -> Array:
    return run(volume, options["strength"] * sigma, iterations=options["iterations"])


def _scheme(run: Callable[..., Array], volume: Array, sigma: float, noise: str, options: Mapping[str, Any]) -> Array:
    return run(volume, **options)


METHODS: Mapping[str, Method] = {
    "nlm": Method(
        "non-local means",
        _non_local,
        NON_LOCAL_MEANS,
        {"radius": 5, "patch": 1, "strength": 1.0},
        radii=("radius", "patch"),
        uses_sigma=True,
        rician=True,
        slow=True,
    ),
    "nlm-blocks": Method(
        "non-local means of blocks",
        _non_local,
        NON_LOCAL_MEANS_BLOCKS,
        {"radius": 5, "patch": 1, "strength": 1.0},
        radii=("radius", "patch"),
        uses_sigma=True,
        rician=True,
        slow=True,
    ),
    "median": Method("median", _median, MEDIAN, {"radius": 1}, radii=("radius",)),
    "gaussian": Method("Gaussian", _gaussian, GAUSSIAN, {"width": 1.0}, widths=("width",)),
    "bilateral": Method(
        "bilateral",
        _bilateral,
        BILATERAL,
        {"width": 1.0, "strength": 2.5},
        widths=("width",),
        uses_sigma=True,
    ),
    "tv": Method(
        "total variation", _total_variation, TOTAL_VARIATION, {"strength": 1.0, "iterations": 200}, uses_sigma=True
    ),
    "diffusion": Method(
        "anisotropic diffusion",
        _scheme,
        DIFFUSION,
        {"conductance": 1.0, "step": 0.0625, "iterations": 5, "spacing": (1.0, 1.0, 1.0)},
    ),
    "curvature-flow": Method(
        "curvature flow", _scheme, CURVATURE_FLOW, {"step": 0.0625, "iterations": 5, "spacing": (1.0, 1.0, 1.0)}
    ),
}


def method_of(name: str) -> Method:
    """Raises UsageError for a name that no method has."""
    if name not in METHODS:
        raise UsageError(f"there is no method {name!r} to denoise with; there are {', '.join(METHODS)}")
    return METHODS[name]


def resolve_options(
    name: str, given: Mapping[str, Any], *, unit: str, spacing_mm: Sequence[float] | None
) -> dict[str, Any]:
    """A method's options, all of them, lengths in voxels.

    A radius in mm holds the voxels whose centres lie within it, along each axis by its own spacing. Defaults are in
    voxels whatever the unit.

    Raises
    ------
    UsageError : an option that the method does not have, an unknown unit, mm without a spacing.
    """
    method = method_of(name)
    for key in given:
        if key not in method.options:
            near = difflib.get_close_matches(key, method.options, 1)
            meant = f"; did you mean {near[0]}?" if near else ""
            raise UsageError(f"{name} has no option {key!r}; it has {', '.join(method.options) or 'none'}{meant}")
    if unit not in UNITS:
        raise UsageError(f"unit is {unit!r}; it is one of {', '.join(UNITS)}")
    made = {**method.options, **given}
    if "spacing" in made and "spacing" not in given and spacing_mm is not None:
        # In units of the finest axis, so that the same step is stable whatever the scanner's.
        made["spacing"] = tuple(float(s) / min(spacing_mm) for s in spacing_mm)
    if unit == "mm":
        if spacing_mm is None or len(spacing_mm) != 3 or not all(s > 0 for s in spacing_mm):
            raise UsageError(f"lengths in mm need spacing_mm=(z, y, x), three numbers above 0; it is {spacing_mm!r}")
        for key in (*method.radii, *method.widths):
            if key in given:
                value = given[key]
                lengths = [float(value)] * 3 if isinstance(value, (int, float)) else [float(v) for v in value]
                voxels = [length / s for length, s in zip(lengths, spacing_mm, strict=True)]
                made[key] = tuple(int(v + 1e-6) for v in voxels) if key in method.radii else tuple(voxels)
    return made
