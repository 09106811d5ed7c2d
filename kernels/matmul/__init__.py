"""matmul: products of matrices with batches, broadcasting, a bias and an activation; floats and integers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np

from voxelrt.kernels.common.kernel import Array, Case, Kernel
from voxelrt.kernels.matmul.oracle import matmul as oracle

_ROUNDING = {"float64": 1e-13, "float32": 1e-6, "float16": 1e-3, "bfloat16": 8e-3}


def _random(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> Array:
    if dtype in _ROUNDING:
        return rng.normal(0, 1, shape).astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max, shape, dtype=dtype, endpoint=True)


def _case(
    a: tuple[int, ...],
    b: tuple[int, ...],
    dtype: str = "float32",
    *,
    c: tuple[int, ...] | None = None,
    b_dtype: str = "",
    zeros: tuple[tuple[int, ...], tuple[int, ...]] | None = None,
    **options: Any,
) -> Case:
    def make(rng: np.random.Generator) -> tuple[Sequence[Any], Mapping[str, Any]]:
        arrays = [_random(rng, a, dtype), _random(rng, b, b_dtype or dtype)]
        arrays += [] if c is None else [_random(rng, c, dtype)]
        chosen = dict(options)
        if zeros is not None:
            chosen |= {"zero_a": _random(rng, zeros[0], dtype), "zero_b": _random(rng, zeros[1], b_dtype or dtype)}
        return arrays, chosen

    k = a[-2] if options.get("transpose_a") else a[-1]
    n = 1 if len(b) == 1 else b[-2] if options.get("transpose_b") else b[-1]
    rows = float(np.prod(a)) / max(k, 1)
    moved = 4 * (float(np.prod(a)) + float(np.prod(b)) + rows * n)
    words = ["x".join(map(str, a)), "x".join(map(str, b)), dtype]
    words += [name for name in ("transpose_a", "transpose_b", "packed") if options.get(name)]
    words += ["c" + "x".join(map(str, c))] if c is not None else []
    words += [options["activation"][0]] if "activation" in options else []
    words += ["zeros" + "x".join(map(str, (*zeros[0], *zeros[1])))] if zeros else []
    return Case("-".join(words), make, _ROUNDING.get(dtype, 0.0), 2 * rows * k * n, moved, bench=rows * k * n > 1e7)


KERNEL = Kernel(
    name="matmul",
    oracle=oracle,
    cases=(
        _case((1, 1), (1, 1)),
        _case((5,), (5,)),
        _case((4, 5), (5,)),
        _case((5,), (3, 5, 7)),
        _case((3, 300), (300, 37)),
        _case((3, 0), (0, 4), c=(4,)),
        _case((3, 4), (4, 0)),
        _case((29, 17), (33, 17), transpose_b=True, c=(33,), activation=("sigmoid", 0.0, 0.0)),
        _case((17, 29), (17, 33), transpose_a=True, c=(29, 1), alpha=0.5, beta=2.0),
        _case((2, 3, 31, 40), (3, 40, 35)),
        _case((2, 1, 31, 40), (1, 3, 40, 35), c=(31, 35)),
        _case((4, 50, 64), (64, 70), packed=True, c=(70,), activation=("leaky_relu", 0.1, 0.0)),
        _case((1, 512), (1000, 512), packed=True, transpose_b=True, c=(1000,)),
        _case((12, 197, 64), (12, 197, 64), transpose_b=True),
        _case((256, 256), (256, 256)),
        _case((197, 768), (768, 768), packed=True, c=(768,)),
        _case((33, 70), (70, 45), "float64", c=(45,), activation=("gelu", 0.0, 0.0)),
        _case((2, 33, 70), (2, 70, 45), "float16", c=(45,)),
        _case((33, 70), (70, 45), "bfloat16", packed=True),
        _case((33, 70), (70, 45), "int32", c=(33, 45)),
        _case((3, 9, 7), (7, 5), "uint64"),
        _case((33, 300), (300, 45), "uint8", b_dtype="int8", zeros=((), ())),
        _case((2, 33, 30), (2, 30, 45), "int8", zeros=((33,), (45,))),
        _case((20, 30), (30, 45), "uint8"),
    ),
)


def matmul(
    a: Array,
    b: Array,
    c: Array | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transpose_a: bool = False,
    transpose_b: bool = False,
    activation: str = "none",
    slope: float = 0.01,
    backend: str = "auto",
) -> Array:
    """``activation(alpha · a·b + beta · c)``, with the batches of ``numpy.matmul``.

    Parameters
    ----------
    a, b : (..., M, K) and (..., K, N), or one-dimensional as in ``numpy.matmul``; may have gaps. float32, float64,
        float16, bfloat16 (the last two summed in float32), int32, uint32, int64 or uint64 (which wrap). int8 and uint8,
        also mixed, give int32.
    c : broadcast to the result, in its dtype.
    alpha, beta : one for integers.
    transpose_a, transpose_b : take the last two axes the other way round.
    activation : a name of ``kernels.common.activation.ACTIVATIONS``; not for integers.
    slope : of ``leaky_relu`` and ``elu``.
    backend : ``auto`` or ``cpu``.

    Raises
    ------
    ShapeError : shapes that do not multiply, or a dtype that the kernel does not take.
    """
    result: Array = KERNEL(
        a,
        b,
        c,
        alpha=alpha,
        beta=beta,
        transpose_a=transpose_a,
        transpose_b=transpose_b,
        activation=(activation, slope, 0.0),
        backend=backend,
    )
    return result
