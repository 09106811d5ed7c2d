"""What kernels that filter volumes share: the axes they take, and radii."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from voxelrt.errors import ShapeError, UsageError
from voxelrt.kernels.common import native
from voxelrt.kernels.common.kernel import Array, Case
from voxelrt.kernels.common.windows import Triple, triple


def check_volume(volume: Array, what: str) -> None:
    """A volume has the axes (Y, X), (Z, Y, X), (C, Z, Y, X) or (N, C, Z, Y, X), of real numbers.

    Raises
    ------
    ShapeError : another number of axes.
    UsageError : complex numbers, text, objects.
    """
    if not 2 <= volume.ndim <= 5:
        raise ShapeError(f"{what} takes (Y, X) to (N, C, Z, Y, X); this array has the shape {volume.shape}")
    if volume.dtype.kind not in "biuf" and volume.dtype.name != "bfloat16":
        raise UsageError(f"{what} takes real numbers, not {volume.dtype}")


def as_volumes(volume: Array) -> Array:
    """(B, Z, Y, X) float32 without gaps; a copy only where it has to be. An image (Y, X) is a volume of one slice."""
    spatial = volume.shape[-3:] if volume.ndim >= 3 else (1, *volume.shape)
    batch = int(np.prod(volume.shape[:-3]))
    made: Array = np.ascontiguousarray(volume, np.float32).reshape(batch, *spatial)
    return made


def filtered(name: str, volume: Array, **parameters: Any) -> Array:
    """Run a native kernel that maps volumes (B, Z, Y, X) to volumes; the answer has the given shape, float32."""
    given = as_volumes(volume)
    out = native.aligned_empty(given.shape, np.float32)
    native.run_kernel(name, [given], [out], **parameters)
    return out.reshape(volume.shape)


def each_volume(function: Callable[[Array], Array], volume: Array) -> Array:
    """For oracles: apply a function of one (Z, Y, X) float64 array to all of them."""
    spatial = volume.shape[-3:] if volume.ndim >= 3 else (1, *volume.shape)
    stacked = volume.astype(np.float64).reshape(int(np.prod(volume.shape[:-3])), *spatial)
    if not stacked.size:
        return stacked.reshape(volume.shape)
    return np.stack([function(one) for one in stacked]).reshape(volume.shape)


def radii(value: Triple, volume: Array, what: str) -> tuple[int, int, int]:
    """Radii along z, y, x in voxels; z is 0 for images (Y, X).

    Raises
    ------
    UsageError : a negative radius, or not one or three of them.
    """
    found = triple(value)
    if min(found) < 0:
        raise UsageError(f"{what} is {value!r}; a radius is 0 or more voxels")
    return found if volume.ndim > 2 else (0, *found[1:])


def positive(value: float, what: str) -> float:
    """A finite number above zero. Raises UsageError for any other."""
    if not (np.isfinite(value) and value > 0):
        raise UsageError(f"{what} is {value!r}; it is a number above 0")
    return float(value)


def spatial_values(value: float | Sequence[float], what: str) -> tuple[float, float, float]:
    """One number for z, y and x, or three. Raises UsageError where one is negative or not finite."""
    made = [float(v) for v in ([value] * 3 if isinstance(value, (int, float)) else value)]
    if len(made) != 3 or not all(np.isfinite(v) and v >= 0 for v in made):
        raise UsageError(f"{what} is {value!r}; give one number from 0, or three (z, y, x)")
    return (made[0], made[1], made[2])


def stable_scheme(step: float, iterations: int, spacing: Sequence[float]) -> tuple[float, float, float]:
    """Voxels per unit of length along (z, y, x), of an explicit scheme that cannot run away.

    Raises
    ------
    UsageError : a spacing not above 0, fewer than 0 iterations, a step above a sixth of the smallest squared spacing.
    """
    lengths = [positive(float(s), "spacing") for s in spacing]
    if len(lengths) != 3:
        raise UsageError(f"spacing is {tuple(spacing)!r}; give three numbers (z, y, x)")
    if iterations < 0:
        raise UsageError(f"iterations is {iterations}; it is 0 or more")
    most = min(lengths) ** 2 / 6
    if positive(step, "step") > most * (1 + 1e-6):
        raise UsageError(f"a step of {step:g} is unstable; with a spacing of {min(lengths):g} it is at most {most:.4g}")
    return (1 / lengths[0], 1 / lengths[1], 1 / lengths[2])


def noisy_case(
    shape: tuple[int, ...],
    *arguments: Any,
    words: Sequence[str] = (),
    allowed: float = 1e-6,
    axes: Sequence[int] | None = None,
    bench: bool = False,
    **options: Any,
) -> Case:
    """A case of a filter: noise of 10 around 100, its axes turned where asked for, then `arguments` and `options`."""

    def make(rng: np.random.Generator) -> tuple[Sequence[Any], Mapping[str, Any]]:
        volume = (100 + rng.normal(0, 10, shape)).astype(np.float32)
        return (volume if axes is None else volume.transpose(axes), *arguments), options

    said = ["x".join(map(str, shape)), *words, *map(str, options.values()), *(["strided"] if axes else [])]
    return Case("-".join(said).replace(" ", ""), make, allowed, 0.0, 8.0 * float(np.prod(shape)), bench)
