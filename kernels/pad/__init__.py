"""pad: elements added at the ends of axes, or taken away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from voxelrt.kernels.common.kernel import Array, Case, Kernel
from voxelrt.kernels.pad.codes import MODES
from voxelrt.kernels.pad.oracle import pad as oracle

Pads = tuple[tuple[int, int], ...]


def _case(
    shape: tuple[int, ...],
    pads: Pads,
    mode: str = "constant",
    dtype: str = "float32",
    value: float = 0,
    gaps: bool = False,
    bench: bool = False,
) -> Case:
    def make(rng: np.random.Generator) -> tuple[Sequence[Any], Mapping[str, Any]]:
        x = rng.integers(0, 100, shape).astype(dtype)
        if gaps:
            x = np.repeat(x, 2, -1)[..., ::-2].swapaxes(0, 1).copy().swapaxes(0, 1)
        return (x, pads), {"mode": mode, "value": value}

    moved = float(np.prod(shape) + np.prod([n + a + b for n, (a, b) in zip(shape, pads, strict=True)]))
    text = "_".join(f"{a},{b}" for a, b in pads)
    name = f"{mode}-{dtype}-{'x'.join(map(str, shape))}-{text}" + ("-gaps" if gaps else "")
    return Case(name, make, 0.0, 0.0, moved * np.dtype(dtype).itemsize, bench)


_SOME: Pads = ((0, 0), (1, 2), (4, 3), (2, 5))
_SPACE: Pads = ((0, 0), (0, 0), (3, 3), (3, 3), (3, 3))

KERNEL = Kernel(
    name="pad",
    oracle=oracle,
    cases=(
        *(_case((2, 3, 5, 7), _SOME, mode, dtype) for mode in MODES for dtype in ("float32", "uint8", "float64")),
        *(_case((3, 4, 9), ((0, 0), (2, 2), (1, 1)), mode, "int16", gaps=True) for mode in MODES),
        *(_case((2, 3), ((5, 6), (7, 9)), mode) for mode in MODES),
        *(_case((1, 4), ((2, 3), (0, 0)), mode) for mode in MODES),
        *(_case((6, 8), ((-1, 2), (3, -2)), mode) for mode in MODES),
        _case((6, 8), ((-2, -1), (0, -3)), "reflect", "int64"),
        _case((3, 5), ((1, 1), (0, 2)), "constant", "bool", True),
        _case((2, 3, 4), ((1, 0), (0, 2), (1, 1)), "constant", "float32", -1.5),
        _case((1,), ((0, 0),)),
        _case((0, 3), ((1, 2), (1, 0)), "constant", "float32", 2.0),
        _case((2, 0, 3), ((0, 0), (0, 0), (1, 1)), "edge"),
        _case((1, 8, 40, 60, 60), _SPACE, bench=True),
        _case((1, 8, 40, 60, 60), _SPACE, "reflect", bench=True),
    ),
)


def pad(
    x: Array, pads: Sequence[tuple[int, int]], *, mode: str = "constant", value: float = 0, backend: str = "auto"
) -> Array:
    """Pad an array.

    Parameters
    ----------
    x : any shape of up to 8 axes and any dtype; may have gaps.
    pads : for each axis how many elements to add before and after it; negative ones are taken away first.
    mode : ``"constant"``, ``"edge"``, ``"reflect"`` (without repeating the edge) or ``"wrap"``, as in ``numpy.pad``;
        they may reach further than the array is long.
    value : of ``"constant"``.
    backend : see ``Kernel``.

    Raises
    ------
    UsageError : no such mode, or not a pair for each axis.
    ShapeError : an empty axis is to be padded with its own elements.
    """
    result: Array = KERNEL(x, pads, mode=mode, value=value, backend=backend)
    return result
