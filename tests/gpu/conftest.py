"""Tests that need a GPU, or a library that builds engines for it, are skipped by name without."""

from __future__ import annotations

import pytest

from voxelrt.backends.tensorrt_libraries import builder_for
from voxelrt.errors import DeviceError, MissingExtraError
from voxelrt.kernels.common.gpu.device import open_device


@pytest.fixture(autouse=True, scope="session")
def _gpu() -> None:
    try:
        open_device("this test")
    except (DeviceError, MissingExtraError) as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def builds_engines(_gpu: None) -> None:
    architecture = f"sm_{open_device('this test').target}"
    if builder_for(architecture) is None:
        pytest.skip(f"no library here builds engines for {architecture}: pip install 'voxelrt[gpu]'")
