"""norm3d: instance, group, layer, RMS, Lp, mean-variance and local response norms, and per-channel affines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np

from voxelrt.errors import UsageError
from voxelrt.kernels.common.activation import ACTIVATIONS
from voxelrt.kernels.common.kernel import Array, Case, Kernel
from voxelrt.kernels.norm3d.oracle import norm3d as oracle

_ROUNDING = {"float64": 1e-12, "float32": 1e-6, "float16": 1e-3, "bfloat16": 8e-3}


def _case(
    shape: tuple[int, ...],
    dtype: str = "float32",
    *,
    vector: tuple[int, ...] | None = None,
    mean: float = 3.0,
    **options: Any,
) -> Case:
    def make(rng: np.random.Generator) -> tuple[Sequence[Any], Mapping[str, Any]]:
        kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype
        x = rng.normal(mean, 2, shape).astype(kind)
        if vector is None:
            return (x,), options
        wide = kind if options.get("kind") in ("layer", "rms", "mean_variance") or dtype == "float64" else "float32"
        return (x, rng.normal(0, 1, vector).astype(wide), rng.normal(0, 1, vector).astype(wide)), options

    moved = float(np.prod(shape)) * (2 if dtype == "bfloat16" else np.dtype(dtype).itemsize)
    passes = 2 if options.get("kind") == "affine" else 3
    words = [options.get("kind", "instance"), "x".join(map(str, shape)), dtype, options.get("layout", "linear")]
    words += [f"{k}{v}" for k, v in options.items() if k in ("groups", "p", "axes")]
    words += [options["activation"][0]] if "activation" in options else []
    words += [f"mean{mean:g}"] if mean != 3.0 else []
    size = float(np.prod(shape))
    # A pending affine cancels the mean after rounding it.
    tolerance = 1e-5 if dtype == "float32" and mean > 3.0 else _ROUNDING[dtype]
    return Case("-".join(words), make, tolerance, 6 * size, passes * moved, bench=moved > 1e6)


KERNEL = Kernel(
    name="norm3d",
    backends=("cpu", "numba", "triton", "cuda"),
    oracle=oracle,
    cases=(
        _case((1, 1, 1, 1, 1), vector=(1,), epsilon=1.0),
        _case((2, 19, 5, 7, 9), vector=(19,), layout="blocked", activation=("leaky_relu", 0.01, 0.0)),
        _case((2, 19, 5, 7, 9), layout="blocked", mean=100.0),
        _case((2, 18, 5, 7, 9), vector=(18,), groups=3, layout="blocked"),
        _case((1, 32, 32, 48, 48), vector=(32,), layout="blocked", activation=("leaky_relu", 0.01, 0.0)),
        _case((1, 32, 32, 48, 48), vector=(32,), activation=("leaky_relu", 0.01, 0.0)),
        _case((2, 6, 67), "float16", vector=(6,), groups=2),
        _case((2, 6, 9, 11), "bfloat16", vector=(6,)),
        _case((1, 2, 65, 67, 5), vector=(2,), groups=1),
        _case((0, 3, 5), vector=(3,)),
        _case((2, 3, 0), vector=(3,)),
        _case((2, 19, 5, 7, 9), vector=(19,), kind="affine", activation=("leaky_relu", 0.2, 0.0)),
        _case((2, 19, 5, 7, 9), vector=(2, 19), kind="affine", layout="blocked", activation=("sigmoid", 0.0, 0.0)),
        _case((3, 5), "float64", vector=(5,), kind="affine"),
        _case((2, 5, 37), "float16", vector=(2, 5), kind="affine"),
        _case((1, 32, 32, 48, 48), vector=(32,), kind="affine", layout="blocked"),
        _case((5, 197, 768), vector=(768,), kind="layer", moments=True),
        _case((3, 4, 5, 7), "float64", vector=(5, 7), kind="layer", axes=(2, 3), mean=100.0, moments=True),
        _case((3, 33), "float16", vector=(33,), kind="layer"),
        _case((2, 3, 70, 700), vector=(3, 1, 1), kind="layer", axes=(1, 2, 3)),
        _case((3, 4, 257), "bfloat16", vector=(257,), kind="rms"),
        _case((3, 4, 257), vector=(257,), kind="rms"),
        _case((2, 3, 5, 4), kind="mean_variance", axes=(0, 2, 3), epsilon=1e-9),
        _case((3, 5, 4), kind="lp", axes=(1,), p=1),
        _case((3, 5, 4), "float64", kind="lp", axes=(0,), p=2),
        _case((2, 7, 5, 9), kind="response", response=(4, 0.2, 0.75, 1.5)),
        _case((2, 7, 600), "float16", kind="response"),
    ),
)


def norm3d(
    x: Array,
    gamma: Array | None = None,
    beta: Array | None = None,
    *,
    epsilon: float = 1e-5,
    groups: int = 0,
    activation: str = "none",
    slope: float = 0.01,
    backend: str = "auto",
) -> Array:
    """Instance or group norm, and the activation behind it: ``leaky((x − mean) / √(variance + ε) · γ + β)``.

    Instance norm: Ulyanov et al., arXiv:1607.08022. Group norm: Wu and He, arXiv:1803.08494.

    Parameters
    ----------
    x : (N, C, ...), float32, float16 or bfloat16.
    gamma, beta : (C,) float32; ones and zeros where None.
    epsilon : added to the variance (not corrected for bias, summed in float64).
    groups : channels share their statistics in so many groups; 0: each has its own (instance norm).
    activation : a name of ``kernels.common.activation.ACTIVATIONS``.
    slope : of ``leaky_relu`` and ``elu``, for negative values.
    backend : ``auto`` or ``cpu``.

    Returns
    -------
    The shape and dtype of ``x``.

    Raises
    ------
    UsageError : an unknown activation.
    ShapeError : a shape or dtype that the kernel does not take.
    """
    if activation not in ACTIVATIONS:
        raise UsageError(f"norm3d has no activation {activation!r}; it has {', '.join(ACTIVATIONS)}")
    result: Array = KERNEL(
        x, gamma, beta, groups=groups, epsilon=epsilon, activation=(activation, slope, 0.0), backend=backend
    )
    return result


def layer_norm(
    x: Array,
    gamma: Array | None = None,
    beta: Array | None = None,
    *,
    kind: str = "layer",
    axes: Sequence[int] = (-1,),
    epsilon: float = 1e-5,
    p: int = 2,
    moments: bool = False,
    backend: str = "auto",
) -> Array | tuple[Array, Array, Array]:
    """Norms over any axes, with statistics in float64.

    Parameters
    ----------
    x : any shape; float32, float64, float16 or bfloat16.
    gamma, beta : of the dtype of ``x``, broadcast against it; nothing where None.
    kind : ``layer`` ((x − mean) / √(variance + ε), Ba et al., arXiv:1607.06450), ``rms`` (x / √(mean(x²) + ε), Zhang
        and Sennrich, arXiv:1910.07467), ``mean_variance`` ((x − mean) / (√variance + ε), as ONNX has it) or ``lp``
        (x / ‖x‖_p; a row of zeros stays zeros).
    axes : the axes that a norm spans.
    epsilon : see ``kind``.
    p : of ``lp``: 1 or 2.
    moments : also give the mean and the factor 1/deviation, with axes of size one in place of ``axes``.
    backend : ``auto`` or ``cpu``.

    Raises
    ------
    UsageError : an unknown kind.
    ShapeError : a shape or dtype that the kernel does not take.
    """
    result: Array | tuple[Array, Array, Array] = KERNEL(
        x, gamma, beta, kind=kind, axes=axes, epsilon=epsilon, p=p, moments=moments, backend=backend
    )
    return result
