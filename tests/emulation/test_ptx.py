"""The PTX that nvcc and Triton emit, interpreted: every small case, for sm_80, 86 and 89."""

from __future__ import annotations

from typing import Any

import pytest

from tests.emulation import ptx_runner
from tests.emulation.rows import check, program, rows
from voxelrt.kernels.common.gpu.targets import INTERPRETED
from voxelrt.kernels.common.kernel import Case, Kernel

# The others of a Triton case cost two more compilations each: of one case of every op here, of all in the long run.
_FIRST = INTERPRETED[:1]


def _run(kernel: Kernel, backend: str, case: Case, targets: tuple[int, ...] = INTERPRETED) -> None:
    made = program(kernel, backend, case)
    first, *others = targets
    check(kernel, case, ptx_runner.run(made, first, seed=1))
    for target in others:
        if not ptx_runner.same_code(made, first, target):
            check(kernel, case, ptx_runner.run(made, target, seed=target))


def _one_of_each() -> list[Any]:
    found: dict[str, Any] = {}
    for row in rows("triton"):
        found.setdefault(row.values[0].name, row)
    return list(found.values())


@pytest.mark.usefixtures("needs_nvcc")
@pytest.mark.parametrize(("kernel", "case"), rows("cuda"))
def test_cuda(kernel: Kernel, case: Case) -> None:
    _run(kernel, "cuda", case)


@pytest.mark.parametrize(("kernel", "case"), rows("triton"))
def test_triton(kernel: Kernel, case: Case) -> None:
    _run(kernel, "triton", case, _FIRST)


@pytest.mark.parametrize(("kernel", "case"), _one_of_each())
def test_triton_for_other_targets(kernel: Kernel, case: Case) -> None:
    _run(kernel, "triton", case)


@pytest.mark.slow
@pytest.mark.parametrize(("kernel", "case"), rows("triton"))
def test_all_of_triton_for_other_targets(kernel: Kernel, case: Case) -> None:
    _run(kernel, "triton", case)
