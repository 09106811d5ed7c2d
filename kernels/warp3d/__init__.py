"""warp3d: a volume looked up at A·x + t + M·u(x), with no grid in between."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np

from voxelrt.errors import ShapeError, UsageError
from voxelrt.kernels.common.kernel import Array, Case, Kernel
from voxelrt.kernels.spline_prefilter import spline_prefilter
from voxelrt.kernels.warp3d.codes import PADDINGS
from voxelrt.kernels.warp3d.oracle import warp3d as oracle

_ORDERS = {0: "nearest", 1: "linear", 3: "bspline"}
_TOLERANCES = {"float32": 1e-6, "float16": 5e-4, "bfloat16": 4e-3}
_BYTES = {"bfloat16": "float16"}


def _volume(rng: np.random.Generator, shape: Sequence[int], dtype: str) -> Array:
    if dtype in _TOLERANCES:
        return rng.normal(0, 1, shape).astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    info = np.iinfo(dtype)
    # Few labels, so that neighbours are often equal.
    return rng.choice(np.array([0, 1, 2, info.max // 3, info.max], dtype), shape)


def _case(
    shape: tuple[int, ...],
    size: tuple[int, ...] | None = None,
    mode: str = "linear",
    padding: str = "zeros",
    *,
    dtype: str = "float32",
    amplitude: float = 2.0,
    field: str = "float32",
    affine: bool = False,
    matrix: bool = False,
    only_affine: bool = False,
    bench: bool = False,
) -> Case:
    axes = len(shape) - 2
    size = size or shape[2:]

    def make(rng: np.random.Generator) -> tuple[Sequence[Any], Mapping[str, Any]]:
        options: dict[str, Any] = {"mode": mode, "padding": padding}
        if affine or only_affine:
            rows = np.eye(axes, axes + 1) + rng.normal(0, 0.1, (shape[0], axes, axes + 1))
            options["affine"] = rows if shape[0] > 1 else rows[0]
        if matrix:
            options["matrix"] = rng.normal(0, 1, (axes, axes))
        volume = _volume(rng, shape, dtype)
        if only_affine:
            return (volume, None), {**options, "shape": size}
        # Eighths meet voxels, faces and halves exactly; float32 then decides as float64 does.
        moved = np.round(rng.normal(0, amplitude, (shape[0], axes, *size)) * 8) / 8
        return (volume, moved.astype(ml_dtypes.bfloat16 if field == "bfloat16" else field)), options

    words = [mode, padding, dtype, "x".join(map(str, shape)), "x".join(map(str, size))]
    words += [f"by{field}"] * (field != "float32") + [f"{amplitude:g}"] * (amplitude != 2.0)
    words += [w for w, given in (("affine", affine), ("matrix", matrix), ("only-affine", only_affine)) if given]
    exact = mode in ("nearest", "vote") or dtype not in _TOLERANCES
    voxels = float(shape[0] * np.prod(size))
    flops = voxels * (30.0 + 14.0 * shape[1])
    moved_bytes = voxels * (4.0 * axes + 2.0 * shape[1] * np.dtype(_BYTES.get(dtype, dtype)).itemsize)
    return Case("-".join(words), make, 0.0 if exact else _TOLERANCES[dtype], flops, moved_bytes, bench)


_PADDINGS = ("zeros", "border", "reflect", "zeros_edges")  # for users; ONNX has two more

KERNEL = Kernel(
    name="warp3d",
    oracle=oracle,
    cases=(
        _case((1, 1, 1, 1, 1)),
        _case((1, 1, 1, 1, 1), (3, 2, 5), padding="border"),
        *(_case((2, 3, 5, 7, 11), (4, 3, 19), mode, p) for mode in ("linear", "nearest") for p in PADDINGS),
        *(_case((1, 2, 3, 2, 2), (5, 4, 33), "linear", p, amplitude=9.0) for p in PADDINGS),
        *(_case((2, 1, 6, 5, 40), (6, 9, 37), affine=True, padding=p) for p in PADDINGS),
        _case((2, 2, 9, 8, 17), (7, 6, 35), affine=True, matrix=True),
        _case((2, 2, 9, 8, 17), (7, 6, 35), only_affine=True),
        _case((1, 1, 9, 8, 17), (7, 6, 35), only_affine=True, mode="nearest"),
        *(_case((2, 3, 9, 21), (8, 33), m, p) for m in ("linear", "nearest") for p in ("zeros", "reflect")),
        _case((1, 2, 1, 21), (8, 33), affine=True),
        _case((1, 2, 9, 1), (8, 33), padding="border"),
        *(_case((1, 2, 7, 9, 21), dtype=d, padding=p) for d in ("float16", "bfloat16") for p in ("zeros", "border")),
        _case((1, 2, 7, 9, 21), field="float16"),
        _case((1, 2, 7, 9, 21), field="bfloat16", dtype="bfloat16"),
        *(_case((1, 2, 7, 9, 21), dtype=d) for d in ("int16", "uint16", "uint8", "int8")),
        *(_case((1, 2, 7, 9, 21), mode="nearest", dtype=d) for d in ("int16", "uint8", "int32", "float16")),
        *(_case((1, 2, 7, 9, 21), mode="vote", dtype=d) for d in ("uint8", "int16", "uint16", "int32")),
        *(_case((1, 1, 7, 9, 21), mode="vote", dtype="uint8", padding=p) for p in PADDINGS[1:]),
        _case((1, 1, 17, 31), mode="vote", dtype="uint8"),
        *(_case((2, 3, 9, 7, 21), (4, 6, 19), m, p) for m in ("bspline", "keys") for p in PADDINGS),
        *(_case((1, 2, 9, 21), (6, 35), m, affine=True) for m in ("bspline", "keys")),
        *(_case((1, 1, 1, 2, 3), (3, 2, 5), m, "reflect") for m in ("bspline", "keys")),
        _case((1, 1, 19, 23, 67), (21, 18, 300), amplitude=5.0),
        _case((1, 1, 64, 64, 64), bench=True),
        _case((1, 4, 64, 64, 64), bench=True),
        _case((1, 1, 64, 64, 64), padding="border", dtype="int16", bench=True),
        _case((1, 1, 64, 64, 64), mode="nearest", dtype="uint8", bench=True),
        _case((1, 1, 48, 48, 48), mode="bspline", bench=True),
        _case((1, 1, 64, 64, 64), mode="vote", dtype="uint8", bench=True),
    ),
    backends=("cpu", "numba", "triton", "cuda"),
)


def warp3d(
    volume: Array,
    displacement_voxels: Array | None = None,
    *,
    affine: Array | None = None,
    matrix: Array | None = None,
    shape: Sequence[int] | None = None,
    order: int = 1,
    labels: bool = False,
    padding: str = "zeros",
    out: Array | None = None,
    backend: str = "auto",
) -> Array:
    """A volume at x → A·x + t + M·u(x), for every voxel x of the output.

    Parameters
    ----------
    volume : (N, C, Z, Y, X) or (N, C, Y, X). float32, float16, bfloat16; 8- and 16-bit whole numbers; with ``order=0``
        any dtype, with ``labels=True`` whole numbers of up to 32 bits.
    displacement_voxels : u, (N or 1, 3, Z', Y', X') or (N or 1, 2, Y', X'); components (z, y, x), in voxels of the
        volume where no `matrix` is given; float32, float16 or bfloat16 storage.
    affine : [A | t], (3, 4) or (N, 3, 4), or of two axes (2, 3) or (N, 2, 3); voxel (z, y, x) of the output to voxel of
        the volume. The identity where none is given.
    matrix : M, (3, 3) or (2, 2): displacements of another unit, mm for instance, to voxels of the volume.
    shape : (Z', Y', X') of the output where there is no displacement; the volume's where neither is given.
    order : 0 nearest (of two equally near voxels the even one), 1 trilinear, 3 the cubic B-spline through the voxels
        (see ``spline_prefilter``; it may overshoot). With order 3 padding of zeros begins at the volume's faces.
    labels : each voxel gets the label with the most trilinear weight around it, of equal ones the smallest: no value
        that was not there, and smoother boundaries than the nearest voxel's.
    padding : what lies outside: ``"zeros"`` (values fade within a voxel beyond the outer voxels' centres, as in torch
        and ONNX), ``"zeros_edges"`` (the outer voxels go on to their faces, nothing lies beyond, and of two equally
        near voxels the upper one counts, as in ITK), ``"border"`` (the outer voxels go on) or ``"reflect"`` (a mirror
        image about the outer voxels' centres).
    out : (N, C, Z', Y', X') where the answer goes.
    backend : see ``Kernel``.

    Returns
    -------
    The warped volume (N, C, Z', Y', X'), of the volume's dtype; whole numbers are rounded and kept in range. Where a
    displacement is NaN it is NaN, or 0 for whole numbers.

    Raises
    ------
    ShapeError : shapes or dtypes that do not fit each other.
    UsageError : an unknown order, padding or backend.
    """
    if labels and order != 1:
        raise UsageError(f"labels=True weighs labels trilinearly; order is {order}: leave it out")
    if order not in _ORDERS:
        raise UsageError(f"order is {order!r}; it is one of {', '.join(map(str, _ORDERS))}")
    if padding not in _PADDINGS:
        raise UsageError(f"padding is {padding!r}; it is one of {', '.join(_PADDINGS)}")
    if order == 3:
        return _cubic(volume, displacement_voxels, affine, matrix, shape, padding, out, backend)
    result: Array = KERNEL(
        volume,
        displacement_voxels,
        affine=affine,
        matrix=matrix,
        shape=shape,
        mode="vote" if labels else _ORDERS[order],
        padding=padding,
        out=out,
        backend=backend,
    )
    return result


def _cubic(
    volume: Array,
    displacement: Array | None,
    affine: Array | None,
    matrix: Array | None,
    shape: Sequence[int] | None,
    padding: str,
    out: Array | None,
    backend: str,
) -> Array:
    """Coefficients and their spline, both float32; other dtypes are rounded to at the end."""
    coefficients = spline_prefilter(volume)
    plain = out is not None and out.dtype == np.float32
    found: Array = KERNEL(
        coefficients,
        displacement,
        affine=affine,
        matrix=matrix,
        shape=shape,
        mode="bspline",
        padding=padding,
        out=out if plain else None,
        backend=backend,
    )
    if volume.dtype.kind in "iu":
        info = np.iinfo(volume.dtype)
        found = np.clip(np.rint(np.nan_to_num(found)), info.min, info.max)
    if out is not None:
        if out.dtype != volume.dtype or out.shape != found.shape:
            raise ShapeError(f"out is {out.shape} {out.dtype}; the answer is {found.shape} {volume.dtype}")
        if not plain:
            out[...] = found
        return out
    return found.astype(volume.dtype, copy=False)


def grid_sample(
    volume: Array,
    grid: Array,
    *,
    mode: str = "linear",
    padding: str = "zeros",
    align_corners: bool = False,
    backend: str = "auto",
) -> Array:
    """A volume at normalised positions, as ONNX GridSample defines it.

    Parameters
    ----------
    volume : (N, C, Y, X) or (N, C, Z, Y, X).
    grid : (N, Y', X', 2) or (N, Z', Y', X', 3); components (x, y, z), -1 to 1 from end to end of an axis.
    mode : ``"linear"``, ``"nearest"`` or ``"keys"``: ONNX's cubic.
    padding : ``"zeros"``, ``"border"`` or ``"reflection"``.
    align_corners : whether the ends are the outer voxels' centres, or else their faces.

    Returns
    -------
    (N, C, Z', Y', X') of the volume's dtype.

    Raises
    ------
    ShapeError : shapes or dtypes that do not fit each other.
    UsageError : an unknown mode or padding.
    """
    axes = volume.ndim - 2
    if grid.ndim != volume.ndim or grid.shape[-1] != axes:
        raise ShapeError(f"a grid for the volume {volume.shape} has {axes} components, not the shape {grid.shape}")
    affine, matrix = normalised(volume.shape[2:], align_corners)
    result: Array = KERNEL(
        volume,
        np.moveaxis(grid, -1, 1),
        affine=affine,
        matrix=matrix,
        mode=mode,
        padding=onnx_padding(mode, padding, align_corners),
        backend=backend,
    )
    return result


def normalised(size: Sequence[int], align_corners: bool) -> tuple[Array, Array]:
    """The affine and matrix that make a normalised grid (x, y, z) a displacement: voxel = matrix · grid + middle."""
    axes = len(size)
    matrix, affine = np.zeros((axes, axes)), np.zeros((axes, axes + 1))
    for k, n in enumerate(size):
        matrix[k, axes - 1 - k] = (n - 1 if align_corners else n) / 2
        affine[k, axes] = (n - 1) / 2
    return affine, matrix


def onnx_padding(mode: str, padding: str, align_corners: bool) -> str:
    """The kernel's word for a padding of ONNX GridSample. Raises UsageError for one that does not exist."""
    words = {"zeros": "zeros", "border": "border", "reflection": "reflect"}
    if padding not in words:
        raise UsageError(f"padding is {padding!r}; it is one of {', '.join(words)}")
    cubic_border = mode == "keys" and padding == "border"
    edges = not align_corners and (cubic_border or padding == "reflection")
    return words[padding] + "_edges" * edges
