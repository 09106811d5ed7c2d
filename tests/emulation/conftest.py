"""What the proofs share: where compiled code is kept, and skips by name for missing tools."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.emulation.shim_runner import cuda_headers
from voxelrt.kernels.common.gpu.cuda_compiler import nvcc

BUILD = Path(__file__).resolve().parents[2] / "build" / "emulation"


@pytest.fixture(scope="session")
def build_folder() -> Path:
    """Kept between runs; its files are named by the hash of what they were made from."""
    BUILD.mkdir(parents=True, exist_ok=True)
    return BUILD


@pytest.fixture(scope="session")
def needs_nvcc() -> None:
    if nvcc() is None:
        pytest.skip("nvcc is not on PATH: CUDA kernels are not compiled")


@pytest.fixture(scope="session")
def needs_cuda_headers() -> None:
    if cuda_headers() is None:
        pytest.skip("cuda_fp16.h was not found: CUDA kernels do not run on the CPU")
