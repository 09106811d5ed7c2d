"""conv3d as a CUDA program: an implicit matrix product over channels-last volumes; depth-wise without one.

float32 is multiplied as it is (``precision="fp32"``) or on tensor cores as TF32, float16 or bfloat16; half types on
tensor cores in their own type. Sums are float32. Pending norms, two sources, bias, residual and activation are part of
the launch; ``statistics`` add one that merges the tiles' moments.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from voxelrt.errors import UnsupportedError
from voxelrt.kernels.common.gpu.program import TYPE_NAMES, Program, Tensor
from voxelrt.kernels.common.kernel import Array
from voxelrt.kernels.common.windows import Padding, Triple
from voxelrt.kernels.conv3d.device_arguments import PRECISIONS, Problem, first, problem
from voxelrt.kernels.conv3d.oracle import Pending, Statistics
from voxelrt.kernels.norm3d.cuda import merge

_STORAGE = {"fp32": "f32", "fp16": "f16", "bf16": "bf16"}
_ROWS, _COLUMNS = 128, (64, 16)  # of a block's tile
_PRODUCTS = (*(f"f32_{precision}" for precision in PRECISIONS), "f16_fp16", "bf16_bf16")
ENTRIES = (
    *(f"voxelrt_conv3d_{product}_{columns}" for product in _PRODUCTS for columns in _COLUMNS),
    *(f"voxelrt_conv3d_depthwise_{storage}" for storage in _STORAGE.values()),
    "voxelrt_conv3d_merge",
)


def program(
    x: Array,
    weights: Array,
    bias: Array | None = None,
    *,
    stride: Triple = 1,
    padding: Padding = 0,
    dilation: Triple = 1,
    groups: int = 1,
    activation: str = "none",
    alpha: float = 0.0,
    beta: float = 0.0,
    second: Array | None = None,
    residual: Array | None = None,
    algorithm: str = "auto",
    tile: Triple | None = None,
    precision: str = "fp32",
    source_scale: float = 0.0,
    pending: Pending | None = None,
    statistics: Statistics | None = None,
) -> Program:
    made = Program(__file__)
    if algorithm not in ("auto", "direct", "depthwise"):
        raise UnsupportedError(f"conv3d on cuda has no algorithm {algorithm!r}: use backend='cpu'")
    if precision not in PRECISIONS:
        raise UnsupportedError(f"conv3d on cuda has no precision {precision!r}; it has {', '.join(PRECISIONS)}")
    window = (stride, padding, dilation)
    on = problem(made, x, weights, bias, second, residual, groups, window, (activation, alpha, beta), pending)
    out = on.output()
    if statistics is not None:
        return _with_statistics(on, out, statistics, precision)
    made.finish(first)
    if out.size:
        if on.depthwise and precision == "fp32":
            _launch_depthwise(on, out)
        else:
            _launch(on, out, precision, None)
    return made


def _with_statistics(on: Problem, out: Tensor, norm: Statistics, precision: str) -> Program:
    """The convolution and, from its tiles' moments, the scale and shift of the norm that follows."""
    made = on.program
    if on.activation[0] != 0 or on.depthwise or out.size == 0:
        raise UnsupportedError("statistics are of a convolution without an activation that is not depth-wise")
    vectors = [made.input(np.broadcast_to(np.asarray(v, np.float32), (on.batch, on.outputs))) for v in norm[:2]]
    scale, shift = (made.output((on.batch, on.outputs)) for _ in range(2))
    means, squares = (made.scratch((on.batch, -(-on.positions // _ROWS), on.outputs)) for _ in range(2))
    _launch(on, out, precision, (means, squares))
    answers, moments = (scale, shift), (means, squares)
    merge(made, ENTRIES[-1], answers, moments, (vectors[0], vectors[1]), on.positions, _ROWS, 1, norm[2])
    made.finish(lambda y, a, b: (first(y), a, b))
    return made


def _flags(on: Problem, moments: bool = False) -> np.int32:
    """What there is, a bit each, as the entries read it."""
    there = (on.sources[0].scale, on.sources[1:], on.bias, on.residual, moments or None)
    return np.int32(sum(1 << bit for bit, value in enumerate(there) if value is not None and value != []))


def _geometry(on: Problem) -> list[Any]:
    """The numbers that end both kernels' signatures: of windows, what is pending, and the activation."""
    sizes = [np.int32(v) for v in (*on.kernel, *on.stride, *on.dilation, *on.before)]
    return [*sizes, on.slope, np.int32(on.activation[0]), *on.activation[1:]]


def _launch(on: Problem, out: Tensor, precision: str, moments: tuple[Tensor, Tensor] | None) -> None:
    outputs, (one, other) = on.outputs // on.groups, (on.sources[0], on.sources[-1])
    columns = next((c for c in sorted(_COLUMNS) if outputs <= c), max(_COLUMNS))
    kind = TYPE_NAMES[np.dtype(on.dtype)]
    product = precision if kind == "fp32" else kind
    on.program.launch(
        f"voxelrt_conv3d_{_STORAGE[kind]}_{product}_{columns}",
        (-(-on.positions // _ROWS), -(-outputs // columns), on.batch * on.groups),
        *(out, one.x, one.weights, one.scale or out, one.shift or out),
        *(other.x, other.weights, other.scale or out, other.shift or out),
        *(on.bias or out, on.residual or out, *(moments or (out, out))),
        *(one.channels, other.channels, on.outputs, on.positions),
        *(np.int32(source.channels // on.groups) for source in (one, other)),
        *(np.int32(v) for v in (outputs, on.groups)),
        _flags(on, moments is not None),
        *(np.int32(v) for v in (*on.size, *on.out_size[1:])),
        *_geometry(on),
    )


def _launch_depthwise(on: Problem, out: Tensor) -> None:
    (source,) = on.sources
    lines = on.out_size[0] * on.out_size[1]
    on.program.launch(
        f"voxelrt_conv3d_depthwise_{_STORAGE[TYPE_NAMES[np.dtype(on.dtype)]]}",
        (-(-lines * -(-on.out_size[2] // 4) // 8), -(-on.outputs // 32), on.batch),
        *(out, source.x, source.weights, source.scale or out, source.shift or out, on.bias or out, on.residual or out),
        on.outputs,
        _flags(on),
        *(np.int32(v) for v in (*on.size, *on.out_size)),
        *_geometry(on),
        block=(32, 8),
    )
