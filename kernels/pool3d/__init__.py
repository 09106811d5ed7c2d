"""pool3d: maximum, average and p-norm over windows of one to three axes, or over whole volumes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np

from voxelrt.kernels.common.kernel import Array, Case, Kernel
from voxelrt.kernels.pool3d.oracle import pool3d as oracle

_ROUNDING = {"float64": 1e-12, "float32": 1e-6, "float16": 1e-3, "bfloat16": 8e-3}


def _dtype(name: str) -> np.dtype[Any]:
    """NumPy's, or bfloat16."""
    return np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)


def _case(shape: tuple[int, ...], dtype: str = "float32", *, pending: bool = False, **options: Any) -> Case:
    def make(rng: np.random.Generator) -> tuple[Sequence[Any], Mapping[str, Any]]:
        x = rng.normal(0, 40, shape).astype(_dtype(dtype))
        chosen = dict(options)
        if pending:
            chosen["pending"] = (
                rng.normal(0, 1, shape[:2]).astype(np.float32),
                rng.normal(0, 1, shape[:2]).astype(np.float32),
                0.1,
            )
        return (x,), chosen

    exact = options.get("mode", "max") == "max" and not pending
    window = options.get("kernel") or shape[2:]
    stride = options.get("stride") or ([1] if options.get("kernel") else window)
    elements = float(np.prod(shape))
    answers = elements / float(np.prod(stride))
    flops, moved = answers * float(np.prod(window)), (elements + answers) * _dtype(dtype).itemsize
    words = [options.get("mode", "max"), "x".join(map(str, shape)), dtype, options.get("layout", "linear")]
    words += ["pending"] * pending + [k for k in ("ceil_mode", "count_include_pad", "indices") if options.get(k)]
    words += [f"{k}{'x'.join(map(str, v))}" for k, v in options.items() if k in ("kernel", "stride") and v]
    tolerance = 0.0 if exact else _ROUNDING.get(dtype, 0.0)
    return Case("-".join(words), make, tolerance, flops, moved, bench=moved > 1e6)


_TWO: dict[str, Any] = {"kernel": (2, 2, 2), "stride": (2, 2, 2)}
_WIDE: dict[str, Any] = {
    "kernel": (3, 2, 4),
    "stride": (2, 1, 3),
    "dilation": (1, 2, 1),
    "pad_begin": (1, 0, 2),
    "pad_end": (0, 1, 1),
}
KERNEL = Kernel(
    name="pool3d",
    oracle=oracle,
    cases=(
        _case((1, 1, 1, 1, 1), kernel=(1, 1, 1)),
        _case((1, 17, 5, 7, 9), layout="blocked", **_TWO),
        _case((2, 17, 5, 7, 9), layout="blocked", pending=True, ceil_mode=True, **_WIDE),
        _case((1, 32, 24, 48, 64), layout="blocked", **_TWO),
        _case((1, 32, 24, 48, 64), layout="blocked", pending=True, **_TWO),
        _case((1, 32, 16, 24, 32), layout="blocked", kernel=(3, 3, 3), stride=(2, 2, 2), pad_begin=(1, 1, 1)),
        _case((2, 3, 6, 7, 9), **_WIDE),
        _case((2, 3, 6, 7, 9), "int8", **_WIDE),
        _case((2, 3, 7, 9), "uint8", kernel=(3, 3), stride=(1, 1), pad_begin=(1, 1), pad_end=(1, 1)),
        _case((2, 3, 23), "float16", kernel=(5,), stride=(2,), ceil_mode=True),
        _case((1, 16, 24, 32, 64), **_TWO),
        _case((2, 3, 6, 7, 9), "float64", indices=True, ceil_mode=True, **_WIDE),
        _case((2, 3, 6, 7, 9), indices=True, column_major=True, **_WIDE),
        _case((2, 19, 6, 7, 9), mode="average", layout="blocked", count_include_pad=True, ceil_mode=True, **_WIDE),
        _case((2, 19, 6, 7, 9), mode="average", layout="blocked", pending=True, **_WIDE),
        _case((1, 32, 24, 48, 64), mode="average", layout="blocked", **_TWO),
        _case((2, 3, 6, 7, 9), mode="average", count_include_pad=True, **_WIDE),
        _case((2, 3, 6, 7, 9), "bfloat16", mode="average", **_WIDE),
        _case((2, 3, 6, 7, 9), "float64", mode="average", ceil_mode=True, **_WIDE),
        _case((2, 3, 7, 9), mode="lp", p=3, kernel=(2, 2), stride=(2, 2)),
        _case((2, 3, 7, 9), mode="lp", p=2, kernel=(2, 2), stride=(1, 1)),
        _case((2, 19, 6, 7, 9), mode="max", layout="blocked"),
        _case((2, 19, 6, 7, 9), mode="average", layout="blocked", pending=True),
        _case((1, 32, 24, 48, 64), mode="average", layout="blocked"),
        _case((1, 16, 24, 48, 64), mode="average"),
        _case((2, 3, 67, 71), "float16", mode="average"),
        _case((2, 3, 67, 71), "float64", mode="max"),
        _case((2, 3, 67), mode="lp", p=1),
        _case((1, 0, 4, 4, 4), **_TWO),
    ),
)


def pool3d(
    x: Array,
    *,
    mode: str = "max",
    kernel: Sequence[int] | None = None,
    stride: Sequence[int] | None = None,
    dilation: Sequence[int] | None = None,
    pad_begin: Sequence[int] | None = None,
    pad_end: Sequence[int] | None = None,
    ceil_mode: bool = False,
    count_include_pad: bool = False,
    p: int = 2,
    indices: bool = False,
    column_major: bool = False,
    backend: str = "auto",
) -> Array | tuple[Array, Array]:
    """Pool over one to three axes, as ONNX's MaxPool, AveragePool, LpPool and their global forms do.

    Parameters
    ----------
    x : (N, C, X), (N, C, Y, X) or (N, C, Z, Y, X); float32, float64, float16 or bfloat16, for max also int8, uint8.
    mode : ``max`` (NaNs are passed over), ``average`` or ``lp``.
    kernel : the window, one number an axis; None takes the whole volume and gives one voxel.
    stride, dilation, pad_begin, pad_end : one number an axis; 1, 1, 0, 0 by default.
    ceil_mode : a last window that reaches over the end counts, unless it starts in the padding behind.
    count_include_pad : an average divides by the taps inside the padded axis, not only by those inside the volume.
    p : of ``lp``: (Σ |x|^p)^(1/p).
    indices : also give where each maximum is, as an offset into ``x`` (int64); ``column_major`` counts the first
        spatial axis fastest.

    Returns
    -------
    (N, C, outputs of each axis) in the dtype of ``x``; with ``indices`` also an int64 array of that shape.

    Raises
    ------
    UsageError : an unknown mode or a wrong count of numbers.
    ShapeError : a dtype or a window that the kernel does not take.
    """
    result: Array | tuple[Array, Array] = KERNEL(
        x,
        mode=mode,
        kernel=kernel,
        stride=stride,
        dilation=dilation,
        pad_begin=pad_begin,
        pad_end=pad_end,
        ceil_mode=ceil_mode,
        count_include_pad=count_include_pad,
        p=p,
        indices=indices,
        column_major=column_major,
        backend=backend,
    )
    return result
