"""What the convolutions reach at the shapes of real networks, without packing and layout changes.

``python -m voxelrt.kernels.conv3d.measure [ROW ...]`` prints one line a row: the direct algorithm and the one that the
cost model takes; one thread, processor time (so that a busy machine distorts less), the median of five runs, in turn.
"""

from __future__ import annotations

import statistics
import sys
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from voxelrt.kernels.common import capi, native
from voxelrt.kernels.common.kernel import Array
from voxelrt.kernels.common.native import BLOCK, BLOCKED16, Operand
from voxelrt.kernels.conv3d import cpu as ordinary
from voxelrt.kernels.conv3d.algorithm import Algorithm, algorithms
from voxelrt.kernels.conv_transpose3d import cpu as transposed

FEW = ordinary.MOST_PLANES


@dataclass(frozen=True)
class Row:
    """A cubic volume of ``size``, ``inputs`` channels to ``outputs``."""

    name: str
    inputs: int
    outputs: int
    size: int
    kernel: int = 3
    stride: int = 1
    up: bool = False


ROWS = (
    Row("32 at 128", 32, 32, 128),
    Row("64 at 64", 64, 64, 64),
    Row("128 at 32", 128, 128, 32),
    Row("256 at 16", 256, 256, 16),
    Row("320 at 8", 320, 320, 8),
    Row("320 at 4", 320, 320, 4),
    Row("first, 1 to 32 at 128", 1, 32, 128),
    Row("first, 4 to 32 at 96", 4, 32, 96),
    Row("down, 32 to 64 at 128", 32, 64, 128, stride=2),
    Row("down, 256 to 320 at 16", 256, 320, 16, stride=2),
    Row("1x1x1, 64 to 64 at 64", 64, 64, 64, kernel=1),
    Row("1x1x1, 256 to 256 at 16", 256, 256, 16, kernel=1),
    Row("head 1x1x1, 32 to 4 at 128", 32, 4, 128, kernel=1),
    Row("16 to 16 at 128", 16, 16, 128),
    Row("8 to 8 at 128", 8, 8, 128),
    Row("1 to 8 at 128, 5x5x5", 1, 8, 128, kernel=5),
    Row("flow, 16 to 3 at 128", 16, 3, 128),
    Row("up 2x2x2, 64 to 32 at 64", 64, 32, 64, kernel=2, stride=2, up=True),
    Row("up 2x2x2, 320 to 256 at 8", 320, 256, 8, kernel=2, stride=2, up=True),
    Row("up 3x3x3, 64 to 32 at 64", 64, 32, 64, stride=2, up=True),
)


def _volume(channels: int, size: int, planes: bool) -> Operand:
    if planes:
        array: Array = native.aligned_empty((1, channels, size, size, size), np.float32)
    else:
        array = native.aligned_empty((1, -(-channels // BLOCK), size, size, size, BLOCK), np.float32)
    array[...] = np.float32(0.5)  # touched, so that no page is new to a run
    return Operand(array) if planes else Operand(array, BLOCKED16, channels)


@dataclass(frozen=True)
class _Step:
    kernel: str
    inputs: list[Any]
    target: Operand
    values: dict[str, Any]


def _transposed(row: Row) -> _Step:
    shape, taps = (1, row.inputs, *(row.size,) * 3), (row.kernel,) * 3
    pad = (row.kernel - 1) // 2
    values = ordinary.parameters(
        np.broadcast_to(np.float32(0), shape), taps, row.stride, pad, 1, groups=1, activation=0, alpha=0.0, beta=0.0
    )
    values = {k: v for k, v in values.items() if k not in ("channels0", "output_channel_offset")}
    values["output_padding"] = (row.kernel % 2,) * 3
    weights = np.full((row.inputs, row.outputs, *taps), 0.01, np.float32)
    packed = native.pack_weight("conv_transpose3d.direct", weights, **values)
    target = _volume(row.outputs, transposed.output_size(shape, values)[0], False)
    bias = np.zeros(row.outputs, np.float32)
    return _Step("conv_transpose3d.direct", [_volume(row.inputs, row.size, False), packed, bias], target, values)


def _ways(row: Row) -> tuple[list[_Step], Algorithm]:
    """The direct step and, where it is another, the one that the model takes."""
    shape, taps = (1, row.inputs, *(row.size,) * 3), (row.kernel,) * 3
    values = ordinary.parameters(
        np.broadcast_to(np.float32(0), shape),
        taps,
        row.stride,
        (row.kernel - 1) // 2,
        1,
        groups=1,
        activation=0,
        alpha=0.0,
        beta=0.0,
    )
    out = (1, row.outputs, *ordinary.output_size(shape, values))
    found = algorithms(ordinary.problem(shape, 0, values, out))
    direct = next(a for a in found if a.kernel == "conv3d.direct")
    best = found[0] if min(row.inputs, row.outputs) > FEW else direct
    source, target = _volume(row.inputs, row.size, row.inputs <= FEW), _volume(row.outputs, out[2], row.outputs <= FEW)
    weights, bias = np.full((row.outputs, row.inputs, *taps), 0.01, np.float32), np.zeros(row.outputs, np.float32)
    steps = []
    for way in (direct, best) if best is not direct else (direct,):
        given = {**values, **way.params}
        packed = native.pack_weight(way.kernel, weights, **{**values, **way.packing})
        steps.append(_Step(way.kernel, [source, None, packed, bias], target, given))
    return steps, best


def measure(row: Row, repeats: int = 5) -> tuple[list[float], str]:
    """Milliseconds of the direct algorithm and, where there is another, of the best; and the best one's name."""
    if row.up:
        steps, name = [_transposed(row)], "direct"
    else:
        steps, best = _ways(row)
        name = str(best)
    pool = native.Pool(1)
    times: list[list[float]] = [[] for _ in steps]
    for _ in range(repeats):
        for step, taken in zip(steps, times, strict=True):
            start = time.process_time()
            native.run_kernel(step.kernel, step.inputs, [step.target], pool, **step.values)
            taken.append((time.process_time() - start) * 1e3)
    return [statistics.median(taken) for taken in times], name


def main() -> None:
    """Print the rows whose names hold one of the arguments, or all."""
    for row in ROWS:
        if len(sys.argv) == 1 or any(word in row.name for word in sys.argv[1:]):
            times, name = measure(row)
            positions = row.size**3 if row.up else (row.size // row.stride) ** 3
            flops = 2.0 * positions * row.inputs * row.outputs * row.kernel**3
            text = f"{row.name:28s} {times[0]:8.2f} ms {flops / times[0] / 1e6:6.0f} GFLOP/s"
            if len(times) > 1:
                text += f" {times[1]:8.2f} ms {times[0] / times[1]:5.2f} times  {name}"
            print(text, f" {capi.isa()}", flush=True)


if __name__ == "__main__":
    main()
