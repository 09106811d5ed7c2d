"""preprocess: stored values to a network's input, in one pass: rescale, clip, normalise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np

from voxelrt.errors import ShapeError, UsageError
from voxelrt.kernels.common.kernel import Array, Case, Kernel
from voxelrt.kernels.preprocess.oracle import preprocess as oracle

DTYPES = ("float32", "float16", "bfloat16")
_TOLERANCES = {"float32": 1e-6, "float16": 5e-4, "bfloat16": 4e-3}


def _case(
    shape: tuple[int, ...],
    given: str = "int16",
    dtype: str = "float32",
    *,
    axes: Any = None,
    bench: bool = False,
    **options: Any,
) -> Case:
    def make(rng: np.random.Generator) -> tuple[Sequence[Any], Mapping[str, Any]]:
        volume = rng.integers(0, 200, shape) - (0 if given.startswith("u") else 100)
        volume = volume.astype(ml_dtypes.bfloat16 if given == "bfloat16" else given)
        volume = volume if axes is None else volume.transpose(axes)
        channels = volume.shape[-4]
        mean, deviation = rng.normal(0, 30, channels), rng.uniform(5, 60, channels)
        return (volume,), {"mean": mean, "deviation": deviation, "dtype": dtype, **options}

    words = ["x".join(map(str, shape)), given, dtype, *map(str, options), *(["strided"] if axes else [])]
    moved = float(np.prod(shape)) * (np.dtype("i2" if given == "bfloat16" else given).itemsize + 4)
    return Case("-".join(words), make, _TOLERANCES[dtype], 5 * float(np.prod(shape)), moved, bench)


_HOUNSFIELD: dict[str, Any] = {"slope": 1.5, "intercept": -20.25, "low": -60.0, "high": 50.0}

KERNEL = Kernel(
    name="preprocess",
    oracle=oracle,
    cases=(
        _case((1, 1, 1, 1)),
        *(_case((2, 3, 5, 37), given, **_HOUNSFIELD) for given in ("int16", "uint16", "int8", "uint8", "int32")),
        *(_case((2, 3, 5, 37), given, **_HOUNSFIELD) for given in ("float32", "float16", "bfloat16", "float64")),
        *(_case((2, 3, 5, 37), dtype=dtype, **_HOUNSFIELD) for dtype in DTYPES[1:]),
        _case((2, 3, 4, 5, 17), low=-30.0),
        _case((5, 3, 7, 2), axes=(3, 2, 1, 0), **_HOUNSFIELD),
        _case((2, 0, 4, 5)),
        _case((1, 64, 96, 96), bench=True, **_HOUNSFIELD),
        _case((1, 64, 96, 96), "float32", bench=True, **_HOUNSFIELD),
    ),
    backends=("cpu", "triton"),
)


def preprocess(
    volume: Array,
    *,
    slope: float = 1.0,
    intercept: float = 0.0,
    low: float = -np.inf,
    high: float = np.inf,
    mean: Sequence[float] = (0.0,),
    deviation: Sequence[float] = (1.0,),
    dtype: str = "float32",
    backend: str = "auto",
) -> Array:
    """Stored values to a network's input: ``(clip(slope x + intercept, low, high) - mean) / deviation``, in one pass.

    Parameters
    ----------
    volume : (C, Z, Y, X) or (N, C, Z, Y, X) of real numbers, of any strides. Float32, halves and whole numbers of up to
        16 bits are read as they are; others are turned into float32 first.
    slope, intercept : of the stored values, as DICOM and NIfTI have them.
    low, high : where values are cut, after slope and intercept; infinite: nowhere.
    mean, deviation : one for all channels, or one a channel, of the cut values.
    dtype : of the answer: float32, float16 or bfloat16; computed in float32.
    backend : see ``Kernel``.

    Returns
    -------
    The same shape. A NaN stays one.

    Raises
    ------
    ShapeError : other axes, or means and deviations that are not one or one a channel.
    UsageError : a deviation that is 0 or not finite, low above high, an unknown dtype, what is no real number.
    """
    if volume.ndim not in (4, 5):
        raise ShapeError(f"preprocess takes (C, Z, Y, X) or (N, C, Z, Y, X), not {volume.shape}")
    if volume.dtype.kind not in "biuf" and volume.dtype.name != "bfloat16":
        raise UsageError(f"preprocess takes real numbers, not {volume.dtype}")
    for word, values in (("mean", mean), ("deviation", deviation)):
        if np.ndim(values) != 1 or len(values) not in (1, volume.shape[-4]):
            raise ShapeError(f"{word} has {np.shape(values)} values; give one, or one for each of {volume.shape[-4]}")
        if not np.all(np.isfinite(values)):
            raise UsageError(f"{word} is {list(values)}; its values are finite")
    if not np.all(np.asarray(deviation, np.float32)) or not low <= high:
        raise UsageError(f"deviations {list(deviation)} are not 0, and low {low:g} is not above high {high:g}")
    if not (np.isfinite(slope) and np.isfinite(intercept)):
        raise UsageError(f"slope {slope:g} and intercept {intercept:g} are finite numbers")
    if dtype not in DTYPES:
        raise UsageError(f"dtype is {dtype!r}; it is one of {', '.join(DTYPES)}")
    cut: dict[str, Any] = {"slope": slope, "intercept": intercept, "low": low, "high": high}
    result: Array = KERNEL(volume, **cut, mean=mean, deviation=deviation, dtype=dtype, backend=backend)
    return result
