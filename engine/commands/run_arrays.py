"""voxelrt run on arrays: a network that takes no volumes (signals, features, states) on .npy files."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxelrt.commands.console import Screen
from voxelrt.commands.models import plan_of
from voxelrt.commands.options import Shapes
from voxelrt.errors import InputError, UsageError
from voxelrt.io.arrays import SUFFIX, SUFFIXES_OUT, read_array, write_npz
from voxelrt.io.atomic import atomic_path
from voxelrt.kernels.common.capi import numpy_dtype
from voxelrt.plan.plan import Plan

Array = NDArray[Any]


def are_arrays(inputs: Mapping[str, Path]) -> bool:
    """Whether what is given as --input are arrays, not images. Raises UsageError: some are."""
    arrays = [path.suffix == SUFFIX for path in inputs.values()]
    if any(arrays) and not all(arrays):
        raise UsageError("--input takes images or .npy arrays, not both")
    return any(arrays)


def run_arrays(
    model: str,
    inputs: Mapping[str, Path],
    out: Path | None,
    screen: Screen,
    *,
    shapes: Shapes | None,
    precision: str,
    fallback: str,
    threads: int | None,
) -> None:
    """Run once and write every output: .npz by name, .npy where there is one alone.

    Raises
    ------
    UsageError : another name of the output, inputs that are missing. InputError : arrays that do not fit the network.
    """
    if out is not None and out.suffix not in SUFFIXES_OUT:
        raise UsageError(f"-o {out.name!r}: the outputs of a run on arrays go into .npz, or .npy where there is one")
    arrays = {name: read_array(name, path) for name, path in inputs.items()}
    with screen.progress() as (_, say):
        given: Shapes = shapes or {name: array.shape for name, array in arrays.items()}
        plan = plan_of(
            model,
            shapes=None if model.endswith(".vxp") else given,
            precision=precision,
            fallback=fallback,
            threads=threads,
            say=say,
        )
        ready = _fitting(plan, arrays)
        if out is not None and out.suffix == ".npy" and len(plan.outputs) != 1:
            raise UsageError(f"the network has {len(plan.outputs)} outputs: -o takes an .npz")
        start = time.perf_counter()
        answer = {name: np.asarray(array) for name, array in plan.run(ready).items()}
        seconds = time.perf_counter() - start
    for name, array in answer.items():
        screen.line(f"{name}: {' × '.join(map(str, array.shape)) or 'a number'}, {array.dtype}{_range(array)}")
    screen.line(f"run {seconds:.3f} s")
    if out is not None:
        with atomic_path(out) as target, target.open("wb") as file:
            if out.suffix == ".npy":
                np.save(file, next(iter(answer.values())), allow_pickle=False)
            else:
                write_npz(file, answer)
        screen.line(f"wrote {out}")
    rows = {n: {"shape": list(a.shape), "dtype": str(a.dtype)} for n, a in answer.items()}
    screen.json({"out": None if out is None else str(out), "outputs": rows, "timings_s": {"run": seconds}})


def _fitting(plan: Plan, arrays: Mapping[str, Array]) -> dict[str, Array]:
    wanted = {io.name: numpy_dtype(io.dtype) for io in plan.inputs}
    missing = [name for name in wanted if name not in arrays]
    unknown = sorted(set(arrays) - set(wanted))
    if missing or unknown:
        what = f"misses {', '.join(missing)}" if missing else f"names {', '.join(unknown)}"
        raise UsageError(f"--input {what}; the network takes {', '.join(wanted)}")
    made = {}
    for name, array in arrays.items():
        if array.dtype != wanted[name] and not np.can_cast(array.dtype, wanted[name], "same_kind"):
            raise InputError(f"--input {name}: an array of {array.dtype}; the network takes {wanted[name]}")
        made[name] = np.ascontiguousarray(array).astype(wanted[name], copy=False).reshape(array.shape)
    return made


def _range(array: Array) -> str:
    if not array.size or array.dtype.kind not in "biuf":
        return ""
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        return ", not finite everywhere"
    return f", {array.min():.4g} to {array.max():.4g}"
