"""Rows less their means, as a CUDA program."""

from __future__ import annotations

from voxelrt.kernels.common.gpu.program import Program
from voxelrt.kernels.common.kernel import Array

ENTRIES = ("voxelrt_mutants_center",)


def program(x: Array) -> Program:
    """x (rows, columns) float32, any strides along the rows -> the same less each row's mean."""
    made = Program(__file__)
    source, out = made.input(x), made.output(x.shape)
    made.launch(ENTRIES[0], x.shape[0], out, source, x.shape[1], source.strides[0], block=128, shared=512)
    return made
