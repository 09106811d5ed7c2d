"""The PTX that nvcc and Triton emit, interpreted: every small case, for sm_80, 86 and 89."""

from __future__ import annotations

import pytest

from tests.emulation import ptx_runner
from tests.emulation.rows import check, program, rows
from voxelrt.kernels.common.gpu.targets import INTERPRETED
from voxelrt.kernels.common.kernel import Case, Kernel


def _run(kernel: Kernel, backend: str, case: Case) -> None:
    made = program(kernel, backend, case)
    first, *others = INTERPRETED
    check(kernel, case, ptx_runner.run(made, first, seed=1))
    for target in others:
        if not ptx_runner.same_code(made, first, target):
            check(kernel, case, ptx_runner.run(made, target, seed=target))


@pytest.mark.usefixtures("needs_nvcc")
@pytest.mark.parametrize(("kernel", "case"), rows("cuda"))
def test_cuda(kernel: Kernel, case: Case) -> None:
    _run(kernel, "cuda", case)


@pytest.mark.parametrize(("kernel", "case"), rows("triton"))
def test_triton(kernel: Kernel, case: Case) -> None:
    _run(kernel, "triton", case)
