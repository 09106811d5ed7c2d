"""The rows of single kernels: warps, integration, denoising, filters."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from bench.gpu import peers
from bench.gpu.contest import SUBJECT, Array, Contestant, Row, array_of
from bench.gpu.scale import Scale, noise
from voxelrt.kernels.common.gpu.device import open_device
from voxelrt.kernels.common.kernel import entries
from voxelrt.kernels.integrate import smooth_field


def _kernel(op: str, *arguments: Any, **options: Any) -> Contestant:
    """An op's kernels on memory of the device: those in CUDA, where there are some."""
    device, kernel = open_device("bench.gpu"), entries()[op]
    backend = next(backend for backend in ("cuda", "triton") if backend in kernel.backends)
    program = kernel.program(backend)(*arguments, **options)
    loaded = device.resident(program)
    return Contestant(SUBJECT, loaded.run, lambda: array_of(loaded.answer()))


@cache
def _warp_inputs(edge: int) -> tuple[Array, Array]:
    field = smooth_field(np.random.default_rng(1), 1, (edge,) * 3, 6.0).astype(np.float32)
    return noise((1, 1, edge, edge, edge)), field


@cache
def _velocity(edge: int) -> Array:
    return smooth_field(np.random.default_rng(2), 1, (edge,) * 3, 3.0).astype(np.float32)


def kernel_rows(scale: Scale) -> list[Row]:
    """Warps, integration and denoising."""
    edge, half, noisy, steps = scale.warp, scale.velocity, scale.noisy, scale.steps
    search: dict[str, Any] = {"search": scale.search, "patch": 1, "noise": "gaussian"}
    shape = (noisy,) * 3
    ops = entries()
    warped: dict[str, Callable[[], Contestant]] = {
        SUBJECT: lambda: _kernel("warp3d", *_warp_inputs(edge), padding="border")
    }
    integrated: dict[str, Callable[[], Contestant]] = {
        SUBJECT: lambda: _kernel("integrate", _velocity(half), steps=steps)
    }
    denoised: dict[str, Callable[[], Contestant]] = {
        SUBJECT: lambda: _kernel("non_local_means", noise(shape), 1.0, **search)
    }
    return [
        Row(
            "warp3d",
            f"trilinear warp of {edge}³ by a dense field",
            (float(edge**3), "voxels"),
            1e-4,
            lambda: array_of(ops["warp3d"](*_warp_inputs(edge), padding="border")),
            warped | peers.warps(lambda: _warp_inputs(edge)),
        ),
        Row(
            "integrate",
            f"scaling and squaring of {half}³ in {steps} steps",
            (float(half**3), "voxels"),
            1e-4,
            lambda: array_of(ops["integrate"](_velocity(half), steps=steps)),
            integrated | peers.integrations(lambda: _velocity(half), steps),
        ),
        Row(
            "non_local_means",
            f"non-local means of {noisy}³, radii {search['search']} and 1 (no peer has them on a GPU)",
            (float(noisy**3), "voxels"),
            1e-4,
            lambda: array_of(ops["non_local_means"](noise(shape), 1.0, **search)),
            denoised,
        ),
    ]


def filter_rows(scale: Scale) -> list[Row]:
    """Filters that other libraries have on a GPU too."""
    edge, ops = scale.warp, entries()
    shape = (edge,) * 3
    filters: list[tuple[str, str, tuple[float, ...], dict[str, Any]]] = [
        ("gaussian", "Gaussian of width 1", (1.0,), {}),
        ("median", "median of 3³", (), {}),
        ("total_variation", "total variation, 10 steps", (0.5,), {"tolerance": 0.0, "iterations": 10}),
    ]
    return [
        Row(
            op,
            f"{title} of {edge}³",
            (float(edge**3), "voxels"),
            1e-4,
            lambda op=op, given=given, options=options: array_of(ops[op](noise(shape), *given, **options)),  # type: ignore[misc]
            {SUBJECT: lambda op=op, given=given, options=options: _kernel(op, noise(shape), *given, **options)}  # type: ignore[misc, dict-item]
            | peers.filters(op, lambda: noise(shape)),
        )
        for op, title, given, options in filters
    ]
