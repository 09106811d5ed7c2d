"""copy as a CUDA program."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from voxelrt.errors import UnsupportedError
from voxelrt.kernels.common.gpu.program import Program, Tensor
from voxelrt.kernels.common.kernel import Array

ENTRIES = tuple(f"voxelrt_copy_b{bits}" for bits in (8, 16, 32, 64))
_AXES = 5
_BLOCK = 256


def program(array: Array, *, order: Sequence[int]) -> Program:
    made = Program(__file__)
    view = np.transpose(array, order)
    if view.ndim > _AXES or view.dtype.itemsize > 8:
        raise UnsupportedError(f"copy on cuda takes no {view.dtype} of {view.ndim} axes: use backend='cpu'")
    out = made.output(view.shape, np.dtype(f"u{view.dtype.itemsize}"))
    made.finish(lambda found: found.view(view.dtype))
    launch(made, out, made.input(view.view(out.dtype)))
    return made


def launch(made: Program, out: Tensor, source: Tensor) -> None:
    """Add a launch that copies a tensor of up to five axes, of any strides, into one without gaps."""
    ahead = _AXES - len(source.shape)
    sizes, strides = (*(1,) * ahead, *source.shape), (*(0,) * ahead, *source.strides)
    blocks = min(-(-out.size // _BLOCK), 1 << 16)
    name = f"voxelrt_copy_b{8 * np.dtype(out.dtype).itemsize}"
    made.launch(name, blocks, out, source, out.size, *sizes[1:], *strides, block=_BLOCK)
