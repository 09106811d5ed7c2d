"""stitch: add a window's logits, weighted, to the sums of the volume's windows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from voxelrt.kernels.common.kernel import Array, Case, Kernel
from voxelrt.kernels.stitch.oracle import stitch as oracle


def _case(channels: int, size: tuple[int, int, int], share: float = 1.0, bench: bool = False) -> Case:
    def make(rng: np.random.Generator) -> tuple[Sequence[Any], Mapping[str, Any]]:
        logits = rng.normal(size=(channels, *size)).astype(np.float32)
        sums = rng.normal(size=(size[0], channels, *size[1:])).astype(np.float32)
        return (sums, logits, rng.random(size).astype(np.float32)), {"share": share}

    count = float(channels * np.prod(size))
    name = f"{channels}x{'x'.join(map(str, size))}" + (f"-{share:g}" if share != 1 else "")
    return Case(name, make, 1e-6, 2 * count, 12 * count, bench)


def _mirrored(axes: tuple[int, ...]) -> Case:
    """The window lies inside wider sums, and its logits are read backwards."""

    def make(rng: np.random.Generator) -> tuple[Sequence[Any], Mapping[str, Any]]:
        logits = np.flip(rng.normal(size=(3, 5, 6, 19)).astype(np.float32), axes)
        sums = rng.normal(size=(9, 3, 11, 40)).astype(np.float32)[2:7, :, 1:7, 20:39]
        return (sums, logits, rng.random((5, 6, 19)).astype(np.float32)), {"share": 0.125}

    return Case(f"mirrored-{''.join(map(str, axes))}", make, 1e-6)


def _halved() -> Case:
    """From subnormal halves to large ones; the sums are exact in float32, so that only the rounding is compared."""

    def make(rng: np.random.Generator) -> tuple[Sequence[Any], Mapping[str, Any]]:
        size = (3, 4, 67)
        sums = rng.integers(1 << 10, size=(3, 2, 4, 67)).astype(np.float32)
        logits = np.ldexp(rng.integers(1 << 13, size=(2, *size)) - 4096.0, rng.integers(-32, 4, size=(2, *size)))
        sums *= np.abs(logits.swapaxes(0, 1)) < 16  # beside the largest and smallest a sum would round in float32 too
        sums[:, :, 0] = 0
        return (sums, logits.astype(np.float32), np.ones(size, np.float32)), {"half": True}

    return Case("half", make, 1e-6)


KERNEL = Kernel(
    name="stitch",
    oracle=oracle,
    cases=(
        _case(1, (1, 1, 1)),
        _case(2, (3, 5, 7)),
        _case(5, (4, 17, 33), share=0.25),
        _case(3, (0, 4, 4)),
        _halved(),
        *(_mirrored(axes) for axes in ((1,), (2,), (3,), (1, 2, 3))),
        _case(5, (64, 128, 128), bench=True),
    ),
    backends=("cpu", "numba", "triton", "cuda"),
)


def stitch(
    sums: Array,
    logits: Array,
    weights: Array,
    *,
    share: float = 1.0,
    half: bool = False,
    out: Array | None = None,
    backend: str = "auto",
) -> Array:
    """``sums + share * weights * logits``: a window's part of the weighted sums.

    Parameters
    ----------
    sums : (Z, C, Y, X) float32; rows without gaps, else of any strides: a window's place in a slab of planes.
    logits : (C, Z, Y, X) float32; may be a mirrored view.
    weights : (Z, Y, X) float32, how much each voxel of a window counts.
    share : of these logits in the window's: 1/8 where eight mirrored forms are averaged.
    half : round the new sums to half precision (to nearest, ties to even), as a framework does that keeps them so.
    out : where the new sums go; `sums` itself is allowed.
    backend : see ``Kernel``.

    Returns
    -------
    sums : (Z, C, Y, X) float32, `out` where it was given.

    Raises
    ------
    ShapeError : the arrays do not fit each other.
    """
    made: Array = KERNEL(sums, logits, weights, share=share, half=half, out=out, backend=backend)
    return made
