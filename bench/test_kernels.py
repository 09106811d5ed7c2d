"""The kernel rows under pytest-benchmark: ``pytest bench/test_kernels.py --seed 0 --benchmark-json out.json``."""

from __future__ import annotations

from typing import Any

import pytest

from bench.kernel_rows import KernelRow, kernel_rows
from voxelrt.errors import MissingExtraError


@pytest.mark.parametrize("row", [pytest.param(row, id=row.name) for row in kernel_rows()])
def test_kernel(row: KernelRow, seed: int, benchmark: Any) -> None:
    """Fails, and times nothing, where the answer is wrong."""
    try:
        call, difference = row.checked(seed)
    except MissingExtraError as error:
        pytest.skip(str(error))
    benchmark.extra_info |= {
        "row": row.name,
        "op": row.kernel.name,
        "backend": row.backend,
        "case": row.case.name,
        "difference": difference,
        "tolerance": row.case.tolerance,
        "flops": row.case.flops,
        "bytes": row.case.bytes,
    }
    benchmark(call)
