"""Past 2³¹ elements: the last block of a volume that large, with the end of the volume in memory and nothing else.

What it writes is what the same code writes at the end of a small volume. An index that wraps at 32 bits falls outside
every buffer; a mutation shows that.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from tests.emulation.far_memory import Far, same_at_the_end
from tests.emulation.ptx.errors import OutOfBoundsError
from voxelrt.errors import MissingExtraError
from voxelrt.kernels.common.gpu.cuda_gates import SEQUENCES as CUDA_ROWS
from voxelrt.kernels.common.gpu.cuda_gates import TILE
from voxelrt.kernels.common.gpu.program import Program, Tensor
from voxelrt.kernels.common.kernel import entries
from voxelrt.kernels.resample_argmax.taps import Taps

RNG = np.random.default_rng(31)
PLANES, ROWS, COLUMNS = 7, 24, 32
AREA = ROWS * COLUMNS
VOXELS = PLANES * AREA
DEPTH = (1 << 22) - 1  # of the large volume: 3.2 · 10⁹ voxels; no more a multiple of 16 than the small one's, nor of 8
MISSING = (DEPTH - PLANES) * AREA
LARGE = {PLANES: DEPTH} | {k * VOXELS: k * DEPTH * AREA for k in (1, 2, 3, 16, 32)}


def _program(op: str, backend: str, *given: Any, **options: Any) -> Program:
    try:
        return entries()[op].program(backend)(*given, **options)
    except MissingExtraError as error:
        pytest.skip(str(error))


def _volume(channels: int = 1, dtype: Any = np.float32) -> np.ndarray:
    shape = (1, channels, PLANES, ROWS, COLUMNS)
    return RNG.normal(size=shape).astype(dtype) if np.dtype(dtype).kind == "f" else RNG.integers(0, 99, shape, dtype)


def _field() -> np.ndarray:
    return RNG.uniform(-1.4, 1.4, (1, 3, PLANES, ROWS, COLUMNS)).astype(np.float32)


def _large(made: Program, index: int, interleaved: int = 1) -> tuple[dict[int, Far], int]:
    """How the tensors of a launch lie in the large volume, and its blocks along x there.

    interleaved : elements of a voxel that lie together, in buffers of so many times the volume.
    """
    launch, found = made.launches[index], dict[int, Far]()
    blocks = launch.grid[0] * (DEPTH * AREA // 128) // (VOXELS // 128)
    for value in launch.arguments:
        if not isinstance(value, Tensor):
            continue
        parts, rest = divmod(value.buffer.elements, VOXELS)
        if rest == 0 and parts == interleaved:
            found[id(value.buffer)] = Far(1, parts * MISSING)
        elif rest == 0 and parts:
            found[id(value.buffer)] = Far(parts, MISSING)
        elif value.buffer.elements == launch.grid[0] > 1:  # something of each block
            found[id(value.buffer)] = Far(1, blocks - launch.grid[0])
    return found, blocks


def _check(made: Program, index: int, blocks: int | None = None, interleaved: int = 1) -> None:
    far, usual = _large(made, index, interleaved)
    assert same_at_the_end(made, index, far, LARGE, blocks or usual) >= 1


FILTERS: dict[str, tuple[tuple[Any, ...], dict[str, Any], tuple[int, ...]]] = {
    # op -> arguments behind the volume, options, launches
    "gaussian": ((0.3,), {}, (2,)),
    "median": ((), {"radius": (1, 0, 1)}, (0,)),
    "bilateral": ((0.4, 0.5), {}, (0,)),
    "curvature_flow": ((), {"iterations": 1}, (0,)),
    "anisotropic_diffusion": ((), {"iterations": 1}, (0, 2)),
    "total_variation": ((0.3,), {"iterations": 1}, (0, 1, 2)),
}


@pytest.mark.parametrize("op", FILTERS)
def test_a_filter_of_voxels(op: str) -> None:
    behind, options, launches = FILTERS[op]
    made = _program(op, "triton", _volume()[0, 0], *behind, **options)
    for index in launches:
        _check(made, index)


def test_a_determinant_and_a_spline_s_coefficients() -> None:
    _check(_program("jacobian", "triton", _field()), 0)
    made = _program("spline_prefilter", "triton", _volume())
    far, _ = _large(made, 2)  # lines along x; those along z are too long to follow
    assert same_at_the_end(made, 2, far, {PLANES * ROWS: DEPTH * ROWS}, -(-DEPTH * ROWS // 128)) > COLUMNS


@pytest.mark.parametrize("backend", ["cuda", pytest.param("triton", marks=pytest.mark.slow)])
@pytest.mark.usefixtures("needs_nvcc")
def test_non_local_means(backend: str) -> None:
    made = _program("non_local_means", backend, _volume()[0, 0], 0.5, search=(1, 0, 1), patch=(1, 0, 1))
    mirrored, averaged = made.launches
    copy, source = (mirrored.arguments[k] for k in range(2))
    plane = ROWS * (COLUMNS + 2)
    far = {id(copy.buffer): Far(1, (DEPTH - PLANES) * plane), id(source.buffer): Far(1, MISSING)}
    out = averaged.arguments[0]
    block = mirrored.block[0]
    numbers = LARGE | {copy.size: (DEPTH + 2) * plane}
    same_at_the_end(made, 0, far, numbers, -(-(DEPTH + 2) * plane // block))
    pillars = -(-DEPTH // 4) * AREA
    same_at_the_end(made, 1, far | {id(out.buffer): Far(1, MISSING)}, numbers, -(-pillars // 128))


@pytest.mark.parametrize(
    "patch", [(1, 1, 1), *(pytest.param(p, marks=pytest.mark.slow) for p in ((0, 1, 1), (1, 0, 1)))]
)
@pytest.mark.usefixtures("needs_nvcc")
def test_non_local_means_of_blocks(patch: tuple[int, int, int]) -> None:
    volume, depth = _volume()[0, 0, :, :8, :16], (1 << 25) + 1  # few voxels here, as all are described and weighed
    area = 8 * 16
    made = _program("non_local_means_blocks", "cuda", volume, 0.5, search=(1, 0, 0), patch=patch, like_means=0)
    _, _, described, weighed, averaged = made.launches  # all of a volume passes the first two: too long to follow
    answers, copy, means, variances = weighed.arguments[:4]
    layers, each = answers.shape[2], answers.shape[3] * answers.shape[4]
    deep = -(-depth // (2 if patch[0] else 1))
    far = {id(t.buffer): Far(1, (depth - PLANES) * area) for t in (means, variances, averaged.arguments[0])}
    far[id(copy.buffer)] = Far(1, (depth - PLANES) * copy.shape[2] * copy.shape[3])
    far[id(answers.buffer)] = Far(answers.shape[1], (deep - layers) * each)
    for index, threads in ((2, depth * area), (3, deep * each), (4, depth * area)):
        same_at_the_end(made, index, far, {PLANES: depth}, -(-threads // described.block[0]))


@pytest.mark.parametrize("mode", ["linear", "nearest"])
@pytest.mark.parametrize("backend", ["triton", "cuda"])
@pytest.mark.usefixtures("needs_nvcc")
def test_a_warp(backend: str, mode: str) -> None:
    volume = _volume(2, np.float32 if mode == "linear" else np.int16)
    made = _program("warp3d", backend, volume, _field(), mode=mode)
    _check(made, 0, {"triton": DEPTH * ROWS, "cuda": DEPTH * ROWS // 8}[backend])


@pytest.mark.parametrize("backend", ["cuda", pytest.param("triton", marks=pytest.mark.slow)])
@pytest.mark.usefixtures("needs_nvcc")
def test_an_integration(backend: str) -> None:
    made = _program("integrate", backend, _field(), steps=2)
    assert len(made.launches) == 3
    blocks = DEPTH * AREA // made.launches[0].block[0] if backend == "cuda" else None
    for index in range(3):
        _check(made, index, blocks, interleaved=4)


@pytest.mark.parametrize("backend", ["triton", "cuda"])
@pytest.mark.usefixtures("needs_nvcc")
def test_a_stitch(backend: str) -> None:
    sums, logits = _volume(2)[0].swapaxes(0, 1).copy(), _volume(2)[0]
    made = _program("stitch", backend, sums, logits, RNG.uniform(size=(PLANES, ROWS, COLUMNS)).astype(np.float32))
    (launch,) = made.launches
    (out, old, new, weights), elements = launch.arguments[:4], 2 * MISSING
    far = {id(t.buffer): Far(1, elements) for t in (out, old)} | {id(new.buffer): Far(2, MISSING)}
    far[id(weights.buffer)] = Far(1, MISSING)
    blocks = {"triton": DEPTH * 2 * ROWS, "cuda": DEPTH * 2 * AREA // launch.block[0]}[backend]
    same_at_the_end(made, 0, far, LARGE, blocks)


@pytest.mark.parametrize("backend", ["triton", "cuda"])
@pytest.mark.usefixtures("needs_nvcc")
def test_labels_of_many_classes(backend: str) -> None:
    """A plane of logits has up to 2³¹ elements, and there are some classes."""
    plane = (12, 16)
    size, missing = plane[0] * plane[1], (1 << 31) + 64

    def planes() -> tuple[np.ndarray, np.ndarray]:
        counts = RNG.uniform(1, 2, plane)
        return RNG.normal(size=(3, *plane)).astype(np.float32), counts.astype(np.float32)

    rows, columns = (
        Taps(np.stack([np.arange(n), np.arange(n) + 1]).astype(np.int32), np.full(n, 0.25, np.float32)) for n in (8, 15)
    )
    values = np.arange(3, dtype=np.int32)
    made = _program("resample_argmax", backend, planes(), planes(), 0.5, rows, columns, values)
    (launch,) = made.launches
    far = {id(t.buffer): Far(3, missing, first=False) for t in launch.arguments[1:3]}
    same_at_the_end(made, 0, far, {size: size + missing}, launch.grid[0])


@pytest.mark.usefixtures("needs_nvcc")
def test_a_copy() -> None:
    _check(_program("copy", "cuda", _volume()[0, 0], order=(0, 2, 1)), 0, DEPTH * AREA // 256)


@pytest.mark.parametrize("backend", ["triton", pytest.param("cuda", marks=pytest.mark.slow)])
@pytest.mark.usefixtures("needs_nvcc")
def test_a_convolution(backend: str) -> None:
    x, weights = _volume(16, np.float16), RNG.normal(size=(16, 16, 3, 1, 1)).astype(np.float16)
    made = _program("conv3d", backend, x, weights, padding=(1, 0, 0))
    (launch,) = made.launches
    far = {id(value.buffer): Far(1, 16 * MISSING) for value in launch.arguments[:2]}
    rows = launch.constants.get("BM", 128)
    same_at_the_end(made, 0, far, {PLANES: DEPTH, VOXELS: DEPTH * AREA}, DEPTH * AREA // rows)


@pytest.mark.parametrize("backend", ["cuda", pytest.param("triton", marks=pytest.mark.slow)])
@pytest.mark.usefixtures("needs_nvcc")
def test_a_norm(backend: str) -> None:
    gamma, beta = RNG.normal(size=(2, 32)).astype(np.float32)
    made = _program("norm3d", backend, _volume(32), gamma, beta, activation=("leaky_relu", 0.1, 0.0))
    moments, _, apply = made.launches
    chunks = VOXELS // 128
    means = {id(t.buffer): Far(1, 32 * (DEPTH * AREA // 128 - chunks)) for t in moments.arguments[:2]}
    far = {id(t.buffer): Far(1, 32 * MISSING) for t in (moments.arguments[2], apply.arguments[0])}
    for index, lies in ((0, means | far), (2, far)):
        same_at_the_end(made, index, lies, {VOXELS: DEPTH * AREA}, DEPTH * AREA // 128)


SEQUENCES, MORE = 24, 1 << 28  # in a batch; and so many before them that are not there


@pytest.mark.parametrize("backend", ["triton", "cuda"])
@pytest.mark.usefixtures("needs_nvcc")
def test_many_sequences(backend: str) -> None:
    steps, inputs, hidden = 2, 5, 8
    x, w, r = (
        RNG.normal(size=size).astype(np.float32)
        for size in ((steps, SEQUENCES, inputs), (1, 32, inputs), (1, 32, hidden))
    )
    made = _program("lstm", backend, x, w, r)
    y, state, product = steps * SEQUENCES * hidden, SEQUENCES * hidden, steps * SEQUENCES * 4 * hidden
    widths = {
        y: (steps, hidden),
        state: (1, hidden),
        product: (steps, 4 * hidden),
        x.size: (steps, inputs),
        SEQUENCES: (1, 1),
    }
    numbers = {SEQUENCES: SEQUENCES + MORE}
    _few(made, len(made.launches) - 1, widths, numbers, MORE)
    _few(made, 0, {state: (1, hidden)}, {state: state + MORE * hidden}, MORE * hidden)
    if backend == "cuda":  # all rows of the input's product, one behind the other
        rows = steps * SEQUENCES
        _few(
            made,
            1,
            {product: (1, steps * 4 * hidden), x.size: (1, steps * inputs)},
            {rows: rows + steps * MORE},
            steps * MORE,
        )


@pytest.mark.parametrize("backend", ["triton", "cuda"])
@pytest.mark.usefixtures("needs_nvcc")
def test_many_grids_of_cells(backend: str) -> None:
    inputs, hidden = 3, 4
    x, w, r = (
        RNG.normal(size=size).astype(np.float32)
        for size in ((2, 2, SEQUENCES, inputs), (4, 5 * hidden, inputs), (4, 5 * hidden, 2 * hidden))
    )
    made = _program("mdlstm", backend, x, w, r)
    out, product = 16 * SEQUENCES * hidden, 16 * SEQUENCES * 5 * hidden
    widths = {out: (16, hidden), product: (4, 20 * hidden), x.size: (4, inputs)}
    front = 2 if backend == "cuda" else 1  # the one of two cells
    _few(made, front, widths, {SEQUENCES: SEQUENCES + MORE}, 2 * MORE)


def _few(made: Program, index: int, widths: dict[int, tuple[int, int]], numbers: dict[int, int], more: int) -> None:
    """A launch on a large batch.

    widths : a buffer's elements -> its parts, and how many elements of a part belong to a sequence.
    more : lines of work that the large batch has more.
    """
    launch, found = made.launches[index], dict[int, Far]()
    for value in launch.arguments:
        if isinstance(value, Tensor) and value.buffer.elements in widths:
            parts, width = widths[value.buffer.elements]
            found[id(value.buffer)] = Far(parts, MORE * width)
    lines = {"voxelrt_lstm_start": 256, "_start": 128, "voxelrt_lstm_inputs": TILE}.get(launch.name)
    lines = lines or (CUDA_ROWS if isinstance(launch.kernel, str) else int(launch.constants["ROWS"]))
    assert more % lines == 0
    assert same_at_the_end(made, index, found, numbers, launch.grid[0] + more // lines) > 0


def _truncated(text: str) -> str:
    """Indices lose what is past 32 bits before they become addresses."""
    return re.sub(r"shl\.b64\s+(%rd\d+), (%rd\d+), (\d);", r"cvt.s64.s32 \1, \2; shl.b64 \1, \1, \3;", text)


def test_an_index_of_32_bits_shows() -> None:
    made = _program("bilateral", "triton", _volume()[0, 0], 0.4, 0.5)
    far, blocks = _large(made, 0)
    with pytest.raises(OutOfBoundsError):
        same_at_the_end(made, 0, far, LARGE, blocks, _truncated)
