"""resample_argmax: labels of one plane on another grid, straight from stitched logits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from voxelrt.kernels.common.kernel import Array, Case, Kernel
from voxelrt.kernels.resample_argmax.oracle import resample_argmax as oracle
from voxelrt.kernels.resample_argmax.taps import Taps, taps

__all__ = ["KERNEL", "Taps", "resample_argmax", "taps"]


def _case(
    classes: int,
    old: tuple[int, int],
    new: tuple[int, int],
    weight: float = 0.3,
    linear: bool = True,
    regions: bool = False,
    dtype: type = np.uint8,
    bench: bool = False,
    features: int = 0,
) -> Case:
    def make(rng: np.random.Generator) -> tuple[Sequence[Any], Mapping[str, Any]]:
        def plane() -> tuple[Array, Array]:
            counts = (rng.random(old) + 0.5).astype(np.float32)
            return (rng.normal(size=(features or classes, *old)) * counts).astype(np.float32), counts

        ways = [taps((np.arange(m) + 0.5) * (n / m) - 0.5, n, linear=linear) for n, m in zip(old, new, strict=True)]
        values = np.arange(classes) + (dtype == np.uint16) * 300
        options = {"regions": regions, "dtype": dtype}
        if features:
            options["head"] = rng.normal(size=(classes, features + 1)).astype(np.float32)
        return (plane(), plane(), weight, *ways, values), options

    sizes = "-".join("x".join(map(str, size)) for size in (old, new))
    kind = f"{'linear' if linear else 'nearest'}{'-regions' if regions else ''}-{np.dtype(dtype).name}-{weight:g}"
    count, read = float(classes * np.prod(new)), features or classes
    name = f"{classes}-{sizes}-{kind}" + f"-of-{features}-features" * (features > 0)
    return Case(name, make, 0.0, (5 + 2 * features) * count, 8.0 * read * np.prod(old), bench)


def _ties() -> Case:
    """Logits in steps that half precision does not tell apart above 16; weights of quarters, so all sums are exact."""

    def make(rng: np.random.Generator) -> tuple[Sequence[Any], Mapping[str, Any]]:
        def plane() -> tuple[Array, Array]:
            whole = rng.integers(1 << 10, 1 << 11, size=(4, 9, 21))
            return (whole / 64).astype(np.float32), np.ones((9, 21), np.float32)

        ways = [taps((np.arange(2 * n) + 0.5) / 2 - 0.5, n) for n in (9, 21)]
        return (plane(), plane(), 0.25, *ways, np.arange(4)), {"half": True}

    return Case("half-ties", make, 0.0)


KERNEL = Kernel(
    name="resample_argmax",
    oracle=oracle,
    cases=(
        _case(1, (1, 1), (1, 1)),
        _case(2, (1, 1), (3, 5)),
        _case(3, (7, 5), (1, 1)),
        _case(5, (13, 17), (13, 17), weight=0.0),
        _case(5, (13, 17), (29, 37)),
        _case(4, (13, 40), (6, 19), weight=1.0),
        _case(6, (9, 33), (9, 64), linear=False),
        _case(4, (11, 20), (23, 48), regions=True),
        _case(7, (8, 16), (17, 31), dtype=np.uint16),
        _ties(),
        _case(3, (1, 1), (3, 5), features=1),
        _case(11, (13, 17), (13, 17), weight=0.0, features=4),
        _case(13, (13, 17), (29, 37), features=5),
        _case(6, (9, 33), (9, 64), linear=False, features=3, dtype=np.uint16),
        _case(9, (11, 20), (23, 48), regions=True, features=2),
        _case(118, (171, 171), (256, 256), bench=True, features=32),
        _case(118, (171, 171), (256, 256), bench=True),
    ),
    backends=("cpu", "triton", "cuda"),
)


def resample_argmax(
    lower: tuple[Array, Array],
    upper: tuple[Array, Array],
    weight: float,
    rows: Taps,
    columns: Taps,
    values: Array,
    *,
    regions: bool = False,
    half: bool = False,
    dtype: type = np.uint8,
    head: Array | None = None,
    out: Array | None = None,
    backend: str = "auto",
) -> Array:
    """The labels of a plane that lies between two planes of weighted sums of logits.

    The logits are sums over counts; they are interpolated between the planes, along the rows and the columns, and the
    largest class's value is the label. No resampled logits are ever stored.

    Parameters
    ----------
    lower, upper : each sums (C, Y, X) and counts (Y, X) float32.
    weight : of the upper plane, 0 to 1; a plane, row or column of no weight is not looked at.
    rows, columns : where the answer's are read, see ``taps``.
    values : (C,) whole numbers, each class's label.
    regions : classes exclude each other no more: each writes its value where its logit is above 0, in order.
    half : round the resampled logits to half precision before they are compared, so that near ones tie.
    dtype : of the labels, uint8 or uint16.
    head : (C, F + 1) float32, the bias last: the planes are of F features, and this makes logits of what is
        interpolated. On the CPU alone.
    out : (Y, X) where they go.
    backend : see ``Kernel``.

    Returns
    -------
    labels : (rows, columns). Of equal classes the first; a NaN is no class's largest.

    Raises
    ------
    ShapeError : the arrays do not fit each other.
    """
    options: dict[str, Any] = {"regions": regions, "half": half, "dtype": dtype, "head": head}
    options |= {"out": out, "backend": backend}
    made: Array = KERNEL(lower, upper, weight, rows, columns, values, **options)
    return made
