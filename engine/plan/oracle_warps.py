"""GridSample and our own operators for the ONNX reference evaluator, by the float64 oracles."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx.reference.op_run import OpRun

Array = NDArray[Any]


def warps() -> list[type[OpRun]]:
    """The operators' classes."""
    from voxelrt.kernels.integrate.oracle import integrate
    from voxelrt.kernels.warp3d import normalised, onnx_padding
    from voxelrt.kernels.warp3d.oracle import warp3d

    class GridSample(OpRun):  # type: ignore[misc]
        op_domain = ""

        def _run(self, x: Array, grid: Array, **a: Any) -> tuple[Array]:
            words = {"bilinear": "linear", "bicubic": "keys", "cubic": "keys"}
            mode = words.get(a.get("mode") or "linear", a.get("mode") or "linear")
            aligned = bool(a.get("align_corners") or 0)
            affine, matrix = normalised(x.shape[2:], aligned)
            padding = onnx_padding(mode, a.get("padding_mode") or "zeros", aligned)
            moved = np.moveaxis(grid, -1, 1)
            return (warp3d(x, moved, affine=affine, matrix=matrix, mode=mode, padding=padding),)

    class Warp(OpRun):  # type: ignore[misc]
        op_domain = "voxelrt"

        def _run(self, x: Array, field: Array | None = None, affine: Array | None = None, **a: Any) -> tuple[Array]:
            mode, padding = a.get("mode") or "linear", a.get("padding") or "zeros"
            return (warp3d(x, field, affine=affine, shape=a.get("shape"), mode=mode, padding=padding),)

    class IntegrateVelocity(OpRun):  # type: ignore[misc]
        op_domain = "voxelrt"

        def _run(self, velocity: Array, **a: Any) -> tuple[Array]:
            steps = a.get("steps")
            return (integrate(velocity, steps=7 if steps is None else steps, padding=a.get("padding") or "zeros"),)

    return [GridSample, Warp, IntegrateVelocity]
