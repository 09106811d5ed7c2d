"""integrate: a stationary velocity field to its displacement, by scaling and squaring."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np

from voxelrt.errors import UsageError
from voxelrt.kernels.common.kernel import Array, Case, Kernel
from voxelrt.kernels.integrate.oracle import integrate as oracle

MOST_STEPS = 30
_TOLERANCES = {"float32": 1e-6, "float16": 5e-4, "bfloat16": 4e-3}


def _case(
    size: tuple[int, ...],
    steps: int = 7,
    padding: str = "zeros",
    *,
    batch: int = 1,
    dtype: str = "float32",
    amplitude: float = 3.0,
    bench: bool = False,
) -> Case:
    def make(rng: np.random.Generator) -> tuple[Sequence[Any], Mapping[str, Any]]:
        velocity = smooth_field(rng, batch, size, amplitude)
        kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype
        return (velocity.astype(kind),), {"steps": steps, "padding": padding}

    voxels, axes = float(batch * np.prod(size)), len(size)
    name = f"{padding}-{dtype}-{batch}x{'x'.join(map(str, size))}-{steps}" + f"-{amplitude:g}" * (amplitude != 3.0)
    # Each step reads the field once and writes it once.
    return Case(name, make, _TOLERANCES[dtype], voxels * steps * 60.0, voxels * steps * 8.0 * axes, bench)


def smooth_field(rng: np.random.Generator, batch: int, size: Sequence[int], amplitude: float) -> Array:
    """A field (N, axes, Z, Y, X) of a few waves along each axis, as smooth as a network's and as wide as asked."""
    axes = len(size)
    field = np.zeros((batch, axes, *size))
    grid = np.meshgrid(*[np.arange(n) / max(n, 8) for n in size], indexing="ij")
    for n in range(batch):
        for k in range(axes):
            for _ in range(3):
                phase = sum((g * w for g, w in zip(grid, rng.uniform(-6, 6, axes), strict=True)), rng.uniform(0, 6))
                field[n, k] += np.sin(phase)
    return amplitude * field / max(1e-9, float(np.abs(field).max()))


KERNEL = Kernel(
    name="integrate",
    oracle=oracle,
    cases=(
        _case((1, 1, 1)),
        _case((1, 1, 1), padding="border"),
        *(_case((5, 7, 11), steps, p) for p in ("zeros", "border") for steps in (0, 1, 2, 7)),
        *(_case((9, 18, 37), padding=p, batch=2, amplitude=8.0) for p in ("zeros", "border")),
        *(_case((17, 35), padding=p, batch=2) for p in ("zeros", "border")),
        _case((1, 9, 21)),
        _case((9, 1, 21)),
        _case((9, 21, 1)),
        *(_case((5, 6, 11), 3, dtype=d) for d in ("float16", "bfloat16")),
        _case((20, 19, 50), dtype="float16"),
        _case((20, 19, 50), dtype="bfloat16"),
        _case((64, 64, 64), bench=True),
    ),
    backends=("cpu", "numba", "triton", "cuda"),
)


def integrate(
    velocity: Array,
    *,
    steps: int = 7,
    padding: str = "zeros",
    out: Array | None = None,
    backend: str = "auto",
) -> Array:
    """The displacement u = exp(v) − id of a stationary velocity field, by scaling and squaring.

    u ← v/2ⁿ, then n times u(x) ← u(x) + u(x + u(x)), looked up trilinearly (Arsigny et al., A log-Euclidean framework
    for statistics on diffeomorphisms, MICCAI 2006, section 3.2).

    Parameters
    ----------
    velocity : (N, 3, Z, Y, X) or (N, 2, Y, X) float32, float16 or bfloat16; components (z, y, x), in voxels.
    steps : n, 0 to 30.
    padding : of what lies outside: ``"zeros"`` or ``"border"`` (the outer vectors go on).
    out : of the same shape and dtype, where the answer goes.
    backend : see ``Kernel``.

    Returns
    -------
    The displacement, of the velocity's shape and dtype; sums are float32.

    Raises
    ------
    ShapeError : the velocity is not a field.
    UsageError : an unknown padding, or steps out of range.
    """
    if not 0 <= steps <= MOST_STEPS:
        raise UsageError(f"steps is {steps}; it lies between 0 and {MOST_STEPS}")
    result: Array = KERNEL(velocity, steps=steps, padding=padding, out=out, backend=backend)
    return result
