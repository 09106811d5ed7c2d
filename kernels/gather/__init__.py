"""gather: elements picked and put by indices, one-hot codes, slices, triangles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from voxelrt.kernels.common.kernel import Array, Case, Kernel
from voxelrt.kernels.gather.codes import REDUCTIONS
from voxelrt.kernels.gather.oracle import gather as oracle

Shape = tuple[int, ...]
Made = tuple[Sequence[Any], Mapping[str, Any]]


def _data(rng: np.random.Generator, shape: Shape, dtype: str) -> Array:
    return rng.integers(0, 100, shape).astype(dtype)


def _indices(rng: np.random.Generator, size: int, shape: Shape, dtype: str = "int64") -> Array:
    return np.asarray(rng.integers(-size, max(1, size), shape)).astype(dtype)


def _pick(
    op: str, shape: Shape, picked: Shape, axis: int, dtype: str = "float32", wide: bool = True, bench: bool = False
) -> Case:
    def make(rng: np.random.Generator) -> Made:
        kind = "int64" if wide else "int32"
        return (op, _data(rng, shape, dtype), _indices(rng, shape[axis], picked, kind)), {"axis": axis}

    name = f"{op}-{dtype}-{'x'.join(map(str, shape))}-{'x'.join(map(str, picked))}-{axis}"
    return Case(name, make, 0.0, 0.0, 8.0 * float(np.prod(picked)) * float(np.prod(shape[axis + 1 :])), bench)


def _tuples(rng: np.random.Generator, sizes: Sequence[int], places: Shape, dtype: str = "int64") -> Array:
    return np.stack([_indices(rng, n, places, dtype) for n in sizes], -1)


def _nd(shape: Shape, places: Shape, depth: int, batch_dims: int = 0, dtype: str = "float32") -> Case:
    def make(rng: np.random.Generator) -> Made:
        indices = _tuples(rng, shape[batch_dims : batch_dims + depth], places)
        return ("GatherND", _data(rng, shape, dtype), indices), {"batch_dims": batch_dims}

    return Case(f"GatherND-{dtype}-{'x'.join(map(str, shape))}-{depth}-{batch_dims}", make, 0.0)


def _scatter_elements(shape: Shape, put: Shape, axis: int, reduction: str, dtype: str = "float32") -> Case:
    def make(rng: np.random.Generator) -> Made:
        updates = _data(rng, put, dtype) / 25 if dtype == "float32" else _data(rng, put, dtype)
        arrays = (_data(rng, shape, dtype), _indices(rng, shape[axis], put), updates.astype(dtype))
        return ("ScatterElements", *arrays), {"axis": axis, "reduction": reduction}

    tolerance = 1e-5 if reduction in ("add", "mul") and dtype == "float32" else 0.0
    return Case(f"ScatterElements-{reduction}-{dtype}-{axis}", make, tolerance)


def _scatter_nd(shape: Shape, places: Shape, depth: int, reduction: str, dtype: str = "float32") -> Case:
    def make(rng: np.random.Generator) -> Made:
        updates = _data(rng, (*places, *shape[depth:]), dtype)
        arrays = (_data(rng, shape, dtype), _tuples(rng, shape[:depth], places, "int32"), updates)
        return ("ScatterND", *arrays), {"reduction": reduction}

    return Case(f"ScatterND-{reduction}-{dtype}-{depth}", make, 1e-5 if reduction in ("add", "mul") else 0.0)


def _onehot(shape: Shape, depth: int, axis: int, dtype: str, values: str) -> Case:
    def make(rng: np.random.Generator) -> Made:
        indices = rng.integers(-depth - 2, depth + 2, shape).astype(dtype)
        return ("OneHot", indices, np.array([2, 5], values)), {"depth": depth, "axis": axis}

    return Case(f"OneHot-{dtype}-{values}-{'x'.join(map(str, shape))}-{axis}", make, 0.0)


def _slice(shape: Shape, dtype: str, *slices: slice) -> Case:
    def make(rng: np.random.Generator) -> Made:
        return ("Slice", _data(rng, shape, dtype)), {"slices": slices}

    text = "_".join(f"{s.start},{s.stop},{s.step}" for s in slices)
    return Case(f"Slice-{dtype}-{text}", make, 0.0)


def _trilu(shape: Shape, upper: bool, k: int, dtype: str = "float32") -> Case:
    def make(rng: np.random.Generator) -> Made:
        return ("Trilu", 1 + _data(rng, shape, dtype)), {"upper": upper, "k": k}

    return Case(f"Trilu-{dtype}-{'x'.join(map(str, shape))}-{'upper' if upper else 'lower'}-{k}", make, 0.0)


_ALL = slice(None)

KERNEL = Kernel(
    name="gather",
    oracle=oracle,
    cases=(
        *(_pick("Gather", (4, 5, 6), (3, 2), axis, dtype) for axis in (0, 1, 2) for dtype in ("float32", "uint8")),
        _pick("Gather", (7,), (), 0, "int64"),
        _pick("Gather", (3, 0, 2), (4,), 0),
        _pick("Gather", (50, 40_000), (60,), 0, bench=True),
        *(_pick("GatherElements", (4, 5, 6), (2, 5, 3), axis, wide=axis == 1) for axis in (0, 1, 2)),
        _pick("GatherElements", (300,), (777,), 0, "int16"),
        _nd((4, 5, 6), (3, 2), 3),
        _nd((4, 5, 6), (7,), 1, dtype="bool"),
        _nd((4, 5, 6, 7), (4, 3), 2, 1, "float64"),
        _nd((2, 3, 6, 7), (2, 3, 5), 1, 2),
        *(_scatter_elements((4, 5, 6), (3, 5, 6), axis, r) for axis in (0, 2) for r in REDUCTIONS),
        *(_scatter_elements((40,), (90,), 0, r, d) for r in REDUCTIONS for d in ("uint8", "int64")),
        *(_scatter_nd((4, 5, 6), (3, 2), depth, r) for depth in (1, 3) for r in REDUCTIONS),
        _scatter_nd((4, 5), (9,), 1, "max", "int32"),
        _onehot((3, 4), 5, -1, "int64", "float32"),
        _onehot((3, 4), 5, 0, "float32", "int8"),
        _onehot((3, 4, 2), 7, 1, "uint8", "bool"),
        _slice((9, 8, 7), "float32", slice(None, None, -1), slice(6, 1, -2), _ALL),
        _slice((9, 8), "uint8", slice(1, None, 3), slice(None, None, -3)),
        _slice((30, 4), "float64", slice(-1, -20, -4), slice(5, 1)),
        *(_trilu((3, 5, 7), upper, k) for upper in (True, False) for k in (-9, -2, 0, 3, 9)),
        _trilu((6, 4), True, 1, "int8"),
    ),
)


def gather(
    op: str,
    *arrays: Array,
    axis: int = 0,
    batch_dims: int = 0,
    reduction: str = "none",
    depth: int = 0,
    slices: Sequence[slice] = (),
    upper: bool = True,
    k: int = 0,
    backend: str = "auto",
) -> Array:
    """Pick or put elements by indices, as ONNX's operator of that name.

    Parameters
    ----------
    op : Gather, GatherElements, GatherND (data, indices); ScatterElements, ScatterND (data, indices, updates);
        OneHot (indices, values of off and on); Slice, Trilu (data).
    arrays : data of any dtype; indices int32 or int64, negative ones count from the end. Indices of OneHot may be of
        any dtype.
    axis : of all but GatherND, ScatterND, Slice and Trilu.
    batch_dims : leading axes that data and indices of GatherND share.
    reduction : how an update joins what is there: none, add, mul, max or min; updates come in order.
    depth : the length of OneHot's new axis.
    slices : one for each axis of Slice, steps of either sign.
    upper, k : which triangle Trilu keeps, from which diagonal.
    backend : see ``Kernel``.

    Raises
    ------
    UsageError : no such function.
    ShapeError : shapes or dtypes do not fit.
    VoxelRTError : an index is out of range.
    """
    result: Array = KERNEL(
        op,
        *arrays,
        axis=axis,
        batch_dims=batch_dims,
        reduction=reduction,
        depth=depth,
        slices=slices,
        upper=upper,
        k=k,
        backend=backend,
    )
    return result
