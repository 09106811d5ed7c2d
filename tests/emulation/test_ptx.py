"""The PTX that nvcc and Triton emit, interpreted: every small case, for sm_80, 86 and 89."""

from __future__ import annotations

from typing import Any

import pytest

from tests.emulation import ptx_runner
from tests.emulation.rows import arguments, check, program, rows
from voxelrt.errors import MissingExtraError, UnsupportedError
from voxelrt.kernels.common.gpu.program import Program
from voxelrt.kernels.common.gpu.targets import INTERPRETED
from voxelrt.kernels.common.kernel import Case, Kernel

# The others of a Triton case cost two more compilations each: of one case of every op here, of all in the long run.
_FIRST = INTERPRETED[0]


def _run(kernel: Kernel, backend: str, case: Case) -> Program:
    made = program(kernel, backend, case)
    check(kernel, case, ptx_runner.run(made, _FIRST, seed=1))
    return made


def _run_others(kernel: Kernel, case: Case, made: Program) -> None:
    """On the other targets, where their code is another."""
    for target in INTERPRETED[1:]:
        if not ptx_runner.same_code(made, _FIRST, target):
            check(kernel, case, ptx_runner.run(made, target, seed=target))


def _one_of_each() -> list[Any]:
    """Of each op the case with the fewest launches."""
    found: dict[str, Any] = {}
    for row in rows("triton"):
        kernel, case = row.values
        given, options = arguments(case)
        try:
            count = len(kernel.program("triton")(*given, **options).launches)
        except (MissingExtraError, UnsupportedError):
            continue
        if count and (kernel.name not in found or count < found[kernel.name][0]):
            found[kernel.name] = count, row
    return [row for _, row in found.values()]


@pytest.mark.usefixtures("needs_nvcc")
@pytest.mark.parametrize(("kernel", "case"), rows("cuda"))
def test_cuda(kernel: Kernel, case: Case) -> None:
    _run_others(kernel, case, _run(kernel, "cuda", case))


@pytest.mark.parametrize(("kernel", "case"), rows("triton"))
def test_triton(kernel: Kernel, case: Case) -> None:
    _run(kernel, "triton", case)


@pytest.mark.parametrize(("kernel", "case"), _one_of_each())
def test_triton_for_other_targets(kernel: Kernel, case: Case) -> None:
    _run_others(kernel, case, program(kernel, "triton", case))


@pytest.mark.slow
@pytest.mark.parametrize(("kernel", "case"), rows("triton"))
def test_all_of_triton_for_other_targets(kernel: Kernel, case: Case) -> None:
    _run_others(kernel, case, program(kernel, "triton", case))
