"""MDLSTM of our own domain for the ONNX reference evaluator, by its float64 oracle."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray
from onnx.reference.op_run import OpRun

Array = NDArray[Any]


def grids() -> list[type[OpRun]]:
    """The operators' classes."""
    from voxelrt.kernels.mdlstm.oracle import mdlstm

    class MDLSTM(OpRun):  # type: ignore[misc]
        op_domain = "voxelrt"

        def _run(self, x: Array, w: Array, r: Array, b: Array | None = None, **_: Any) -> tuple[Array]:
            return (mdlstm(x, w, r, b).astype(x.dtype),)

    return [MDLSTM]
