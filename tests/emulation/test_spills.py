"""No CUDA kernel keeps its registers in memory, on any target."""

from __future__ import annotations

import pytest

from tests.emulation.report import parse, usages
from tests.emulation.rows import kernels, targets
from tests.emulation.test_cuda_shim import entries_of
from voxelrt.kernels.common.kernel import Kernel

LOG = """ptxas info    : Compiling entry function 'voxelrt_some_op' for 'sm_75'
ptxas info    : Function properties for voxelrt_some_op
    16 bytes stack frame, 8 bytes spill stores, 12 bytes spill loads
ptxas info    : Used 61 registers, used 1 barriers, 1024 bytes smem, 556 bytes cmem[0]
"""


def test_a_log_is_read() -> None:
    (usage,) = parse("some", 75, LOG)
    assert (usage.entry, usage.registers, usage.spills, usage.stack) == ("voxelrt_some_op", 61, 20, 16)
    # 61 registers are 1952 of a warp, 2048 as they are given out.
    assert (usage.shared, usage.warps) == (1024, 32)


@pytest.mark.usefixtures("needs_nvcc")
@pytest.mark.parametrize("target", targets("cuda"))
@pytest.mark.parametrize("kernel", [pytest.param(k, id=k.name) for k in kernels("cuda")])
def test_nothing_is_spilled(kernel: Kernel, target: int) -> None:
    found = usages(kernel.name, target)
    assert {usage.entry for usage in found} == set(entries_of(kernel))
    most = 0 if target >= 80 else 32
    assert [usage for usage in found if usage.spills > most] == []
