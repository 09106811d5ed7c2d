"""Programs of one launch of products/cuda.cu."""

from __future__ import annotations

from voxelrt.kernels.common.gpu.program import Program
from voxelrt.kernels.common.kernel import Array

ENTRIES = tuple(f"voxelrt_products_{name}" for name in ("f16", "bf16", "tf32", "load", "round"))


def program(what: str, *inputs: Array, shape: tuple[int, ...], dtype: type, numbers: tuple[int, ...] = ()) -> Program:
    made = Program(__file__)
    out = made.output(shape, dtype)
    made.launch(f"voxelrt_products_{what}", 1, out, *(made.input(a) for a in inputs), *map(bool, numbers), block=32)
    return made
