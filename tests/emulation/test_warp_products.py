"""Tensor cores in the shim and in nvcc's code beside NumPy's products, laid out by the PTX manual's own formulas."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from tests.emulation import ptx_runner, shim_runner
from tests.emulation.products.cuda import ENTRIES, program
from voxelrt.kernels.common.gpu.program import Program

RNG = np.random.default_rng(3)
KINDS = {"f16": np.float16, "bf16": ml_dtypes.bfloat16, "tf32": np.float32}
Runner = Callable[[Program], Any]


@pytest.fixture(params=["shim", "ptx"])
def run(request: pytest.FixtureRequest, build_folder: Path) -> Runner:
    if request.param == "shim":
        request.getfixturevalue("needs_cuda_headers")
        return lambda made: shim_runner.run(made, 2, build_folder, ENTRIES)
    request.getfixturevalue("needs_nvcc")
    return lambda made: ptx_runner.run(made, 80)


def registers(places: list[list[tuple[int, int]]], matrix: Any) -> Any:
    """(lanes, registers) uint32; ``places[lane]`` are the elements that a lane holds, in order."""
    held = np.stack([[matrix[place] for place in lane] for lane in places])
    return np.ascontiguousarray(held).view(np.uint32)


def left_places(lane: int, each: int) -> list[tuple[int, int]]:
    """PTX ISA: row = groupID, or groupID + 8 in every second register; column = threadID·each + i, further for half."""
    group, thread = lane >> 2, lane % 4
    return [
        (group + 8 * (i // each % 2), thread * each + i % each + (4 * each if i >= 2 * each else 0))
        for i in range(4 * each)
    ]


def right_places(lane: int, each: int) -> list[tuple[int, int]]:
    """PTX ISA: row = threadID·each + i, further for half; column = groupID."""
    group, thread = lane >> 2, lane % 4
    return [(thread * each + i % each + (4 * each if i >= each else 0), group) for i in range(2 * each)]


def sum_places(lane: int) -> list[tuple[int, int]]:
    return [((lane >> 2) + 8 * (i // 2), lane % 4 * 2 + i % 2) for i in range(4)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_product(run: Runner, kind: str) -> None:
    dtype, lanes = KINDS[kind], range(32)
    each = 4 // np.dtype(dtype).itemsize
    # Whole numbers, exact in every type and sum.
    a, b = (RNG.integers(-8, 8, size).astype(dtype) for size in ((16, 8 * each), (8 * each, 8)))
    c = RNG.integers(-8, 8, (16, 8)).astype(np.float32)
    given = [registers([left_places(lane, each) for lane in lanes], a)]
    given.append(registers([right_places(lane, each) for lane in lanes], b))
    given.append(registers([sum_places(lane) for lane in lanes], c).view(np.float32))
    found = run(program(kind, *given, shape=(32, 4), dtype=np.float32))
    expected = a.astype(np.float64) @ b.astype(np.float64) + c
    assert found.tolist() == [[expected[place] for place in sum_places(lane)] for lane in lanes]


@pytest.mark.parametrize("turned", [False, True])
def test_loads_of_matrices(run: Runner, turned: bool) -> None:
    numbers = RNG.integers(0, 1 << 16, (16, 16), dtype=np.uint16)
    found = run(program("load", numbers, shape=(32, 4), dtype=np.uint32, numbers=(turned,)))
    for index, (y, x) in enumerate([(0, 0), (8, 0), (0, 8), (8, 8)]):
        quarter = numbers[y : y + 8, x : x + 8].T if turned else numbers[y : y + 8, x : x + 8]
        pairs = np.ascontiguousarray(found[:, index]).view(np.uint16).reshape(8, 8)
        np.testing.assert_array_equal(pairs, quarter)


def test_rounding_to_tf32(run: Runner) -> None:
    numbers = (RNG.normal(size=32) * 10.0 ** RNG.integers(-20, 20, 32)).astype(np.float32)
    numbers[:4] = [1 + 2.0**-11, -1 - 2.0**-11, np.inf, 3.0]  # two ties, which go away from zero
    found = run(program("round", numbers, shape=(32,), dtype=np.float32))
    mantissa, exponent = np.frexp(numbers[4:].astype(np.float64))
    near = np.ldexp(np.sign(mantissa) * np.floor(np.abs(mantissa) * 2**11 + 0.5), exponent - 11)
    assert found[:4].tolist() == [1 + 2.0**-10, -1 - 2.0**-10, np.inf, 3.0]
    np.testing.assert_array_equal(found[4:], near)
