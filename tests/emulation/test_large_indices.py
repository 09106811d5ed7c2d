"""Past 2³¹ elements: the last block of a volume that large, run alone on a few planes that lie where its end would.

Pointers are moved back by what is not there, so an address that wraps at 32 bits falls outside every buffer.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from tests.emulation import ptx_runner
from voxelrt.errors import MissingExtraError
from voxelrt.kernels.common.gpu.program import Launch, Program, Tensor
from voxelrt.kernels.common.kernel import Array, entries

RNG = np.random.default_rng(31)
PLANES, ROWS, COLUMNS = 3, 32, 64
DEPTH = 1 << 21  # of the large volume: 2³² voxels
AREA = ROWS * COLUMNS
MISSING = (DEPTH - PLANES) * AREA  # voxels


def _moved(launch: Launch, shifts: Mapping[int, int], numbers: Mapping[Any, Any], grid: tuple[int, int, int]) -> Launch:
    """The launch with some pointers moved back by so many elements and some numbers replaced, by their values."""

    def change(value: Any) -> Any:
        if isinstance(value, Tensor):
            back = shifts.get(id(value.buffer), 0)
            return Tensor(value.buffer, value.offset - back, value.shape, value.strides)
        return type(value)(numbers.get(int(value), value)) if value.dtype.kind in "iu" else value

    return dataclasses.replace(launch, grid=grid, arguments=tuple(map(change, launch.arguments)))


def _program(op: str, backend: str, *given: Any, **options: Any) -> Program:
    try:
        return entries()[op].program(backend)(*given, **options)
    except MissingExtraError as error:
        pytest.skip(str(error))


def _end(made: Program, name: str, shifts: Mapping[int, int], numbers: Mapping[Any, Any], blocks: int) -> Array:
    """The answer of the few planes, whole, and then with the last block written by the large volume's last block."""
    (index,) = [k for k, launch in enumerate(made.launches) if launch.name == name]
    launch = made.launches[index]
    made.launches[index] = _moved(launch, shifts, numbers, (blocks, *launch.grid[1:]))
    answer: Array = ptx_runner.run(made, 80, only={index: blocks - 1})
    return answer


def test_a_filter_of_voxels() -> None:
    volume = RNG.normal(size=(PLANES, ROWS, COLUMNS)).astype(np.float32)
    expected = ptx_runner.run(_program("gaussian", "triton", volume, (0.3, 0.0, 0.0)), 80)
    made = _program("gaussian", "triton", volume, (0.3, 0.0, 0.0))
    (launch,) = made.launches
    out, source = launch.arguments[0], launch.arguments[1]
    shifts = {id(out.buffer): MISSING, id(source.buffer): MISSING}
    numbers = {PLANES * AREA: DEPTH * AREA, PLANES: DEPTH}
    found = _end(made, "_along", shifts, numbers, DEPTH * AREA // 128)
    np.testing.assert_array_equal(found.ravel()[-128:], expected.ravel()[-128:])
    assert np.isnan(found.ravel()[:-128]).all()


@pytest.mark.parametrize("backend", ["triton", "cuda"])
@pytest.mark.usefixtures("needs_nvcc")
def test_a_convolution(backend: str) -> None:
    x = RNG.normal(size=(1, 16, PLANES, ROWS, COLUMNS)).astype(np.float16)
    weights = RNG.normal(size=(16, 16, 3, 1, 1)).astype(np.float16)
    made = _program("conv3d", backend, x, weights, padding=(1, 0, 0))
    expected = entries()["conv3d"].oracle(x, weights, padding=(1, 0, 0))
    (launch,) = made.launches
    out, source = launch.arguments[0], launch.arguments[1]
    shifts = {id(out.buffer): MISSING * 16, id(source.buffer): MISSING * 16}
    rows = launch.constants.get("BM", 128)
    numbers = {PLANES * AREA: DEPTH * AREA}
    # The depth alone, beside a kernel of as many taps: the number in front of the rows and columns.
    (where,) = [
        i
        for i, pair in enumerate(zip(launch.arguments, launch.arguments[1:], strict=False))
        if not isinstance(pair[0], Tensor) and (pair[0], pair[1]) == (PLANES, ROWS)
    ]
    arguments = [np.int32(DEPTH) if i == where else value for i, value in enumerate(launch.arguments)]
    made.launches[0] = dataclasses.replace(launch, arguments=tuple(arguments))
    found = _end(made, launch.name, shifts, numbers, DEPTH * AREA // rows)
    wanted = expected.transpose(0, 2, 3, 4, 1).reshape(-1, 16)[-rows:]
    got = found.transpose(0, 2, 3, 4, 1).reshape(-1, 16)
    np.testing.assert_allclose(got[-rows:].astype(np.float64), wanted, rtol=2e-2, atol=2e-2)
    assert np.isnan(got[:-rows].astype(np.float32)).all()


@pytest.mark.parametrize("backend", ["triton", "cuda"])
@pytest.mark.usefixtures("needs_nvcc")
def test_a_norm(backend: str) -> None:
    x = RNG.normal(size=(1, 32, PLANES, ROWS, COLUMNS)).astype(np.float32)
    gamma, beta = RNG.normal(size=(2, 32)).astype(np.float32)
    made = _program("norm3d", backend, x, gamma, beta, kind="affine")
    expected = entries()["norm3d"].oracle(x, gamma, beta, kind="affine")
    (launch,) = made.launches
    out, source = launch.arguments[0], launch.arguments[1]
    shifts = {id(out.buffer): MISSING * 32, id(source.buffer): MISSING * 32}
    found = _end(made, launch.name, shifts, {PLANES * AREA: DEPTH * AREA}, DEPTH * AREA // 128)
    last = found.transpose(0, 2, 3, 4, 1).reshape(-1, 32)
    np.testing.assert_allclose(
        last[-128:], expected.transpose(0, 2, 3, 4, 1).reshape(-1, 32)[-128:], rtol=1e-5, atol=1e-5
    )
    assert np.isnan(last[:-128]).all()
