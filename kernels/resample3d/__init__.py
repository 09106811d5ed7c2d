"""resample3d: a volume on a grid of another size, and the labels of logits there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from voxelrt.errors import ShapeError, UsageError
from voxelrt.kernels.common.kernel import Array, Case, Kernel
from voxelrt.kernels.resample3d.oracle import resample3d as oracle

GRIDS = ("edges", "first_centre", "align_corners")
ORDERS = (0, 1, 3)
_TOLERANCES = {"float32": 1e-6, "float16": 5e-4, "int16": 0.0, "uint8": 0.0}


def _case(
    shape: tuple[int, ...],
    size: tuple[int, int, int],
    order: int = 1,
    grid: str = "edges",
    *,
    dtype: str = "float32",
    argmax: bool = False,
    axes: Any = None,
    bench: bool = False,
) -> Case:
    def make(rng: np.random.Generator) -> tuple[Sequence[Any], Mapping[str, Any]]:
        made = rng.normal(0, 1, shape) if dtype.startswith("float") else rng.integers(0, 100, shape) * 2.0
        volume = made.astype(dtype)
        volume = volume if axes is None else volume.transpose(axes)
        return (volume, size), {"order": order, "grid": grid, "argmax": argmax}

    words = ["x".join(map(str, shape)), "x".join(map(str, size)), str(order), grid, dtype]
    words += [word for word, there in (("argmax", argmax), ("strided", axes)) if there]
    moved = float(np.prod(shape)) + float(np.prod(shape[:-3]) * np.prod(size))
    tolerance = 0.0 if order == 0 or argmax else _TOLERANCES[dtype]
    return Case("-".join(words), make, tolerance, 0.0, moved * np.dtype(dtype).itemsize, bench)


KERNEL = Kernel(
    name="resample3d",
    oracle=oracle,
    cases=(
        _case((1, 1, 1, 1), (1, 1, 1)),
        _case((1, 1, 1, 1), (3, 2, 5), 3),
        *(_case((2, 5, 7, 11), (8, 7, 37), order, grid) for order in ORDERS for grid in GRIDS),
        *(_case((2, 5, 9, 11), (3, 4, 5), order, grid) for order in ORDERS for grid in GRIDS),
        _case((2, 3, 4, 5, 6), (9, 1, 13)),
        _case((6, 4, 5, 2), (9, 8, 13), axes=(3, 0, 1, 2)),
        *(_case((1, 4, 7, 19), (9, 8, 13), order, dtype="float16") for order in ORDERS),
        _case((1, 4, 7, 19), (8, 14, 38), dtype="int16"),
        _case((1, 4, 7, 19), (3, 11, 8), 0, dtype="uint8"),
        *(_case((5, 4, 7, 19), (9, 8, 33), order, argmax=True) for order in (0, 1)),
        _case((3, 9, 8, 33), (4, 5, 7), grid="align_corners", argmax=True),
        _case((2, 3, 4, 5, 21), (4, 7, 9), argmax=True),
        _case((1, 48, 64, 64), (96, 96, 96), bench=True),
        _case((1, 48, 64, 64), (96, 96, 96), 3, bench=True),
        _case((14, 32, 48, 48), (64, 96, 96), argmax=True, bench=True),
    ),
)


def resample3d(
    volume: Array,
    size: Sequence[int],
    *,
    order: int = 1,
    grid: str = "edges",
    argmax: bool = False,
    backend: str = "auto",
) -> Array:
    """A volume resampled to another number of voxels; or the largest class's number where that is asked for.

    Parameters
    ----------
    volume : (C, Z, Y, X) or (N, C, Z, Y, X); float32, float16, bfloat16, 8- and 16-bit whole numbers, with ``order=0``
        any dtype; of any strides, though rows with gaps are copied. With ``argmax`` float32.
    size : (Z', Y', X').
    order : 0 nearest (of two equally near voxels the even one, with ``argmax`` the later), 1 trilinear, 3 the cubic
        B-spline through the voxels (it may overshoot).
    grid : what of both grids coincides: ``"edges"`` of the outer voxels (nnU-Net, scikit-image; voxel j looks at
        (j + 1/2) n / m - 1/2), the ``"first_centre"`` with a spacing n / m times as large (ITK; j n / m), or both outer
        centres, ``"align_corners"`` (j (n - 1) / (m - 1)). Outside the volume its outer voxels go on.
    argmax : the classes are the channels, and the answer is the number of the largest, of equal ones the first; no
        resampled logits are ever stored. Orders 0 and 1.
    backend : see ``Kernel``.

    Returns
    -------
    (.., C, Z', Y', X') of the volume's dtype, whole numbers rounded and kept in range; with ``argmax`` (.., Z', Y', X')
    uint8, or uint16 for more than 256 classes.

    Raises
    ------
    ShapeError : other axes, an empty volume or size.
    UsageError : an unknown order or grid, or an argmax of what is not float32.
    """
    if volume.ndim not in (4, 5) or 0 in volume.shape:
        raise ShapeError(f"resample3d takes (C, Z, Y, X) or (N, C, Z, Y, X), not empty; this is {volume.shape}")
    if len(size) != 3 or min(size) < 1:
        raise ShapeError(f"size is {tuple(size)!r}; give three numbers (z, y, x) from 1")
    if order not in ORDERS:
        raise UsageError(f"order is {order!r}; it is one of {', '.join(map(str, ORDERS))}")
    if grid not in GRIDS:
        raise UsageError(f"grid is {grid!r}; it is one of {', '.join(GRIDS)}")
    if argmax and (order == 3 or volume.dtype != np.float32):
        raise UsageError(f"argmax takes float32 logits and order 0 or 1, not {volume.dtype} and {order}")
    result: Array = KERNEL(volume, tuple(size), order=order, grid=grid, argmax=argmax, backend=backend)
    return result
