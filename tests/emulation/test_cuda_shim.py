"""CUDA kernels on the CPU: every small case under ASan and UBSan, with threads in several orders."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from tests.emulation import shim_runner
from tests.emulation.rows import check, program, rows
from voxelrt.kernels.common.kernel import Case, Kernel

pytestmark = pytest.mark.usefixtures("needs_cuda_headers")
ORDERS = {"ascending": 0, "descending": 1, "shuffled": 2}


def entries_of(kernel: Kernel) -> tuple[str, ...]:
    names: tuple[str, ...] = importlib.import_module(f"voxelrt.kernels.{kernel.name}.cuda").ENTRIES
    return names


@pytest.mark.parametrize(("kernel", "case"), rows("cuda"))
def test_case(kernel: Kernel, case: Case, build_folder: Path) -> None:
    made = program(kernel, "cuda", case)
    for seed in ORDERS.values():
        check(kernel, case, shim_runner.run(made, seed, build_folder, entries_of(kernel)))
