"""What the direct convolutions reach at the shapes of real networks, without packing and layout changes.

``python -m voxelrt.kernels.conv3d.measure [ROW ...]`` prints one line a row: one thread, processor time (so that a busy
machine distorts less), the median of five runs.
"""

from __future__ import annotations

import statistics
import sys
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from voxelrt.kernels.common import native
from voxelrt.kernels.common.kernel import Array
from voxelrt.kernels.common.native import BLOCK, BLOCKED16, Operand
from voxelrt.kernels.conv3d import cpu as ordinary
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
    array[...] = np.float32(0.5)
    return Operand(array) if planes else Operand(array, BLOCKED16, channels)


def _step(row: Row) -> tuple[str, list[Any], Operand, dict[str, Any]]:
    """The kernel, inputs, output and parameters of a row."""
    pad = (row.kernel - 1) // 2
    taps = (row.kernel,) * 3
    shape = (1, row.inputs, row.size, row.size, row.size)
    values = ordinary.parameters(
        np.broadcast_to(np.float32(0), shape),
        taps,
        row.stride,
        pad,
        1,
        groups=1,
        activation=0,
        alpha=0.0,
        beta=0.0,
    )
    name, weights = "conv3d.direct", np.full((row.outputs, row.inputs, *taps), 0.01, np.float32)
    if row.up:
        name, weights = "conv_transpose3d.direct", np.full((row.inputs, row.outputs, *taps), 0.01, np.float32)
        values = {k: v for k, v in values.items() if k not in ("channels0", "output_channel_offset")}
        values["output_padding"] = (row.kernel % 2,) * 3
    size = (transposed if row.up else ordinary).output_size(shape, values)[0]
    source = _volume(row.inputs, row.size, row.inputs <= FEW and not row.up)
    target = _volume(row.outputs, size, row.outputs <= FEW and not row.up)
    packed, bias = native.pack_weight(name, weights, **values), np.zeros(row.outputs, np.float32)
    return name, [source, packed, bias] if row.up else [source, None, packed, bias], target, values


def measure(row: Row, repeats: int = 5) -> tuple[float, float]:
    """Milliseconds and GFLOP/s of a row."""
    name, inputs, target, values = _step(row)
    pool, times = native.Pool(1), []
    for _ in range(repeats):
        start = time.process_time()
        native.run_kernel(name, inputs, [target], pool, **values)
        times.append(time.process_time() - start)
    positions = row.size**3 if row.up else target.array.shape[2] ** 3
    flops = 2.0 * positions * row.inputs * row.outputs * row.kernel**3
    median = statistics.median(times)
    return median * 1e3, flops / median / 1e9


def main() -> None:
    """Print the rows whose names hold one of the arguments, or all."""
    for row in ROWS:
        if len(sys.argv) == 1 or any(word in row.name for word in sys.argv[1:]):
            time_ms, rate = measure(row)
            print(f"{row.name:28s} {time_ms:9.2f} ms {rate:7.1f} GFLOP/s  {native.isa()}", flush=True)


if __name__ == "__main__":
    main()
