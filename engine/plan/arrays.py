"""The arrays that a plan is run on: taken as they come, matched with its variants, made for its outputs."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxelrt.errors import ShapeError, UsageError
from voxelrt.kernels.common import capi, native
from voxelrt.plan.dlpack import gpu_of
from voxelrt.plan.schedule import Io

Array = NDArray[Any]
Variants = Sequence[tuple[list[Io], list[Io], tuple[int, int], int]]


def take(inputs: Mapping[str, Any], names: Sequence[str], ios: Sequence[Io]) -> tuple[dict[str, Array], Any]:
    """Inputs as NumPy arrays without a copy, and the library that results should be made for.

    Parameters
    ----------
    inputs : name -> array (NumPy, or anything with DLPack on the CPU).
    names : all that there must be.
    ios : those of them that the schedule takes.

    Raises
    ------
    UsageError : unknown or missing names, or an array that is not on the host.
    """
    check_names(inputs, names)
    arrays: dict[str, Array] = {}
    library: Any = None
    for name in (io.name for io in ios):
        if gpu_of(inputs[name]) is not None:
            raise UsageError(f"the input {name} lies on a GPU and the plan runs on the CPU: copy it to the host")
        arrays[name], found = host_array(inputs[name])
        library = found or library
    return arrays, library


def check_names(inputs: Mapping[str, Any], names: Sequence[str]) -> None:
    """Raises UsageError where inputs are unknown or missing."""
    unknown, missing = sorted(set(inputs) - set(names)), sorted(set(names) - set(inputs))
    if unknown or missing:
        wrong = "; ".join(
            part
            for part in (
                f"unknown {', '.join(unknown)}" if unknown else "",
                f"missing {', '.join(missing)}" if missing else "",
            )
            if part
        )
        raise UsageError(f"the plan takes the inputs {', '.join(names)}: {wrong}")


def host_array(given: Any) -> tuple[Array, Any]:
    """An array of the host as NumPy's, without a copy, and the library that answers to it should be made for."""
    if isinstance(given, np.ndarray) or not hasattr(given, "__dlpack__"):
        return np.asarray(given), None
    return np.from_dlpack(given), library_of(given)


def library_of(given: Any) -> Any:
    """The module whose array something is, where it takes arrays by DLPack; else None."""
    module = importlib.import_module(type(given).__module__.partition(".")[0])
    return module if hasattr(module, "from_dlpack") else None


def match(
    variants: Variants, arrays: Mapping[str, Array], out: Mapping[str, Array] | None = None
) -> tuple[int, int] | None:
    """The variant and batch for these inputs; None where no variant takes them.

    Where several do, it is the one whose outputs have the names of `out`, else the first.

    Raises
    ------
    ShapeError : an input of another dtype.
    """
    order = list(range(len(variants)))
    if out is not None:
        order.sort(key=lambda index: {io.name for io in variants[index][1]} != set(out))
    for index in order:
        inputs, _, (low, high), _ = variants[index]
        batch = None
        fits = True
        for io in inputs:
            shape = arrays[io.name].shape
            if capi.dtype_code(arrays[io.name].dtype) != io.dtype:
                raise ShapeError(
                    f"the input {io.name} is {arrays[io.name].dtype}; the plan takes {capi.numpy_dtype(io.dtype)}"
                )
            if io.batched and len(shape) == len(io.dims):
                batch = batch or shape[0] // max(1, io.dims[0])
                fits = fits and shape == (io.dims[0] * batch, *io.dims[1:])
            else:
                fits = fits and shape == io.dims
        if fits and low <= (batch or 1) <= high:
            return index, batch or 1
    return None


def make_outputs(ios: Sequence[Io], batch: int, out: Mapping[str, Array] | None) -> dict[str, Array]:
    """Arrays for a variant's outputs, new or those of `out`.

    Raises
    ------
    UsageError : `out` lacks one, or one is read-only.
    """
    made: dict[str, Array] = {}
    for io in ios:
        if out is not None:
            if io.name not in out:
                raise UsageError(f"out has no array for {io.name}")
            if not out[io.name].flags.writeable:
                raise UsageError(f"the array for {io.name} in out is read-only")
            made[io.name] = out[io.name]
        else:
            dims = (io.dims[0] * batch, *io.dims[1:]) if io.batched else io.dims
            made[io.name] = native.aligned_empty(dims, capi.numpy_dtype(io.dtype))
    return made


def check_ranges(asked_for: Mapping[str, Any], variants: Variants, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Only what was asked for at compile time is specialised later: a range (min, opt, max).

    Raises
    ------
    ShapeError : a shape outside.
    """
    for name, shape in shapes.items():
        asked = asked_for.get(name)
        fits = (
            asked is not None
            and len(asked) == len(shape)
            and all((a[0] <= d <= a[2]) if isinstance(a, list) else a == d for a, d in zip(asked, shape, strict=True))
        )
        if not fits:
            known = "; ".join(
                ", ".join(
                    f"{io.name} {io.dims}{' (any batch to ' + str(v[2][1]) + ')' if io.batched else ''}" for io in v[0]
                )
                for v in variants
            )
            raise ShapeError(f"the input {name} has the shape {shape}; the plan was compiled for {known}")
