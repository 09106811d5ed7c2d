"""conv3d on narrow numbers: ``conv3d.bf16`` and ``conv3d.int8`` on arrays."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from voxelrt.errors import UsageError
from voxelrt.kernels.common import native
from voxelrt.kernels.common.kernel import Array
from voxelrt.kernels.common.native import BLOCK, BLOCKED16, Operand

NUMBERS = {"fp32": 0, "bf16": 1, "int8": 2}  # ConvParams.precision
WAYS = {"auto": 0, "direct": 0, "widened": 1}  # ConvParams.algorithm of these kernels
MOST_LOOSE = 4  # channels of a row-major source
MOST_CODE = 127


def quantize_weights(weights: Array) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Weights (O, ...) as signed codes with a zero of 0, and the scale of each output channel: |w| <= 127 scale."""
    largest = np.abs(weights).reshape(weights.shape[0], -1).max(axis=1, initial=0.0).astype(np.float32)
    scales = np.where(largest > 0, largest / np.float32(MOST_CODE), np.float32(1.0)).astype(np.float32)
    spread = scales.reshape(-1, *(1,) * (weights.ndim - 1))
    codes: NDArray[np.int8] = np.clip(np.rint(weights / spread), -MOST_CODE, MOST_CODE).astype(np.int8)
    return codes, scales


def run(
    precision: str,
    x: Array,
    second: Array | None,
    weights: Array,
    bias: Array | None,
    residual: Array | None,
    shape: tuple[int, ...],
    values: dict[str, Any],
    algorithm: str,
    source_scale: float,
    pool: native.Pool | None,
) -> Array:
    """The convolution with the source and the weights rounded; ``values`` as for ``cpu.run``.

    Raises
    ------
    UsageError : an algorithm that these kernels do not have, groups, or no scale of the source for int8.
    """
    if algorithm not in WAYS:
        raise UsageError(f"algorithm {algorithm!r} does not compute in {precision}; choose from {', '.join(WAYS)}")
    values = {**values, "algorithm": WAYS[algorithm], "precision": NUMBERS[precision]}
    loose = x.shape[1] <= MOST_LOOSE and second is None
    few = shape[1] <= MOST_LOOSE

    def volume(array: Array) -> Operand:
        stored = array.astype(ml_dtypes.bfloat16) if precision == "bf16" else array
        return Operand(native.to_blocked(stored), BLOCKED16, array.shape[1])

    inputs: list[Any] = [
        Operand(x) if loose else volume(x),
        None if second is None else volume(second),
        None,
        None if bias is None else np.ascontiguousarray(bias),
        None if residual is None else Operand(residual),
    ]
    if residual is not None and not few:
        inputs[4] = Operand(native.to_blocked(residual), BLOCKED16, shape[1])
    if few:
        target = Operand(native.aligned_empty(shape, np.float32))
    else:
        blocks = (shape[0], -(-shape[1] // BLOCK), *shape[2:], BLOCK)
        target = Operand(native.aligned_empty(blocks, np.float32), BLOCKED16, shape[1])
    raw: Array = weights
    if precision == "int8":
        if not source_scale > 0:
            raise UsageError(f"a source_scale of {source_scale}; int8 needs a positive one")
        raw, scales = quantize_weights(weights)
        inputs.append(scales)
        values |= {"source_scale": source_scale, "source_zero": 0, "source_signed": 1}
    kernel = f"conv3d.{precision}"
    inputs[2] = native.pack_weight(kernel, raw, **values)
    native.run_kernel(kernel, inputs, [target], pool, **values)
    return target.array if few else native.from_blocked(target.array, shape[1])
